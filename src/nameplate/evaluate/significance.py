"""Whether one way of doing is better than another, judged on the same photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nameplate.types import Doubles, Metric

LEVEL = 0.05
"""A difference whose p is below it is called one."""
Z, POWER, POWER_Z = 1.959964, 0.8, 0.841621
"""The 97.5 % point of the normal distribution; the chance with which a difference of the size seen would be told; and
that chance's point."""
RESAMPLES, SEED = 400, 0
"""Bootstrap resamples for figures that are no plain means, and the seed that draws them."""
MANY = 100
"""Degrees of freedom with which a variance is as good as known."""
MOST_PHOTOS = 10**9
"""More are not promised to tell anything."""
TINY = 1e-300
"""A variance of nothing."""
ROUNDING = 1e-9
"""A smaller difference is none: shares of a few thousand photos lie further apart."""
AGAINST = np.array([1.0, -1.0]) / math.sqrt(2)
"""Two photos more, which pull against each other as Agresti's and Min's half photos do."""

Ints = NDArray[np.int64]
Part = tuple[float, float]
"""A variance, and the degrees of freedom that it was estimated with."""


class Spread(NamedTuple):
    """The variance of a mean, in parts."""

    photos: Part
    runs: Part
    """What is the runs' alone, and what photos and runs make together."""
    both: float
    """Of it what photos and runs make together."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The second way held against the first."""

    difference: Metric
    """Mean of second − first, with its 95 % interval; it leaves 0 out exactly where `told`."""
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

    One run each, every photo right or wrong: McNemar's mid-p test (M. Fagerland, S. Lydersen and P. Laake, 2013) and
    T. Tango's score interval (1998). Else a t interval whose variance has two parts, photos and runs, each with its
    degrees of freedom (W. Cochran, 1964). Copies of one picture count as one in both.

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
    gains, photos = two - one, one.shape[1]
    members = np.arange(photos) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(gains) == 1 and np.isin(gains, (-1, 0, 1)).all():
        return _of_rights(gains[0], members)
    return _of_means(gains, members, rights=bool(np.isin([one, two], (0, 1)).all()))


def _of_rights(gains: Doubles, members: Ints) -> Paired:
    """Of photos right or wrong by one run each.

    Copies: the numbers are divided by the design effect, that is by how many photos count as one. What is left is
    N. Obuchowski's test for clustered pairs (1998) and Tango's interval that belongs to it.
    """
    from scipy.stats import norm

    photos, sums = len(gains), np.bincount(members, gains)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    changed = better + worse
    effect = (
        max(1.0, float((sums**2).sum()) / changed) if changed else float((np.bincount(members) ** 2).sum() / photos)
    )
    low, high = tango(better / effect, worse / effect, photos / effect)
    score = float(2 * norm.sf(abs(better - worse) / math.sqrt(changed * effect))) if changed else 1.0
    p = sign_flip(sums.round().astype(np.int64))
    if (p < LEVEL) != (score < LEVEL):
        p = max(p, score)  # the two differ by a hair: then neither tells
    value = float(gains.mean())
    difference, p = _agreeing(Metric(value, low, high), p)
    more = None
    if better != worse:
        some = changed / photos
        more = math.ceil(effect * (Z * math.sqrt(some) + POWER_Z * math.sqrt(some - value**2)) ** 2 / value**2)
    return Paired(difference, better, worse, p, more)


def _of_means(gains: Doubles, members: Ints, *, rights: bool) -> Paired:
    """Of several runs, or of scores that are more than right or wrong.

    If nothing differed, each picture whose score changed could as well have changed the other way: m of them cannot
    give a two-sided p below 2^(1 - m) (R. A. Fisher's sign-flip test, "The Design of Experiments", 1935, section 21).
    Shares of few photos that all fare alike have no spread at all: so two photos more, one for and one against
    (A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions", 2005).
    """
    photos, value = gains.shape[1], float(gains.mean())
    more = _photos_to_tell(value, photos, _parts(gains, members))
    changed = int(np.count_nonzero(np.abs(np.bincount(members, gains.mean(0))) > ROUNDING))
    if rights:
        wide, new = np.hstack([gains, np.tile(AGAINST, (len(gains), 1))]), members.max() + 1
        low, high, p = _t_interval(float(wide.mean()), _parts(wide, np.r_[members, new, new + 1]))
        low, high = max(-1.0, min(low, value)), min(1.0, max(high, value))
    else:
        low, high, p = _t_interval(value, _parts(gains, members))
    difference, p = _agreeing(Metric(value, low, high), max(p, min(1.0, 2.0 ** (1 - changed))))
    means = gains.mean(0)
    return Paired(difference, int((means > 0).sum()), int((means < 0).sum()), p, more)


