"""How well what a model does not know is told from what it knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.evaluation.metrics import wilson
from nameplate.evaluation.significance import RESAMPLES, SEED
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
    """Share of strangers that pass at the threshold that keeps `KEPT` of the known photos."""


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
    passed = int((strangers <= np.quantile(known, KEPT)).sum())
    return Separation(len(strangers), _auroc_interval(known, strangers), wilson(passed, len(strangers)))


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
    random = np.random.default_rng(SEED)
    draws = [
        auroc(random.choice(known, len(known)), random.choice(strangers, len(strangers))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Metric(auroc(known, strangers), float(low), float(high))
