"""Verdicts judged: what becomes of photos that the model knows, and of photos of what it does not."""

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

# JOINED How well what a model does not know is told from what it knows.


KEPT = 0.95
"""Share of known photos that are kept where a share of false accepts is told."""


@dataclass(frozen=True, slots=True)
class Separation:
    """How well one set of strangers is told from known photos by a score."""

    strangers: int
    """Photos of them."""
    auroc: Metric
    """The chance that a stranger's score is higher than a known photo's."""
    false_accepts: Metric
    """Share of strangers that pass at the threshold that keeps `KEPT` of the known photos; its interval knows that
    these few known photos only estimate the threshold."""


def separation(known: NDArray[np.floating], strangers: NDArray[np.floating]) -> Separation:
    """Judge a score that is high for what is strange.

    Args:
        known: (N,), of photos that belong and that chose nothing.
        strangers: (M,), of photos that do not.

    Raises:
        ValueError: one of them is empty.
    """
    if not len(known) or not len(strangers):
        raise ValueError(f"cannot separate {len(known)} known photos from {len(strangers)} strangers")
    return Separation(len(strangers), _auroc_interval(known, strangers), _false_accepts(known, strangers))


def auroc(known: NDArray[np.floating], strangers: NDArray[np.floating]) -> float:
    """Area under the ROC curve: the share of pairs in which the stranger's score is higher, ties half.

    >>> auroc(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.9]))
    0.75
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([known, strangers]))[len(known) :]
    count = len(strangers)
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(known)))


def _auroc_interval(known: NDArray[np.floating], strangers: NDArray[np.floating]) -> Metric:
    """With as many photos as its variance is worth (E. DeLong, D. DeLong and D. Clarke-Pearson, Biometrics 44, 1988),
    and at least as many as there are of the fewer: the variance is at most theirs (Z. Birnbaum and O. Klose, 1957).
    """
    from scipy.stats import rankdata

    count, fewer = len(known), min(len(known), len(strangers))
    value, ranks = auroc(known, strangers), rankdata(np.concatenate([known, strangers]))
    below = (ranks[count:] - rankdata(strangers)) / count  # share of known photos that each stranger lies above
    above = 1 - (ranks[:count] - rankdata(known)) / len(strangers)
    variance = sum(
        float(part.var(ddof=1)) / len(part) if len(part) > 1 else value * (1 - value) for part in (below, above)
    )
    return effective_wilson(value, variance, fewer, fewer)


def _false_accepts(known: NDArray[np.floating], strangers: NDArray[np.floating]) -> Metric:
    """How many of N known photos the true threshold keeps is binomial, whatever the scores are: so it lies beyond the
    j-th of them with a known chance, and strangers pass with the share between those that lie below the j-th and
    below the one after it. Given the threshold the share has H. Jeffreys' beta distribution; the interval is that of
    the mixture over all j.
    """
    from scipy.special import betainc
    from scipy.stats import binom

    photos, count = len(known), len(strangers)
    places = np.arange(photos + 1)
    probs = binom.pmf(places, photos, KEPT)
    below = np.searchsorted(np.sort(strangers), np.sort(known), side="right")
    passed = (np.r_[0, below] + np.r_[below, count]) / 2
    likely = probs > 1e-9

    def end(level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            under = probs[likely] @ betainc(passed[likely] + 0.5, count - passed[likely] + 0.5, middle)
            low, high = (middle, high) if under < level else (low, middle)
        return low

    value = float((strangers <= np.quantile(known, KEPT)).mean())
    return Metric(value, min(value, end(0.025)), max(value, end(0.975)))


@dataclass(frozen=True, slots=True)
class Sorted:
    """What verdicts known photos get, and how far these are right."""

    verdicts: dict[Verdict, int]
    """Photos of each."""
    right: Metric | None
    """Share of the answers that are right; None where there are none."""
    held: Metric
    """Share of all known photos whose set of nameplates holds the truth; that of one not kept is empty for this."""
    kept_held: Metric | None
    """The same share of those that were kept (answer or unsure)."""
    size: float
    """Mean size of the sets of those that were kept."""
    makes: Metric | None
    """Share of right makes, where the nameplate was unsure and the make was not."""


@dataclass(frozen=True, slots=True)
class OODResult:
    """What becomes of photos of one source that the model does not know."""

    source: str
    verdicts: dict[Verdict, int]
    near: Separation
    """By the score that tells unknown cars."""
    far: Separation
    """By the score that tells what is no car."""

    def as_json(self) -> dict[str, object]:
        """As `--json` shows it."""
        return asdict(self)


def sort_known(model: Model, judged: EvaluationResult) -> Sorted:
    """Verdicts of the photos that a model was judged on."""
    found = _predictions(model, judged.embeddings, judged.probabilities, judged.qualities)
    y_true = [judged.nameplates[place] for place in judged.y_true]
    kept = [(p, truth) for p, truth in zip(found, y_true, strict=True) if p.verdict in ("answer", "unsure")]
    holds = [truth in p.candidates for p, truth in kept]
    answers = [p.nameplate == truth for p, truth in kept if p.verdict == "answer"]
    make_of = dict(zip(model.nameplates, model.makes, strict=True))
    makes = [p.make == make_of[truth] for p, truth in kept if p.verdict == "unsure" and p.make is not None]
    return Sorted(
        _count(found),
        _share(answers),
        wilson(sum(holds), len(found)),
        _share(holds),
        float(np.mean([len(p.candidates) for p, _ in kept])) if kept else 0.0,
        _share(makes),
    )


def sort_ood(
    model: Model,
    judged: EvaluationResult,
    source: Path,
    progress: Progress = lambda *_: None,
    tell: Tell = lambda _: None,
) -> OODResult:
    """Verdicts of photos that a model does not know, and how well its scores tell them from those it was judged on.

    Args:
        model: with what verdicts need.
        judged: the known photos.
        source: a folder, a table or a zip of photos; labels are not looked at.
        progress: see `Progress`.
        tell: called with each entry of the source that is left out.

    Raises:
        BundleError: the bundle does not say where its cars lie.
        DataError: there are no photos, or none can be read.
    """
    known = model.bundle.ood_detector
    if known is None:
        raise BundleError(
            f"'{model.bundle.manifest.name}' cannot tell strangers: it was made before Nameplate had verdicts. "
            "Train it again."
        )
    photos = list_photos(source, tell)
    embedded = embed_photos(photos, model, lambda step, a, b: progress(f"{step} {source.name}", a, b))
    probs = model.probabilities(embedded.embeddings, embedded.runtime)
    found = _predictions(model, embedded.embeddings, probs, embedded.qualities)
    near, far = zip(
        _scores(model, judged.embeddings, judged.probabilities),
        _scores(model, embedded.embeddings, probs),
        strict=True,
    )
    verdicts = _count(found) | ({"unreadable": len(embedded.unreadable)} if embedded.unreadable else {})
    return OODResult(str(source), verdicts, separation(*near), separation(*far))


def _scores(model: Model, embeddings: Floats, probs: Floats) -> tuple[Floats, Floats]:
    assert model.bundle.ood_detector is not None
    near, cars = model.bundle.ood_detector.distances(embeddings)
    margin = model.car_margin(embeddings)
    return ood_score(near, probs, model.bundle.manifest.thresholds), cars if margin is None else margin


def _predictions(model: Model, embeddings: Floats, probs: Floats, qualities: Sequence[Quality]) -> list[Prediction]:
    """The verdict of each photo; without qualities none is called poor."""
    measured: Sequence[Quality | None] = qualities or [None] * len(probs)
    each = zip(probs, embeddings, measured, strict=True)
    return [with_flaws(model.decide("", row, embedding), flaws(quality)) for row, embedding, quality in each]


def _count(found: list[Prediction]) -> dict[Verdict, int]:
    counts = Counter(prediction.verdict for prediction in found)
    return {verdict: counts[verdict] for verdict in get_args(Verdict) if counts[verdict]}


def _share(right: list[bool]) -> Metric | None:
    return wilson(sum(right), len(right)) if right else None
