"""`choose`: where answers are cut, from photos that did not train the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.data.labels import makes_of
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

# JOINED `fit_gate`: what tells photos of whole cars from photos of other things, and where it is cut.


OTHERS_PASSED = 0.03
"""Share of photos of other things that may pass for cars."""
FOLDS = 5


def chooses(sha256: str | None) -> bool:
    """Whether a photo is of the half that gates and thresholds are chosen on; the other half judges them."""
    return int(str(sha256)[-1], 16) % 2 == 0


def fit_gate(cars: Floats, others: Floats, groups: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[Floats, float]:
    """Fit a gate: a logistic regression of two classes, each weighing alike (`fit_head`).

    Args:
        cars: float32 N×D, embeddings of photos of whole cars.
        others: float32 M×D, of interiors, details and whatever else is no whole car.
        groups: int64 (N,) and (M,); what is made from one photo has one number, and lies in one fold.

    Returns:
        Weights and bias, float32 (D+1,), for `MahalanobisDetector.gate`; and the log-odds below which `OTHERS_PASSED` of the other
        things lie, judged by folds that did not see them, for `Thresholds.no_car`.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(cars) or not len(others):
        raise ValueError(f"a gate needs both: here are {len(cars)} photos of cars and {len(others)} of other things")
    classes = np.repeat(np.array([0, 1], np.int64), [len(cars), len(others)])
    folds = np.concatenate(groups) % FOLDS
    head = fit_head(np.concatenate([cars, others]), classes, folds, balanced=True)
    logits = head.out_of_fold if head.out_of_fold is not None else np.zeros((len(classes), 2), np.float32)
    weight, bias = head.weight[:, 1] - head.weight[:, 0], head.bias[1] - head.bias[0]
    gate = (np.append(weight, bias) / head.temperature).astype(np.float32)
    odds = (logits[:, 1] - logits[:, 0])[classes == 1] / head.temperature
    return gate, float(np.quantile(odds, OTHERS_PASSED))


KEPT, CARS_KEPT = 0.95, 0.99
"""Shares of known cars that are not called unknown, and not called no car. `KEPT` and `COVERAGE` share out what may go
wrong: a gate may stop 5 % of all known cars, and 5 % of the sets of the others may lack the truth."""
MIN_NEAR = 10
"""Photos that say how far a known car may be: the farthest of ten keeps ten of eleven further ones."""


