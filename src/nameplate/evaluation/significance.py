"""Whether one way of doing is better than another, judged on the same photos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nameplate.types import Metric

LEVEL = 0.05
"""A difference whose p is below it is called one."""
POWER_Z = 0.841621
"""The 80 % point of the normal distribution: the chance with which a difference of this size would be told."""
RESAMPLES, SEED = 400, 0
"""Bootstrap resamples for figures that are no plain means, and the seed that draws them."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The second way held against the first."""

    difference: Metric
    """Mean of second − first, with its 95 % interval."""
    better: int
    """Photos on which the second way did better, over the mean of the runs."""
    worse: int
    """Photos on which it did worse."""
    p: float
    """Of there being no difference, two-sided."""
    photos_to_tell: int | None
    """Photos to judge on with which a difference of this size would be told four times in five; None where the
    two ways do not differ at all, or where more photos would not help because the runs differ more."""

    @property
    def told(self) -> bool:
        """Whether the difference is more than noise."""
        return self.p < LEVEL


def paired(first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None) -> Paired:
    """Compare two ways on the same photos.

    One run each, every photo right or wrong and none a copy of another: McNemar's exact test (Q. McNemar, 1947).
    Else a t interval whose variance has two parts, photos (copies of one picture count as one: K.-Y. Liang and
    S. Zeger, 1986) and runs, with F. Satterthwaite's degrees of freedom (1946).

    Args:
        first: (N,) or runs × N: right or wrong, or any score whose mean is judged.
        second: the same photos, and runs with the same seeds.
        groups: (N,), photos of one group count as one; None: each is its own.

    Raises:
        ValueError: the shapes differ, or there are no photos.
    """
    one, two = (np.atleast_2d(np.asarray(each, np.float64)) for each in (first, second))
    if one.shape != two.shape or one.shape[1] == 0:
        raise ValueError(f"cannot pair scores of shapes {one.shape} and {two.shape}")
    runs, photos = one.shape
    gains = (two - one).mean(0)
    members = np.arange(photos) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    clusters = int(members.max()) + 1
    value = float(gains.mean())
    sums = np.bincount(members, gains - value)
    of_photos = float(clusters / max(1, clusters - 1) * (sums**2).sum() / photos**2)
    of_runs = float((two - one).mean(1).var(ddof=1) / runs) if runs > 1 else 0.0
    low, high, p = _t_interval(value, (of_photos, clusters - 1), (of_runs, runs - 1))
    if low == high and one.min() >= 0 <= two.min() and max(one.max(), two.max()) <= 1:
        low, high = _with_two_more(value, clusters)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    if runs == 1 and clusters == photos and set(np.unique(gains)) <= {-1.0, 0.0, 1.0}:
        p = mcnemar(better, worse)
    return Paired(Metric(value, low, high), better, worse, p, _photos_to_tell(value, of_photos * photos, of_runs))


def resamples(photos: int, groups: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.int64]]:
    """Rows of `RESAMPLES` bootstrap resamples, int64 (≈ N,) each; groups are drawn whole.

    B. Efron, 1979; of groups: A. Davison and D. Hinkley, "Bootstrap Methods and their Application", 1997, 3.8.
    """
    random = np.random.default_rng(SEED)
    members = np.arange(photos) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members)
    ends = np.cumsum(sizes)
    rows = np.argsort(members, kind="stable")
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(sizes), len(sizes))
        steps = np.arange(sizes[drawn].sum()) - np.repeat(np.cumsum(sizes[drawn]) - sizes[drawn], sizes[drawn])
        yield rows[np.repeat(ends[drawn] - sizes[drawn], sizes[drawn]) + steps]


def mcnemar(better: int, worse: int) -> float:
    """The two-sided exact p of McNemar's test.

    >>> round(mcnemar(8, 2), 4)
    0.1094
    """
    from scipy.stats import binomtest

    return 1.0 if better + worse == 0 else float(binomtest(better, better + worse).pvalue)


def holm(values: Sequence[float]) -> NDArray[np.float64]:
    """The p values of several comparisons made at once, each raised so that none is told by luck (S. Holm, 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(values)
    raised = np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1)
    result = np.empty(len(values))
    result[order] = np.minimum(1, np.maximum.accumulate(raised)) if len(values) else []
    return result


def _t_interval(value: float, *parts: tuple[float, int]) -> tuple[float, float, float]:
    """Low, high and p of a mean whose variance is the sum of parts, each with its degrees of freedom."""
    from scipy.stats import t

    variance = sum(part for part, _ in parts)
    if variance == 0:
        return value, value, 1.0 if value == 0 else 0.0
    freedom = variance**2 / sum(part**2 / max(1, degrees) for part, degrees in parts)
    error = math.sqrt(variance)
    half = float(t.ppf(0.975, freedom)) * error
    return value - half, value + half, float(2 * t.sf(abs(value) / error, freedom))


def _with_two_more(value: float, photos: int) -> tuple[float, float]:
    """The interval where all photos fare alike, which is no reason to think that all others do: with two photos more,
    one for and one against (A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched
    proportions", 2005).
    """
    from scipy.stats import t

    mean = value * photos / (photos + 2)
    squares = photos * (value - mean) ** 2 + (1 - mean) ** 2 + (1 + mean) ** 2
    half = float(t.ppf(0.975, photos + 1)) * math.sqrt(squares / ((photos + 1) * (photos + 2)))
    return max(-1.0, min(value, mean - half)), min(1.0, max(value, mean + half))


def _photos_to_tell(value: float, of_one_photo: float, of_runs: float) -> int | None:
    wanted = (value / (1.959964 + POWER_Z)) ** 2  # the variance at which the difference would be told
    if value == 0 or wanted <= of_runs:
        return None
    return math.ceil(of_one_photo / (wanted - of_runs))
