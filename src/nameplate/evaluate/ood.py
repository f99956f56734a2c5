"""Evaluate verdicts: of photos that the model knows, and of out-of-distribution (OOD) photos that it does not know.

`separation` measures how well a score separates the two. `known_verdicts` and `evaluate_ood` count the verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from nameplate.data import list_photos
from nameplate.data.listing import Tell
from nameplate.errors import BundleError
from nameplate.evaluate.evaluator import EvaluationResult
from nameplate.evaluate.metrics import effective_wilson, wilson
from nameplate.images.quality import Quality, flaws
from nameplate.model.embeddings import Progress, embed_photos
from nameplate.model.model import Model
from nameplate.model.verdict import ood_score, with_flaws
from nameplate.types import Floats, Metric, Prediction, Verdict

KEPT = 0.95
"""The share of known photos that pass the threshold at which false accepts are measured."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How well a score separates one set of OOD photos from known photos."""

    # The names of the fields are the keys of the report's JSON.
    strangers: int
    """The number of OOD photos."""
    auroc: Metric
    """The probability that an OOD photo has a higher score than a known photo."""
    false_accepts: Metric
    """The share of OOD photos that pass the threshold that `KEPT` of the known photos pass. Its interval takes into
    account that the known photos only estimate this threshold."""


def separation(known: NDArray[np.floating], ood: NDArray[np.floating]) -> Separation:
    """Evaluate a score that is high for OOD photos.

    Args:
        known: (N,), the scores of known photos, which must not have chosen the score's parameters.
        ood: (M,), the scores of OOD photos.

    Raises:
        ValueError: One of them is empty.
    """
    if not len(known) or not len(ood):
        raise ValueError(f"cannot separate {len(known)} known photos from {len(ood)} OOD photos: both are needed")
    return Separation(len(ood), _auroc_interval(known, ood), _false_accepts(known, ood))