def _agreeing(difference: Metric, p: float) -> tuple[Metric, float]:
    """An interval that leaves 0 out exactly where p is below `LEVEL`."""
    if p >= LEVEL:
        return Metric(difference.value, min(0.0, difference.low), max(0.0, difference.high)), p
    return difference, LEVEL if difference.low <= 0 <= difference.high else p


def _parts(gains: Doubles, members: Ints) -> Spread:
    """What makes the mean of runs × N gains vary: photos, runs, and both together (a crossed design).

    What photos and runs make together is in the spread of either, and is counted with the runs'.
    """
    runs, photos = gains.shape
    means = gains.mean(0)
    shares = np.bincount(members) / photos
    of_runs = float(gains.mean(1).var(ddof=1)) / runs if runs > 1 else 0.0
    if len(shares) == 1:  # of one picture nothing shows the spread: it is taken to be as large as the mean
        return Spread((float(means.mean() ** 2), 1), (of_runs, runs - 1), 0.0)
    square = float((shares**2).sum())
    kept = 1 - 2 * shares + square
    both = sum(_of_photos(row, members, kept) for row in gains - means) / (runs * (runs - 1)) if runs > 1 else 0.0
    of_photos = max(0.0, _of_photos(means, members, kept) - both)
    return Spread((of_photos, _freedom(shares, kept, square)), (of_runs, runs - 1), min(both, of_runs))


def _of_photos(gains: Doubles, members: Ints, kept: Doubles) -> float:
    """The variance of the mean of one run's gains.

    Groups of photos are pictures: each deviates as a whole, larger ones weigh more. So it is the sum of their squared
    deviations, each divided by what it keeps of itself (K.-Y. Liang and S. Zeger, 1986; R. Bell and D. McCaffrey's
    correction, 2002), and so are its degrees of freedom; of groups of one size there are C − 1.
    """
    sums = np.bincount(members, gains - gains.mean()) / len(gains)
    return float((sums**2 / kept).sum())


def _freedom(shares: Doubles, kept: Doubles, square: float) -> float:
    """Satterthwaite's degrees of freedom: squared trace by trace of the square of the sum's matrix, whose entries are
    w_g w_h ((g = h) + square − w_g − w_h) / √(kept_g kept_h).
    """
    a = shares**2 / kept
    of_all = _sum_of_squares(a, shares, square) - (a**2 * (square - 2 * shares) ** 2).sum()
    return float(square**2 / ((shares**4).sum() + of_all))


def _sum_of_squares(a: Doubles, w: Doubles, s: float) -> float:
    """Σ_gh a_g a_h (s − w_g − w_h)²."""
    a0, a1, a2 = a.sum(), (a * w).sum(), (a * w * w).sum()
    return float(s * s * a0 * a0 - 4 * s * a0 * a1 + 2 * a0 * a2 + 2 * a1 * a1)


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


