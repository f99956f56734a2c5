"""Calibration, temperatures, and selective classification.

`calibrate` measures how far confidences are from accuracies. `fit_temperatures` fits the temperatures that reduce this
gap. `risk_coverage` tells how many photos can be answered at which risk, if the least confident ones are not answered.
"""

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
"""The largest number of bins in the reliability diagram, and the photos per bin below which fewer bins are used."""
MIN_CALIBRATION, MIN_MISTAKES = 50, 5
"""The numbers of photos, and of wrong answers among them, below which no temperature is fitted. The second is needed
because the best temperature is 0 where every answer is right."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of the reliability diagram: photos of similar confidence."""

    photos: int
    confidence: float
    """Their mean confidence."""
    right: Metric
    """Their accuracy, with Wilson's interval."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected calibration error, and the bins of the reliability diagram."""

    ece: Metric
    by_chance: Metric
    """The ECE that a perfectly calibrated model shows on as many photos: its mean, and the 2.5 % and 97.5 % points."""
    bins: tuple[Bin, ...]
    """In ascending order of confidence."""


def calibrate(confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None) -> Calibration:
    """Expected calibration error and reliability bins of the answers' confidences.

    ECE is the mean gap between confidence and accuracy over bins (C. Guo et al., "On Calibration of Modern Neural
    Networks", 2017). The bins hold similar numbers of photos, as J. Nixon et al. advise ("Measuring Calibration in
    Deep Learning", 2019): most confidences are near 1, so most bins of equal width would be almost empty. ECE is
    never negative, so even a perfectly calibrated model shows some by chance (A. Kumar et al., "Verified Uncertainty
    Calibration", 2019). `by_chance` says how much. Where the measured ECE is not larger than that, its interval
    reaches down to 0.

    Args:
        confidence: float32 (N,).
        right: bool (N,).
        groups: int64 (N,); photos of one group are resampled together. None: each photo is its own group.

    Raises:
        ValueError: There are no photos.
    """
    if len(confidence) == 0:
        raise ValueError("no photos to judge the confidences of")
    sure, truth = confidence.astype(np.float64), right.astype(np.float64)
    places = _bins(sure)
    value = _gap(places, sure, truth)
    random = np.random.default_rng(SEED)
    # Labels drawn from the confidences themselves are those of a perfectly calibrated model.
    luck = [_gap(places, sure, (random.random(len(sure)) < sure).astype(np.float64)) for _ in range(RESAMPLES)]
    by_chance = Metric(float(np.mean(luck)), *map(float, np.quantile(luck, [0.025, 0.975])))
    # The bins stay as they are in every resample, so that only the photos vary.
    draws = [_gap(places[rows], sure[rows], truth[rows]) for rows in resamples(len(sure), groups)]
    spread = centred(value, draws)
    # Within what chance explains, calibration cannot be excluded, so the interval must contain 0.
    ece = spread if value > by_chance.high else Metric(value, 0.0, spread.high)
    bins = (places == number for number in range(int(places.max()) + 1))
    return Calibration(ece, by_chance, tuple(_bin(sure[here], truth[here]) for here in bins if here.any()))


