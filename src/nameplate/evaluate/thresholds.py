"""Choose a bundle's thresholds on photos that did not train its model.

`with_verdicts` chooses all of them: those of verdicts (`choose_thresholds`) and those of claims in adverts
(`choose_claims`). `fit_gate` fits the classifier behind `not a car`, which only the bundle that ships has of its own.
`with_reference` records what the model answers on the reference image, so that a later run can be checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.data.labels import fields_of, makes_of
from nameplate.errors import BundleError
from nameplate.evaluate.calibration import MIN_CALIBRATION
from nameplate.evaluate.significance import SEED
from nameplate.model.bundle import BACKBONE, Bundle, File, Manifest
from nameplate.model.classifier import fit_head
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings
from nameplate.model.proof import prove
from nameplate.model.reference import ReferenceAnswer, reference_photo
from nameplate.model.verdict import COVERAGE, Thresholds, gated, make_indices, make_probabilities, ood_score
from nameplate.model.verification import MOST_PHOTOS, RATES, ClaimThresholds, Lies
from nameplate.storage import sha256
from nameplate.types import Doubles, Floats

# The gate: a binary classifier of embeddings, whole cars against everything else.

OTHERS_PASSED = 0.03
"""The share of photos of other things that may pass the gate."""
FOLDS = 5
"""Folds of the cross-validation that chooses the gate's regularisation and threshold."""


def in_calibration_half(sha256: str | None) -> bool:
    """Whether a photo is in the half that chooses gates and thresholds; the other half evaluates them.

    The last hexadecimal digit of the SHA-256 decides, so the halves are the same in every run and for every bundle.
    """
    return int(str(sha256)[-1], 16) % 2 == 0


def fit_gate(cars: Floats, others: Floats, groups: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Floats, float]:
    """Fit a gate: a logistic regression of two classes of equal total weight (`fit_head`).

    Args:
        cars: float32 N×D, the embeddings of photos of whole cars.
        others: float32 M×D, those of interiors, details and other photos without a whole car.
        groups: int64 (N,) and (M,); all variants of one photo have one number and stay in one fold.

    Returns:
        Weights and bias, float32 (D+1,), for `MahalanobisDetector.gate`; and the log-odds below which
        `OTHERS_PASSED` of the other things lie, out of fold, for `Thresholds.no_car`.

    Raises:
        ValueError: One of the two is empty.
    """
    if not len(cars) or not len(others):
        raise ValueError(f"a gate needs both: here are {len(cars)} photos of cars and {len(others)} of other things")
    classes = np.repeat(np.array([0, 1], np.int64), [len(cars), len(others)])
    folds = np.concatenate(groups) % FOLDS
    head = fit_head(np.concatenate([cars, others]), classes, folds, balanced=True)
    logits = head.out_of_fold if head.out_of_fold is not None else np.zeros((len(classes), 2), np.float32)
    # Two logits differ by one linear function, which is all that a binary classifier needs.
    weight, bias = head.weight[:, 1] - head.weight[:, 0], head.bias[1] - head.bias[0]
    gate = (np.append(weight, bias) / head.temperature).astype(np.float32)
    odds = (logits[:, 1] - logits[:, 0])[classes == 1] / head.temperature
    return gate, float(np.quantile(odds, OTHERS_PASSED))


KEPT, CARS_KEPT = 0.95, 0.99
"""The shares of known cars that must not get `unknown car`, and must not get `not a car`. `KEPT` and `COVERAGE` each
allow for 5 % of errors: a gate may stop 5 % of known cars, and 5 % of the sets of the others may lack the truth."""
MIN_NEAR = 10
"""The number of photos below which `unknown car` has no threshold. A further known car lies below the largest of ten
scores with a probability of 10/11."""