def auroc(known: NDArray[np.floating], ood: NDArray[np.floating]) -> float:
    """Area under the ROC curve: the share of pairs in which the OOD photo has the higher score; ties count half.

    >>> auroc(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.9]))
    0.75
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([known, ood]))[len(known) :]
    count = len(ood)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(known)))


def _auroc_interval(known: NDArray[np.floating], ood: NDArray[np.floating]) -> Metric:
    """AUROC with Wilson's interval of its effective sample size.

    The variance is that of the placements (E. DeLong, D. DeLong and D. Clarke-Pearson, Biometrics 44, 1988). It is at
    most that of the smaller sample (Z. Birnbaum and O. Klose, 1957), so the effective sample size is assumed to be
    that sample's size where the scores overlap nowhere.
    """
    from scipy.stats import rankdata

    count, fewer = len(known), min(len(known), len(ood))
    value, ranks = auroc(known, ood), rankdata(np.concatenate([known, ood]))
    below = (ranks[count:] - rankdata(ood)) / count  # the share of known photos with a lower score, per OOD photo
    above = 1 - (ranks[:count] - rankdata(known)) / len(ood)
    variance = sum(
        float(part.var(ddof=1)) / len(part) if len(part) > 1 else value * (1 - value) for part in (below, above)
    )
    return effective_wilson(value, variance, fewer, fewer)


def _false_accepts(known: NDArray[np.floating], ood: NDArray[np.floating]) -> Metric:
    """The share of OOD photos that pass, with an interval that knows the threshold to be an estimate.

    Whatever the distribution of the scores, the number of known photos below the true threshold is binomial. So the
    probability that the threshold lies between the j-th and the next known score is known. The share of OOD photos
    below it is then between the shares below these two scores. Given the threshold, the share has H. Jeffreys' beta
    distribution. The interval is that of the mixture of these distributions over all j.
    """
    from scipy.special import betainc
    from scipy.stats import binom

    photos, count = len(known), len(ood)
    places = np.arange(photos + 1)
    # The probability of each number of known photos below the true threshold, which is their `KEPT` quantile.
    probs = binom.pmf(places, photos, KEPT)
    below = np.searchsorted(np.sort(ood), np.sort(known), side="right")
    # Between two known scores the threshold can be anywhere, so the mean of both ends is taken. Below the first score 0
    # OOD photos pass, above the last one all may.
    passed = (np.r_[0, below] + np.r_[below, count]) / 2
    likely = probs > 1e-9  # the other places change nothing, and each costs an incomplete beta function

    def end(level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):  # bisection: the mixture has no closed quantile
            middle = (low + high) / 2
            under = probs[likely] @ betainc(passed[likely] + 0.5, count - passed[likely] + 0.5, middle)
            low, high = (middle, high) if under < level else (low, middle)
        return low

    value = float((ood <= np.quantile(known, KEPT)).mean())
    return Metric(value, min(value, end(0.025)), max(value, end(0.975)))


@dataclass(frozen=True, slots=True)
class KnownVerdicts:
    """The verdicts of known photos, and how often these are right."""

    # The names of the fields are the keys of the report's JSON.

    verdicts: dict[Verdict, int]
    """The number of photos with each verdict."""
    right: Metric | None
    """The share of right nameplates among photos with the verdict `answer`; None where there are none."""
    held: Metric
    """The share of all known photos whose prediction set holds the truth; without `answer` or `unsure` it is empty."""
    kept_held: Metric | None
    """The same share of the photos with `answer` or `unsure`; None where there are none."""
    size: float
    """The mean size of the prediction sets of the photos with `answer` or `unsure`."""
    makes: Metric | None
    """The share of right makes among photos with `unsure` for which one make is left; None where there are none."""


@dataclass(frozen=True, slots=True)
class OODResult:
    """The verdicts of the OOD photos of one source, and how well the scores separate them from known photos."""

    # The names of the fields are the keys of the report's JSON.
    source: str
    """The folder or table, as it was given."""
    verdicts: dict[Verdict, int]
    """The number of photos with each verdict."""
    near: Separation
    """By the score that decides `unknown car`."""
    far: Separation
    """By the score that decides `not a car`."""

    def as_json(self) -> dict[str, object]:
        """The figures as `--json` prints them."""
        return asdict(self)


def known_verdicts(model: Model, result: EvaluationResult) -> KnownVerdicts:
    """Count the verdicts of the photos that a model was evaluated on."""
    found = _predictions(model, result.embeddings, result.probabilities, result.qualities)
    y_true = [result.nameplates[place] for place in result.y_true]
    kept = [(p, truth) for p, truth in zip(found, y_true, strict=True) if p.verdict in ("answer", "unsure")]
    holds = [truth in p.candidates for p, truth in kept]
    answers = [p.nameplate == truth for p, truth in kept if p.verdict == "answer"]
    make_of = dict(zip(model.nameplates, model.makes, strict=True))
    makes = [p.make == make_of[truth] for p, truth in kept if p.verdict == "unsure" and p.make is not None]
    return KnownVerdicts(
        _count(found),
        _share(answers),
        wilson(sum(holds), len(found)),
        _share(holds),
        float(np.mean([len(p.candidates) for p, _ in kept])) if kept else 0.0,
        _share(makes),
    )


def evaluate_ood(
    model: Model,
    result: EvaluationResult,
    source: Path,
    progress: Progress = lambda *_: None,
    tell: Tell = lambda _: None,
) -> OODResult:
    """Count the verdicts of OOD photos, and measure how well the scores separate them from known photos.

    Args:
        model: A model whose bundle has what verdicts need.
        result: The evaluation on known photos.
        source: A folder, a table or a zip of photos; labels are ignored.
        progress: See `Progress`.
        tell: Called with each entry of the source that is left out.

    Raises:
        BundleError: The bundle was made before there were verdicts.
        DataError: There are no photos, or none can be read.
    """
    known = model.bundle.ood_detector
    if known is None:
        raise BundleError(
            f"The bundle '{model.bundle.manifest.name}' cannot tell photos that it does not know: it was made before "
            "Nameplate had verdicts. Train it again."
        )
    photos = list_photos(source, tell)
    embedded = embed_photos(photos, model, lambda step, a, b: progress(f"{step} {source.name}", a, b))
    probs = model.probabilities(embedded.embeddings, embedded.runtime)
    found = _predictions(model, embedded.embeddings, probs, embedded.qualities)
    near, far = zip(
        _scores(model, result.embeddings, result.probabilities),
        _scores(model, embedded.embeddings, probs),
        strict=True,
    )
    verdicts = _count(found) | ({"unreadable": len(embedded.unreadable)} if embedded.unreadable else {})
    return OODResult(str(source), verdicts, separation(*near), separation(*far))


def _scores(model: Model, embeddings: Floats, probs: Floats) -> tuple[Floats, Floats]:
    """The scores of `unknown car` and of `not a car`, float32 (N,) each; both are high for OOD photos."""
    assert model.bundle.ood_detector is not None
    near, cars = model.bundle.ood_detector.distances(embeddings)
    margin = model.car_margin(embeddings)
    return ood_score(near, probs, model.bundle.manifest.thresholds), cars if margin is None else margin


def _predictions(model: Model, embeddings: Floats, probs: Floats, qualities: Sequence[Quality]) -> list[Prediction]:
    """The prediction of each photo. Without qualities none gets the verdict `poor photo`."""
    figures: Sequence[Quality | None] = qualities or [None] * len(probs)
    each = zip(probs, embeddings, figures, strict=True)
    return [with_flaws(model.decide("", row, embedding), flaws(quality)) for row, embedding, quality in each]


def _count(found: list[Prediction]) -> dict[Verdict, int]:
    counts = Counter(prediction.verdict for prediction in found)
    return {verdict: counts[verdict] for verdict in get_args(Verdict) if counts[verdict]}


def _share(right: list[bool]) -> Metric | None:
    return wilson(sum(right), len(right)) if right else None
