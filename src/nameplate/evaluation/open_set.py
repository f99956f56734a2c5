"""How well what a model does not know is told from what it knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import effective_wilson
from nameplate.types import Metric

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
    chances = binom.pmf(places, photos, KEPT)
    below = np.searchsorted(np.sort(strangers), np.sort(known), side="right")
    passed = (np.r_[0, below] + np.r_[below, count]) / 2
    likely = chances > 1e-9

    def end(level: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            under = chances[likely] @ betainc(passed[likely] + 0.5, count - passed[likely] + 0.5, middle)
            low, high = (middle, high) if under < level else (low, middle)
        return low

    value = float((strangers <= np.quantile(known, KEPT)).mean())
    return Metric(value, min(value, end(0.025)), max(value, end(0.975)))