def choose_thresholds(
    probabilities: Floats,
    y_true: NDArray[np.int64],
    makes: Sequence[str],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Thresholds:
    """Choose the thresholds of verdicts: first the gates, then the prediction sets of photos that pass them.

    Args:
        probabilities: float32 N×C, calibrated, of held-out photos.
        y_true: int64 (N,).
        makes: The make of each of the C nameplates.
        distances: `MahalanobisDetector.distances` of these photos; None where there are none.
        far: The backbone's distance threshold of `not a car`. None: the distance that keeps `CARS_KEPT`.
        no_car: The threshold of the backbone's gate; None where it has no gate.
        odds: `MahalanobisDetector.non_car_log_odds` of these photos; None where the backbone has no gate.

    Returns:
        The thresholds. One is None where there are too few photos to choose it: sets need `MIN_CALIBRATION`, `near`
        needs `MIN_NEAR` photos whose class has another one.
    """
    found = choose_gates(probabilities, distances, far, no_car)
    if len(y_true) < MIN_CALIBRATION:
        return found
    passed = np.ones(len(y_true), np.bool_)
    if distances is not None:
        passed = ~np.logical_or(*gated(probabilities, distances, odds, found))
    _, of_makes = make_probabilities(probabilities, makes)
    _, place = make_indices(tuple(makes))
    sets = (
        selection_conditional_threshold(probabilities, y_true, passed),
        selection_conditional_threshold(of_makes, place[y_true], passed),
    )
    return replace(found, photos=len(y_true), nameplate=sets[0], make=sets[1])


def choose_gates(
    probabilities: Floats,
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    kept: float = KEPT,
) -> Thresholds:
    """Choose the threshold of `unknown car`, and that of `not a car` where the backbone has none.

    Args:
        probabilities: float32 N×C.
        distances: Two arrays float32 (N,), see `choose_thresholds`; or None.
        far: See `choose_thresholds`.
        no_car: See `choose_thresholds`.
        kept: The share of known cars that must not get `unknown car`.
    """
    found = Thresholds(far=far, no_car=no_car)
    if distances is None:
        return found
    near, cars = distances
    there = np.isfinite(near)  # a photo that is alone in its class has no distance
    if there.sum() < MIN_NEAR:
        return found
    low, middle, high = np.quantile(near[there], [0.25, 0.5, 0.75])
    found = replace(found, middle=float(middle), spread=max(float(high - low), 1e-6))
    scores = np.sort(ood_score(near[there], probabilities[there], found))
    # The rank of split conformal prediction, as in `conformal_threshold`; of fewer than 19 scores it is the largest.
    rank = min(len(scores), math.ceil((len(scores) + 1) * kept))
    found = replace(found, near=float(scores[rank - 1]))
    if found.far is None and there.sum() >= MIN_CALIBRATION:
        found = replace(found, far=float(np.quantile(cars[np.isfinite(cars)], CARS_KEPT)))
    return found


def selection_conditional_threshold(
    probabilities: Floats, y_true: NDArray[np.int64], passed: NDArray[np.bool_], coverage: float = COVERAGE
) -> float:
    """The lower one of two conformal thresholds: that of all photos, and that of the photos that pass the gates.

    A caller gets sets only for photos that pass, so the second threshold gives the promised coverage to what the
    caller receives: it is calibrated on photos that were selected in the same way (Y. Jin, Z. Ren, "Confidence on the
    Focal", 2024). The first one prevents a higher threshold where the gates stop mostly hard photos, because on other
    photos, such as whole scenes, they stop different ones (docs/verdicts.md).

    Args:
        probabilities: float32 N×C.
        y_true: int64 (N,).
        passed: bool (N,), whether no gate stops the photo.
        coverage: See `conformal_threshold`.
    """
    return min(
        conformal_threshold(probabilities, y_true, coverage),
        conformal_threshold(probabilities[passed], y_true[passed], coverage),
    )


def conformal_threshold(probabilities: Floats, y_true: NDArray[np.int64], coverage: float = COVERAGE) -> float:
    """The probability from which a class is in the prediction set, so that the set holds the true class.

    Split conformal prediction with the score 1 - p(true class) (M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous
    Set-Valued Classifiers with Bounded Error Levels", 2019; A. Angelopoulos, S. Bates, 2021, section 1).

    Args:
        probabilities: float32 N×C.
        y_true: int64 (N,).
        coverage: The share of further photos of the same distribution whose set holds the true class.

    Returns:
        The threshold; 0 where there are too few photos for any promise, so that every class is in the set.
    """
    of_truth = np.sort(probabilities[np.arange(len(y_true)), y_true])[::-1]
    rank = math.ceil((len(of_truth) + 1) * coverage)
    return 0.0 if rank > len(of_truth) else float(of_truth[rank - 1])


# Claims of adverts: their thresholds are chosen on adverts that are drawn from held-out photos.

DRAWS = 4000
"""The least number of adverts that are drawn for each number of photos."""


@dataclass(frozen=True, slots=True)
class Adverts:
    """The scores of true and of wrong claims on A simulated adverts of one number of photos."""

    true: Doubles
    """The score of the true claim, float64 (A,)."""
    other: Doubles
    """The score of a wrong claim of another make, float64 (A,); of any other class where all are of one make."""
    same_make: Doubles
    """The score of a wrong claim of the same make; shorter than A where some make has one nameplate only."""
    alike: Doubles
    """The score of the wrong class that the photos of the class resemble most, of any make, float64 (A,)."""

    @property
    def wrong(self) -> Doubles:
        """The scores of wrong claims; half of them are of the same make where there are such."""
        if not len(self.same_make):
            return self.other
        return np.concatenate([self.other, np.resize(self.same_make, len(self.other))])

    @property
    def lies(self) -> dict[Lies, Doubles]:
        """The scores of each kind of wrong claim except `mixed`."""
        found: dict[Lies, Doubles] = {
            "random": self.other,
            "same-make": self.same_make,
            "alike": self.alike,
        }
        return {kind: scores for kind, scores in found.items() if len(scores)}


def choose_claims(
    probabilities: Floats, y_true: NDArray[np.int64], makes: Sequence[str]
) -> tuple[ClaimThresholds | None, ClaimThresholds | None]:
    """Choose thresholds for claims of nameplates, and for claims of makes.

    Args:
        probabilities: float32 N×C, calibrated, of held-out photos.
        y_true: int64 (N,).
        makes: The make of each of the C nameplates.

    Returns:
        Both; None for what has fewer than `MIN_CALIBRATION` photos, or only one class.
    """
    names, of_makes = make_probabilities(probabilities, makes)
    _, member = make_indices(tuple(makes))
    return _choose(probabilities, y_true, member), _choose(of_makes, member[y_true], np.arange(len(names)))


def _choose(probs: Floats, y_true: NDArray[np.int64], makes: NDArray[np.int64]) -> ClaimThresholds | None:
    if len(y_true) < MIN_CALIBRATION or probs.shape[1] < 2:
        return None
    accept: list[tuple[float, ...]] = []
    reject: list[tuple[float, ...]] = []
    lies: dict[str, list[tuple[float, ...]]] = {}
    for photos in range(1, MOST_PHOTOS + 1):
        drawn = draw_adverts(probs, y_true, makes, photos)
        if drawn is None:  # no class has so many photos: the thresholds of fewer photos serve
            accept.append(accept[-1])
            reject.append(reject[-1])
            for rows in lies.values():
                rows.append(rows[-1])
            continue
        accept.append(_above(drawn.wrong))
        for kind, scores in drawn.lies.items():
            lies.setdefault(kind, []).append(_above(scores))
        reject.append(tuple(np.quantile(drawn.true, RATES, method="lower").tolist()))
    full = {kind: tuple(rows) for kind, rows in lies.items() if len(rows) == MOST_PHOTOS}
    return ClaimThresholds(len(y_true), tuple(accept), tuple(reject), full)


def _above(scores: Doubles) -> tuple[float, ...]:
    """The score that the share `RATES[i]` of wrong claims exceeds, for each i."""
    return tuple(np.quantile(scores, 1 - np.array(RATES), method="higher").tolist())


def most_alike(probs: Floats, y_true: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other class with the highest mean probability on the photos of each class.

    Args:
        probs: float32 N×C.
        y_true: int64 (N,).

    Returns:
        int64 (C,); -1 for a class without photos.
    """
    found = np.full(probs.shape[1], -1, np.int64)
    for place in np.unique(y_true).tolist():
        means = probs[y_true == place].mean(0)
        means[place] = -1
        found[place] = means.argmax()
    return found


def draw_adverts(
    probs: Floats, y_true: NDArray[np.int64], makes: NDArray[np.int64], photos: int, seed: int = SEED
) -> Adverts | None:
    """Draw adverts from held-out photos, and score a true claim and wrong claims on each.

    Args:
        probs: float32 N×C.
        y_true: int64 (N,).
        makes: int64 (C,), the make of each class.
        photos: The number of photos of each advert; all are different ones of one class.
        seed: The seed of the draws.

    Returns:
        The scores; None where no class has so many photos.
    """
    random = np.random.default_rng(seed)
    pools = {int(c): np.flatnonzero(y_true == c) for c in np.unique(y_true) if (y_true == c).sum() >= photos}
    if not pools or probs.shape[1] < 2:
        return None
    sizes = np.array([len(pool) for pool in pools.values()], np.float64)
    true, other, same, taken_for = [], [], [], []
    nearest = most_alike(probs, y_true)
    # A class is drawn as often as it has photos, so that adverts have the class frequencies of the data.
    drawn = random.choice(list(pools), max(DRAWS, len(y_true)), p=sizes / sizes.sum())
    for place in drawn.tolist():
        score = probs[random.choice(pools[place], photos, replace=False)].mean(0)
        alike = np.flatnonzero((makes == makes[place]) & (np.arange(len(makes)) != place))
        unlike = np.flatnonzero(makes != makes[place])
        true.append(score[place])
        taken_for.append(score[nearest[place]])
        other.append(score[random.choice(unlike if len(unlike) else alike)])
        if len(alike):
            same.append(score[random.choice(alike)])
    return Adverts(*(np.array(scores, np.float64) for scores in (true, other, same, taken_for)))


# Entries of the bundle's manifest.


def with_reference(manifest: Manifest, backbone: bytes, weight: Floats, bias: Floats) -> Manifest:
    """Add to a manifest what ONNX Runtime answers on the reference image.

    Args:
        manifest: The manifest, complete except for this.
        backbone: The bytes of the ONNX file.
        weight: The head's weight, float32 D×C.
        bias: The head's bias, float32 (C,).

    Raises:
        BundleError: The model does not work, so that loading the bundle would fail.
    """
    draft = replace(manifest, files={BACKBONE: File(sha256(backbone), len(backbone))})
    bundle = Bundle(draft, backbone, weight, bias)
    prove(bundle)
    model = Model(bundle, Settings("onnxruntime"))
    [prediction] = model.predict(reference_photo())
    if prediction.error is not None:
        raise BundleError(
            f"'{manifest.name}' does not work: on the reference image it fails with '{prediction.error}'."
        )
    return replace(manifest, golden=ReferenceAnswer(prediction.top, model.bundle.int8))


def with_verdicts(
    manifest: Manifest,
    probabilities: Floats,
    y_true: NDArray[np.int64],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Manifest:
    """Add makes and models, and the thresholds of verdicts and claims, to a manifest.

    Args:
        manifest: The manifest of the new bundle.
        probabilities: float32 N×C, calibrated, of held-out photos; N may be 0.
        y_true: int64 (N,).
        distances: `MahalanobisDetector.distances` of these photos; None where the bundle has no detector.
        far: See `choose_thresholds`.
        no_car: See `choose_thresholds`.
        odds: See `choose_thresholds`.
    """
    makes = makes_of(manifest.nameplates)
    claims, make_claims = choose_claims(probabilities, y_true, makes)
    thresholds = choose_thresholds(probabilities, y_true, makes, distances, far, no_car, odds)
    fields = tuple(map(fields_of, manifest.nameplates))
    manifest = replace(manifest, makes=makes, fields=fields)
    return replace(manifest, thresholds=thresholds, claims=claims, make_claims=make_claims)
