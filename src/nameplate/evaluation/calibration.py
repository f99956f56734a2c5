"""Calibration: whether confidences mean what they say, and the temperature that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import centred, wilson
from nameplate.evaluation.significance import RESAMPLES, SEED, resamples
from nameplate.models.head import Floats, fit_temperature
from nameplate.types import Metric

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


def calibrate(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> Calibration:
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


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each photo; equal confidences share one."""
    count = max(1, min(BINS, len(confidence) // BIN_PHOTOS))
    edges = np.quantile(confidence, np.arange(1, count) / count)
    return np.searchsorted(edges, confidence, side="left")


def _bin(confidence: NDArray[np.float64], truth: NDArray[np.float64]) -> Bin:
    return Bin(len(truth), float(confidence.mean()), wilson(int(truth.sum()), len(truth)))


def _gap(places: NDArray[np.int64], confidence: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.abs(np.bincount(places, truth - confidence)).sum() / len(truth))


def fit_temperatures(computed: Mapping[str, tuple[Floats, NDArray[np.int64]]]) -> dict[str, float]:
    """The temperature of each runtime that computed logits of enough photos (`MIN_CALIBRATION`, `MIN_MISTAKES`).

    Args:
        computed: runtime → logits N×C and true classes (N,) of photos that trained nothing.
    """

    def enough(logits: Floats, classes: NDArray[np.int64]) -> bool:
        return len(classes) >= MIN_CALIBRATION and int((logits.argmax(1) != classes).sum()) >= MIN_MISTAKES

    return {name: fit_temperature(*found) for name, found in computed.items() if enough(*found)}
