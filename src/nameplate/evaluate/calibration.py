"""Calibration: whether confidences mean what they say, and the temperature that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluate.metrics import centred, effective_wilson, group_sums, mean_copies, wilson
from nameplate.evaluate.significance import RESAMPLES, SEED, resamples
from nameplate.model.classifier import fit_temperature
from nameplate.types import Doubles, Floats, Metric

BINS, BIN_PHOTOS = 15, 20
"""Bins of the reliability diagram at most, and photos that each should hold: of few photos there are fewer bins."""
MIN_CALIBRATION, MIN_MISTAKES = 50, 5
"""Photos, and wrongly named ones among them, below which no temperature is fitted: where all is right the best
temperature is 0."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Photos of like confidence."""

    photos: int
    confidence: float
    """Their mean confidence."""
    right: Metric
    """The share of them named rightly, with Wilson's interval."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidences are from the shares named rightly."""

    ece: Metric
    by_chance: Metric
    """What a model whose confidences are true shows on as many photos: the mean, and the bounds of 95 %."""
    bins: tuple[Bin, ...]
    """Least confidence first."""


def calibrate(confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None) -> Calibration:
    """Expected calibration error and reliability bins of the answers' confidences.

    ECE is the mean gap between confidence and share named rightly, over bins (C. Guo et al., "On Calibration of
    Modern Neural Networks", 2017). The bins hold like numbers of photos (as J. Nixon et al., "Measuring Calibration
    in Deep Learning", 2019, advise): of equally wide ones most would be all but empty, since most confidences are
    near 1. ECE is never negative, so that a model without any error shows some by chance (A. Kumar et al.,
    "Verified Uncertainty Calibration", 2019); `by_chance` says how much, and where the figure is no larger, its
    interval reaches down to 0.

    Args:
        confidence: float32 (N,).
        right: bool (N,).
        groups: int64 (N,), photos of one group are resampled together; None: each is its own.

    Raises:
        ValueError: no photos.
    """
    if len(confidence) == 0:
        raise ValueError("no photos to judge the confidences of")
    sure, truth = confidence.astype(np.float64), right.astype(np.float64)
    places = _bins(sure)
    value = _gap(places, sure, truth)
    random = np.random.default_rng(SEED)
    luck = [_gap(places, sure, (random.random(len(sure)) < sure).astype(np.float64)) for _ in range(RESAMPLES)]
    by_chance = Metric(float(np.mean(luck)), *map(float, np.quantile(luck, [0.025, 0.975])))
    draws = [_gap(places[rows], sure[rows], truth[rows]) for rows in resamples(len(sure), groups)]
    spread = centred(value, draws)
    ece = spread if value > by_chance.high else Metric(value, 0.0, spread.high)
    bins = (places == number for number in range(int(places.max()) + 1))
    return Calibration(ece, by_chance, tuple(_bin(sure[here], truth[here]) for here in bins if here.any()))


def _bins(confidence: Doubles) -> NDArray[np.int64]:
    """The bin of each photo; equal confidences share one."""
    count = max(1, min(BINS, len(confidence) // BIN_PHOTOS))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.searchsorted(edges, confidence, side="left")


def _bin(confidence: Doubles, truth: Doubles) -> Bin:
    return Bin(len(truth), float(confidence.mean()), wilson(int(truth.sum()), len(truth)))


def _gap(places: NDArray[np.int64], confidence: Doubles, truth: Doubles) -> float:
    return float(np.abs(np.bincount(places, truth - confidence)).sum() / len(truth))


def fit_temperatures(computed: Mapping[str, tuple[Floats, NDArray[np.int64]]]) -> dict[str, float]:
    """The temperature of each runtime that computed logits of enough photos (`MIN_CALIBRATION`, `MIN_MISTAKES`).

    Args:
        computed: runtime → logits N×C and true classes (N,) of photos that trained nothing.
    """

    def enough(logits: Floats, classes: NDArray[np.int64]) -> bool:
        return len(classes) >= MIN_CALIBRATION and int((logits.argmax(1) != classes).sum()) >= MIN_MISTAKES

    return {name: fit_temperature(*found) for name, found in computed.items() if enough(*found)}


# JOINED Selective answers: how many photos can be answered at which risk, where the least sure are left unanswered.


COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of photos answered that the table shows."""
RISKS = (0.01, 0.05)
"""Shares of wrong answers that somebody may be ready to bear."""


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
    confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
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


def _area(confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> Metric:
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


def curve(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """Coverage and risk of the one, two, … N surest answers, float64 (N,) each.

    Of photos of one confidence each counts as the mean of them, since their order is chance.
    """
    _, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, ~right) / counts
    answered = np.arange(1, len(confidence) + 1)
    return answered / len(confidence), np.cumsum(np.repeat(wrong, counts)) / answered
