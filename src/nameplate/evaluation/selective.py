"""Selective answers: how many photos can be answered at which risk, where the least sure are left unanswered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import effective_wilson, group_sums, mean_copies, wilson
from nameplate.types import Metric

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of photos answered that the table shows."""
RISKS = (0.01, 0.05)
"""Shares of wrong answers that somebody may be ready to bear."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answered:
    """The surest answers."""

    coverage: float
    """Their share of all photos."""
    photos: int
    threshold: float
    """Their least confidence."""
    risk: Metric
    """The share of them that are wrong, with Wilson's interval."""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk against coverage."""

    aurc: Metric
    """Area under the curve: the mean risk over all coverages; 0 is best."""
    points: tuple[Answered, ...]
    """At `COVERAGES`."""
    within: tuple[Answered | None, ...]
    """As many photos as can be answered at each of `RISKS`; None where not even the surest can."""


def risk_coverage(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> RiskCoverage:
    """Risk and coverage (Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", 2017).

    Args:
        confidence: float32 (N,).
        right: bool (N,).
        groups: int64 (N,), photos of one group are copies; None: each is its own.

    Raises:
        ValueError: no photos.
    """
    if len(confidence) == 0:
        raise ValueError("no photos to answer")
    photos = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(np.diff(sure) != 0, True)) + 1  # a threshold parts no photos of one confidence
    risks = wrong[ends - 1] / ends

    def answered(count: int) -> Answered:
        return Answered(count / photos, count, float(sure[count - 1]), wilson(int(wrong[count - 1]), count))

    points = [ends[np.searchsorted(ends, share * photos - 1e-9)] for share in COVERAGES]
    most = [ends[risks <= risk].max(initial=0) for risk in RISKS]
    return RiskCoverage(
        _area(confidence, right, groups),
        tuple(answered(int(count)) for count in points),
        tuple(answered(int(count)) if count else None for count in most),
    )


def _area(confidence: NDArray[np.float32], right: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> Metric:
    """The mean risk, with an interval from what each photo adds to it (the area's influence function).

    Where no answer was wrong, the first wrong one may stand anywhere: the area is then worth half as many photos.
    """
    photos = len(confidence)
    _, risks = curve(confidence, right)
    places = np.argsort(np.argsort(-confidence, kind="stable"), kind="stable")
    tails = np.cumsum((1 / np.arange(1, photos + 1))[::-1])[::-1]
    rests = np.cumsum((risks / np.arange(1, photos + 1))[::-1])[::-1]
    value = float(risks.mean())
    adds = (risks - value - rests)[places] + ~right * tails[places]
    sums = adds if groups is None else group_sums(adds, groups)
    return effective_wilson(value, float((sums**2).sum()) / photos**2, photos, photos / 2 / mean_copies(groups))


def curve(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and risk of the one, two, … N surest answers, float64 (N,) each.

    Of photos of one confidence each counts as the mean of them, since their order is chance.
    """
    _, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, ~right) / counts
    answered = np.arange(1, len(confidence) + 1)
    return answered / len(confidence), np.cumsum(np.repeat(wrong, counts)) / answered