def choose(
    probabilities: Floats,
    y_true: NDArray[np.int64],
    makes: Sequence[str],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Thresholds:
    """Thresholds for a model's verdicts: first the gates, then the sets of what passes them.

    Args:
        probabilities: float32 N×C, calibrated, of photos that trained nothing.
        y_true: int64 (N,).
        makes: of each of the C nameplates.
        distances: `MahalanobisDetector.distances` of these photos; None where there are none.
        far: the threshold of "not a car" where the backbone has one; None: the distance that keeps `CARS_KEPT`.
        no_car: the threshold of the backbone's gate, where it has one.
        odds: `MahalanobisDetector.non_car_log_odds` of these photos, where there is a gate.

    Returns:
        None for what too few photos cannot choose: sets need `MIN_CALIBRATION`, `near` needs `MIN_NEAR` that are not
        alone in their class.
    """
    found = choose_gates(probabilities, distances, far, no_car)
    if len(y_true) < MIN_CALIBRATION:
        return found
    passed = np.ones(len(y_true), np.bool_)
    if distances is not None:
        passed = ~np.logical_or(*gated(probabilities, distances, odds, found))
    _, of_makes = make_probabilities(probabilities, makes)
    _, place = make_indices(tuple(makes))
    sets = least_delivered(probabilities, y_true, passed), least_delivered(of_makes, place[y_true], passed)
    return replace(found, photos=len(y_true), nameplate=sets[0], make=sets[1])


def choose_gates(
    probabilities: Floats,
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    kept: float = KEPT,
) -> Thresholds:
    """Where unknown cars begin; and cars, where the backbone does not say.

    Args:
        probabilities: float32 N×C.
        distances: two of float32 (N,), or None.
        far: see `choose`.
        no_car: see `choose`.
        kept: share of known cars that shall not be called unknown.
    """
    found = Thresholds(far=far, no_car=no_car)
    if distances is None:
        return found
    near, cars = distances
    there = np.isfinite(near)  # a photo that is alone in its class is nowhere near
    if there.sum() < MIN_NEAR:
        return found
    low, middle, high = np.quantile(near[there], [0.25, 0.5, 0.75])
    found = replace(found, middle=float(middle), spread=max(float(high - low), 1e-6))
    strange = np.sort(ood_score(near[there], probabilities[there], found))
    place = min(len(strange), math.ceil((len(strange) + 1) * kept))  # as in `least`; of fewer than 19 the greatest
    found = replace(found, near=float(strange[place - 1]))
    if found.far is None and there.sum() >= MIN_CALIBRATION:
        found = replace(found, far=float(np.quantile(cars[np.isfinite(cars)], CARS_KEPT)))
    return found


def least_delivered(
    probabilities: Floats, y_true: NDArray[np.int64], passed: NDArray[np.bool_], coverage: float = COVERAGE
) -> float:
    """`conformal_threshold` that holds for all photos before the gates, and for those that pass them: the lower of both.

    Sets are handed out for photos that pass alone, so the second is what a caller receives: calibrated on what passed,
    as further photos are chosen in the same way (Y. Jin, Z. Ren, "Confidence on the Focal", 2024). The first keeps it
    from growing where gates stop just the hard photos: on scenes they stop others (docs/verdicts.md).

    Args:
        probabilities: float32 N×C.
        y_true: int64 (N,).
        passed: bool (N,), those that no gate stops.
        coverage: see `conformal_threshold`.
    """
    return min(
        conformal_threshold(probabilities, y_true, coverage),
        conformal_threshold(probabilities[passed], y_true[passed], coverage),
    )


def conformal_threshold(probabilities: Floats, y_true: NDArray[np.int64], coverage: float = COVERAGE) -> float:
    """The probability from which a class is in the set, so that the set of a further photo holds its truth.

    Split conformal prediction with the score 1 - p(truth) (M. Sadinle, J. Lei, L. Wasserman, "Least Ambiguous
    Set-Valued Classifiers with Bounded Error Levels", 2019; A. Angelopoulos, S. Bates, 2021, section 1).

    Args:
        probabilities: float32 N×C.
        y_true: int64 (N,).
        coverage: share of further photos, alike to these, whose set holds the truth.

    Returns:
        0 where so few photos can promise nothing: every class is in the set then.
    """
    of_truth = np.sort(probabilities[np.arange(len(y_true)), y_true])[::-1]
    rank = math.ceil((len(of_truth) + 1) * coverage)
    return 0.0 if rank > len(of_truth) else float(of_truth[rank - 1])


# JOINED Where claims are cut, and how often that goes wrong, on adverts made of held-out photos.


DRAWS = 4000
"""Adverts drawn of each number of photos, at least."""


@dataclass(frozen=True, slots=True)
class Adverts:
    """Scores of claims on adverts of a number of photos."""

    true: Doubles
    """Of the right claim, (A,)."""
    other: Doubles
    """Of a wrong claim of another make (of any other class, where there are no makes), (A,)."""
    same_make: Doubles
    """Of a wrong claim of the same make; shorter where a make has one nameplate."""
    alike: Doubles
    """Of the wrong claim that the photos of the class are taken for most often, whatever its make, (A,)."""

    @property
    def wrong(self) -> Doubles:
        """Wrong claims, half of them of the same make where there are such."""
        if not len(self.same_make):
            return self.other
        return np.concatenate([self.other, np.resize(self.same_make, len(self.other))])

    @property
    def lies(self) -> dict[Lies, Doubles]:
        """Scores of each kind of wrong claim but the mixed ones."""
        found: dict[Lies, Doubles] = {
            "random": self.other,
            "same-make": self.same_make,
            "alike": self.alike,
        }
        return {kind: scores for kind, scores in found.items() if len(scores)}


def choose_claims(
    probabilities: Floats, y_true: NDArray[np.int64], makes: Sequence[str]
) -> tuple[ClaimThresholds | None, ClaimThresholds | None]:
    """Thresholds for claims of nameplates, and for claims of makes; None where nothing can choose them.

    Args:
        probabilities: float32 N×C, calibrated, of photos that trained nothing.
        y_true: int64 (N,).
        makes: of each of the C nameplates.
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
        if drawn is None:  # no class has so many photos
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
    """What scores of wrong claims are above at each of `RATES`."""
    return tuple(np.quantile(scores, 1 - np.array(RATES), method="higher").tolist())


def most_alike(probs: Floats, y_true: NDArray[np.int64]) -> NDArray[np.int64]:
    """The other class that photos of each class are taken for most: int64 (C,); for a class without photos -1.

    Args:
        probs: float32 N×C.
        y_true: int64 (N,).
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
    """Adverts of so many photos of one class each, with a true claim and wrong ones.

    Args:
        probs: float32 N×C.
        y_true: int64 (N,).
        makes: int64 (C,), the make of each class.
        photos: of each advert, all different.
        seed: of the draws.

    Returns:
        None where no class has so many photos.
    """
    random = np.random.default_rng(seed)
    pools = {int(c): np.flatnonzero(y_true == c) for c in np.unique(y_true) if (y_true == c).sum() >= photos}
    if not pools or probs.shape[1] < 2:
        return None
    sizes = np.array([len(pool) for pool in pools.values()], np.float64)
    true, other, same, taken_for = [], [], [], []
    nearest = most_alike(probs, y_true)
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


# JOINED `with_reference`: what a model says of the golden photo, kept with it, so that it can be held to it later.


def with_reference(manifest: Manifest, backbone: bytes, weight: Floats, bias: Floats) -> Manifest:
    """The manifest with what ONNX Runtime says of the golden photo.

    Args:
        manifest: complete but for this.
        backbone: the ONNX file.
        weight: of the head, D×C.
        bias: of the head, C.

    Raises:
        BundleError: what was made does not work: loaded again it would be refused.
    """
    draft = replace(manifest, files={BACKBONE: File(sha256(backbone), len(backbone))})
    bundle = Bundle(draft, backbone, weight, bias)
    prove(bundle)
    model = Model(bundle, Settings("onnxruntime"))
    [prediction] = model.predict(reference_photo())
    if prediction.error is not None:
        raise BundleError(f"'{manifest.name}' does not work: the golden photo is {prediction.error}.")
    return replace(manifest, golden=ReferenceAnswer(prediction.top, model.bundle.int8))


# JOINED `with_verdicts`: a bundle's manifest with all that its verdicts need, from photos that trained nothing.


def with_verdicts(
    manifest: Manifest,
    probabilities: Floats,
    y_true: NDArray[np.int64],
    distances: tuple[Floats, Floats] | None,
    far: float | None = None,
    no_car: float | None = None,
    odds: Floats | None = None,
) -> Manifest:
    """Choose makes and thresholds.

    Args:
        manifest: of the bundle to be.
        probabilities: float32 N×C, calibrated; N may be 0.
        y_true: int64 (N,).
        distances: `MahalanobisDetector.distances` of these photos; None where the bundle has no `MahalanobisDetector`.
        far: the backbone's own threshold of "not a car", where it has one.
        no_car: the same of its gate.
        odds: `MahalanobisDetector.non_car_log_odds` of these photos, where there is a gate.
    """
    makes = makes_of(manifest.nameplates)
    claims, make_claims = choose_claims(probabilities, y_true, makes)
    thresholds = choose(probabilities, y_true, makes, distances, far, no_car, odds)
    return replace(manifest, makes=makes, thresholds=thresholds, claims=claims, make_claims=make_claims)