def sign_flip(sums: Ints) -> float:
    """The two-sided mid-p of a sum whose parts, int64 (C,), could each as well have had the other sign.

    Worked out over all 2^C ways; of ones alone it is McNemar's test.
    """
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    probs = np.ones(1)  # of the sum of those above 0 being 0, 1, 2, …
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(size * count + 1)
        steps[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        probs = np.convolve(probs, steps)
    place = (abs(int(sums.sum())) + len(probs) - 1) // 2
    return min(1.0, float(2 * probs[place + 1 :].sum() + probs[place]))


def tango(better: float, worse: float, photos: float) -> tuple[float, float]:
    """The 95 % score interval of a difference of paired shares (T. Tango, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 17, 1998).

    The differences that the score test does not reject; at 0 that test is McNemar's. Its width is never 0.

    >>> [round(end, 4) for end in tango(1, 7, 21)]
    [-0.5172, -0.026]
    """

    def rejected(difference: float) -> bool:
        b = (2 * photos - better + worse) * difference - better - worse
        c = worse * difference * (1 - difference)
        of_worse = (math.sqrt(max(0.0, b * b + 8 * photos * c)) - b) / (4 * photos)
        variance = photos * max(0.0, 2 * of_worse + difference * (1 - difference))
        return (better - worse - photos * difference) ** 2 > Z * Z * variance

    return _edge(rejected, (better - worse) / photos, -1), _edge(rejected, (better - worse) / photos, 1)


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return outside


def holm(values: Sequence[float]) -> Doubles:
    """The p values of several comparisons made at once, each raised so that none is told by luck (S. Holm, 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(values)
    raised = np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1)
    result = np.empty(len(values))
    result[order] = np.minimum(1, np.maximum.accumulate(raised)) if len(values) else []
    return result


def _t_interval(value: float, spread: Spread) -> tuple[float, float, float]:
    """Low, high and p of a mean.

    It is held against the t points of the photos' and the runs' parts, each weighted with its variance (W. Cochran,
    "Approximate significance levels of the Behrens-Fisher test", Biometrics 20, 1964). Degrees of freedom for their
    sum (F. Satterthwaite, 1946) tell up to 8 % of nothing where three runs differ much, this no more than 5 %.
    """
    photos, runs = spread.photos, spread.runs
    variance = photos[0] + runs[0]
    if variance == 0:
        return value, value, 1.0 if value == 0 else 0.0
    half = float(_critical(photos[0], photos[1], runs[0], runs[1])) * math.sqrt(variance)
    return value - half, value + half, _p(abs(value) / math.sqrt(variance), photos, runs)


def _critical(photos: Any, freedom: float, runs: Any, others: float) -> Any:
    from scipy.special import stdtrit

    of_runs = stdtrit(others, 0.975) * runs if others > 0 else 0.0
    return (stdtrit(freedom, 0.975) * photos + of_runs) / (photos + runs)


def _p(away: float, photos: Part, runs: Part) -> float:
    """The p at which the weighted t point is as far away; it lies between those of the two parts alone."""
    from scipy.optimize import brentq
    from scipy.special import stdtr, stdtrit

    if runs[0] == 0 or photos[0] == 0:
        return float(2 * stdtr(photos[1] if runs[0] == 0 else runs[1], -away))
    weight = runs[0] / (photos[0] + runs[0])

    def over(log_p: float) -> float:
        p = math.exp(log_p) / 2
        return float(-(1 - weight) * stdtrit(photos[1], p) - weight * stdtrit(runs[1], p)) - away

    low = math.log(max(1e-300, 2 * min(float(stdtr(part[1], -away)) for part in (photos, runs)))) - 1e-6
    return math.exp(low if over(low) <= 0 else float(brentq(over, low, 0.0)))


def chance_to_tell(value: float, photos: Part, runs: Part) -> float:
    """The power: how often a true difference is told whose mean has these variances, each estimated anew with its
    degrees of freedom.
    """
    from scipy.special import chdtri, ndtr

    nodes = (np.arange(32) + 0.5) / 32
    seen_photos, seen_runs = np.meshgrid(
        *(
            part[0] * chdtri(part[1], nodes) / part[1] if 0 < part[1] < MANY else np.full(1, part[0])
            for part in (photos, runs)
        )
    )
    error = math.sqrt(photos[0] + runs[0])
    half = _critical(seen_photos, photos[1], seen_runs, runs[1]) * np.sqrt(seen_photos + seen_runs)
    return float((ndtr((abs(value) - half) / error) + ndtr((-abs(value) - half) / error)).mean())


def _photos_to_tell(value: float, photos: int, spread: Spread) -> int | None:
    if abs(value) < ROUNDING:
        return None
    of_photos, of_runs = spread.photos, spread.runs

    def told(number: int) -> bool:
        share = number / photos
        part = max(of_photos[0], TINY) / share, max(1.0, (of_photos[1] + 1) * share - 1)
        return chance_to_tell(value, part, (of_runs[0] - spread.both + spread.both / share, of_runs[1])) >= POWER

    return first_that(told, 0, MOST_PHOTOS)


def first_that(told: Callable[[int], bool], few: int, most: int) -> int | None:
    """The least number above `few`, to 1 in 500, that tells; None where not even `most` does."""
    if not told(most):
        return None
    many = most
    while many - few > max(1, few // 500):
        middle = math.isqrt(max(1, few) * many) if many > 4 * few + 4 else (few + many) // 2
        few, many = (few, middle) if told(middle) else (middle, many)
    return many