def _bins(confidence: Doubles) -> NDArray[np.int64]:
    """The bin number of each photo, int64 (N,); photos of equal confidence share a bin."""
    count = max(1, min(BINS, len(confidence) // BIN_PHOTOS))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.searchsorted(edges, confidence, side="left")


def _bin(confidence: Doubles, truth: Doubles) -> Bin:
    return Bin(len(truth), float(confidence.mean()), wilson(int(truth.sum()), len(truth)))


def _gap(places: NDArray[np.int64], confidence: Doubles, truth: Doubles) -> float:
    return float(np.abs(np.bincount(places, truth - confidence)).sum() / len(truth))


def fit_temperatures(computed: Mapping[str, tuple[Floats, NDArray[np.int64]]]) -> dict[str, float]:
    """Fit a temperature for each runtime with enough photos (`MIN_CALIBRATION`) and mistakes (`MIN_MISTAKES`).

    Args:
        computed: Maps the runtime's name to logits, float32 N×C, and true classes, int64 (N,), of held-out photos.
    """

    def enough(logits: Floats, classes: NDArray[np.int64]) -> bool:
        return len(classes) >= MIN_CALIBRATION and int((logits.argmax(1) != classes).sum()) >= MIN_MISTAKES

    return {name: fit_temperature(*found) for name, found in computed.items() if enough(*found)}


# Selective classification: the least confident photos are left unanswered.

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Shares of answered photos in the table of the report."""
RISKS = (0.01, 0.05)
"""Shares of wrong answers for which the report gives the largest possible coverage."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The most confident answers, down to a threshold."""

    coverage: float
    """Their share of all photos."""
    photos: int
    threshold: float
    """The lowest confidence among them."""
    risk: Metric
    """The share of them that are wrong, with Wilson's interval."""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The risk-coverage curve in figures."""

    aurc: Metric
    """The area under the curve, which is the mean risk over all coverages; 0 is best."""
    points: tuple[OperatingPoint, ...]
    """The points at `COVERAGES`."""
    within: tuple[OperatingPoint | None, ...]
    """The point of the largest coverage at each of `RISKS`; None where even the most confident answers exceed it."""


def risk_coverage(
    confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> RiskCoverage:
    """Measure risk and coverage (Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", 2017).

    Args:
        confidence: float32 (N,).
        right: bool (N,).
        groups: int64 (N,); photos of one group are copies. None: each photo is its own group.

    Raises:
        ValueError: There are no photos.
    """
    if len(confidence) == 0:
        raise ValueError("no photos to answer")
    photos = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.append(np.diff(sure) != 0, True)) + 1  # a threshold cannot separate equal confidences
    risks = wrong[ends - 1] / ends

    def answered(count: int) -> OperatingPoint:
        return OperatingPoint(count / photos, count, float(sure[count - 1]), wilson(int(wrong[count - 1]), count))

    # 1e-9 absorbs rounding: 0.7 * 10 is a little more than 7.
    points = [ends[np.searchsorted(ends, share * photos - 1e-9)] for share in COVERAGES]
    most = [ends[risks <= risk].max(initial=0) for risk in RISKS]
    return RiskCoverage(
        _area(confidence, right, groups),
        tuple(answered(int(count)) for count in points),
        tuple(answered(int(count)) if count else None for count in most),
    )


def _area(confidence: Floats, right: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> Metric:
    """The mean risk, with an interval from each photo's influence on it (the influence function of the area).

    Where no answer was wrong, the first wrong one could have any rank. So the area is then assumed to carry as much
    information as half of the photos.
    """
    photos = len(confidence)
    _, risks = curve(confidence, right)
    # A photo of rank r is part of the risks of coverage r, r + 1, … N, so it acts on them with the sum of 1/r … 1/N.
    places = np.argsort(np.argsort(-confidence, kind="stable"), kind="stable")
    tails = np.cumsum((1 / np.arange(1, photos + 1))[::-1])[::-1]
    rests = np.cumsum((risks / np.arange(1, photos + 1))[::-1])[::-1]
    value = float(risks.mean())
    # A wrong photo adds its tail to the mean risk; `risks - value - rests` is the part that does not depend on being
    # right.
    adds = (risks - value - rests)[places] + ~right * tails[places]
    sums = adds if groups is None else group_sums(adds, groups)
    return effective_wilson(value, float((sums**2).sum()) / photos**2, photos, photos / 2 / mean_copies(groups))


def curve(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Doubles, Doubles]:
    """Coverage and risk of the 1, 2, … N most confident answers, float64 (N,) each.

    Each of several photos of equal confidence counts with their mean error, because their order is arbitrary.
    """
    _, places, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    wrong = np.bincount(places, ~right) / counts
    answered = np.arange(1, len(confidence) + 1)
    return answered / len(confidence), np.cumsum(np.repeat(wrong, counts)) / answered
