"""Test whether one of two methods is better than the other on the same photos (`paired`).

A method is whatever gives each photo a score: a model, a recipe, a way of TTA. Test and interval always agree: the
interval excludes 0 exactly where the difference is significant. docs/statistics.md has the sources and simulations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nameplate.types import Doubles, Metric

LEVEL = 0.05
"""A difference is significant where its p is below this."""
Z, POWER, POWER_Z = 1.959964, 0.8, 0.841621
"""The 97.5 % point of the normal distribution; the power for which `photos_to_tell` is computed; and the normal point
of that power."""
RESAMPLES, SEED = 400, 0
"""The number of bootstrap resamples for figures that are not plain means, and their seed."""
MANY = 100
"""Degrees of freedom from which a variance counts as exactly known."""
MOST_PHOTOS = 10**9
"""`photos_to_tell` never names more photos than this."""
TINY = 1e-300
"""A positive stand-in for a variance of 0."""
ROUNDING = 1e-9
"""A smaller difference counts as 0. Real ones are larger: shares of a few thousand photos differ by more."""
AGAINST = np.array([1.0, -1.0]) / math.sqrt(2)
"""The gains of two pseudo-photos of opposite sign, which act as the half photos of Agresti and Min."""

Ints = NDArray[np.int64]
Part = tuple[float, float]
"""A variance component, and the degrees of freedom of its estimate."""


class Spread(NamedTuple):
    """The variance components of a mean over runs and photos."""

    photos: Part
    """The component of the photos."""
    runs: Part
    """The component of the runs, with the interaction of photos and runs in it."""
    both: float
    """The interaction alone."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The second method compared with the first."""

    difference: Metric
    """The mean of second − first, with its 95 % interval, which excludes 0 exactly where `significant`."""
    better: int
    """The number of photos on which the second method has the higher score, averaged over the runs."""
    worse: int
    """The number of photos on which it has the lower score."""
    p: float
    """The two-sided p value of the hypothesis that there is no difference."""
    photos_to_tell: int | None
    """The number of photos on which a true difference of this size would be significant with a probability of 80 %.
    None where the methods do not differ at all, or where no number is enough because the runs differ too much."""

    @property
    def significant(self) -> bool:
        """Whether the difference is more than noise."""
        return self.p < LEVEL


def paired(first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None) -> Paired:
    """Compare two methods on the same photos.

    With one run each, and every photo right or wrong, it is McNemar's mid-p test (M. Fagerland, S. Lydersen and
    P. Laake, 2013) with T. Tango's score interval (1998). Otherwise it is a t interval with two variance components,
    photos and runs, each with its degrees of freedom (W. Cochran, 1964). Copies of a photo count as one in both.

    Args:
        first: Scores of the first method, (N,) or runs × N: right or wrong, or any score whose mean is compared.
        second: Scores of the second method on the same photos, and of runs with the same seeds.
        groups: (N,); photos of one group count as one. None: each photo is its own group.

    Raises:
        ValueError: The shapes differ, or there are no photos.
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
    """Compare one run each, in which every photo is right or wrong.

    Where there are copies, the counts are divided by the design effect, which is the number of photos that count as
    one. That gives N. Obuchowski's test for clustered pairs (1998) and the Tango interval that belongs to it.
    """
    from scipy.stats import norm

    photos, sums = len(gains), np.bincount(members, gains)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    changed = better + worse
    effect = (
        max(1.0, float((sums**2).sum()) / changed) if changed else float((np.bincount(members) ** 2).sum() / photos)
    )
    # With n copies of every photo all counts are n times too large. Dividing them by the design effect undoes this.
    low, high = tango(better / effect, worse / effect, photos / effect)
    score = float(2 * norm.sf(abs(better - worse) / math.sqrt(changed * effect))) if changed else 1.0
    p = sign_flip(sums.round().astype(np.int64))
    if (p < LEVEL) != (score < LEVEL):
        p = max(p, score)  # sign-flip and score test disagree by little: then the difference is not significant
    value = float(gains.mean())
    difference, p = _agreeing(Metric(value, low, high), p)
    more = None
    if better != worse:
        some = changed / photos
        more = math.ceil(effect * (Z * math.sqrt(some) + POWER_Z * math.sqrt(some - value**2)) ** 2 / value**2)
    return Paired(difference, better, worse, p, more)


def _of_means(gains: Doubles, members: Ints, *, rights: bool) -> Paired:
    """Compare several runs, or scores that are more than right or wrong.

    Under the hypothesis of no difference, each changed photo could equally have changed the other way. So m changed
    photos cannot give a two-sided p below 2^(1 - m) (R. A. Fisher's sign-flip test, "The Design of Experiments",
    1935, section 21). Proportions of few photos that all changed alike have no variance, so two pseudo-photos of
    opposite sign are added (A. Agresti and Y. Min, "Simple improved confidence intervals for comparing matched
    proportions", 2005).
    """
    photos, value = gains.shape[1], float(gains.mean())
    # The number of photos needed comes from the measured variance, without the pseudo-photos below.
    more = _photos_to_tell(value, photos, _parts(gains, members))
    changed = int(np.count_nonzero(np.abs(np.bincount(members, gains.mean(0))) > ROUNDING))
    if rights:
        # The pseudo-photos are groups of their own. They move the mean towards 0, so the interval is widened to contain
        # the measured mean.
        wide, new = np.hstack([gains, np.tile(AGAINST, (len(gains), 1))]), members.max() + 1
        low, high, p = _t_interval(float(wide.mean()), _parts(wide, np.r_[members, new, new + 1]))
        low, high = max(-1.0, min(low, value)), min(1.0, max(high, value))
    else:
        low, high, p = _t_interval(value, _parts(gains, members))
    difference, p = _agreeing(Metric(value, low, high), max(p, min(1.0, 2.0 ** (1 - changed))))
    means = gains.mean(0)
    return Paired(difference, int((means > 0).sum()), int((means < 0).sum()), p, more)


def _agreeing(difference: Metric, p: float) -> tuple[Metric, float]:
    """Widen the interval or raise p, so that the interval excludes 0 exactly where p is below `LEVEL`."""
    if p >= LEVEL:
        return Metric(difference.value, min(0.0, difference.low), max(0.0, difference.high)), p
    return difference, LEVEL if difference.low <= 0 <= difference.high else p


def _parts(gains: Doubles, members: Ints) -> Spread:
    """The variance components of the mean of runs × N gains: photos, runs, and interaction (a crossed design).

    The naive variance of either contains the interaction, which is counted once, with the runs.
    """
    runs, photos = gains.shape
    means = gains.mean(0)
    shares = np.bincount(members) / photos
    # Dividing by the number of runs gives the variance of their mean, not that of one run.
    of_runs = float(gains.mean(1).var(ddof=1)) / runs if runs > 1 else 0.0
    if len(shares) == 1:  # one group shows no variance; the standard deviation is assumed to equal the mean
        return Spread((float(means.mean() ** 2), 1), (of_runs, runs - 1), 0.0)
    square = float((shares**2).sum())
    kept = 1 - 2 * shares + square  # the share of a group's own variance that its deviation from the mean keeps
    both = sum(_of_photos(row, members, kept) for row in gains - means) / (runs * (runs - 1)) if runs > 1 else 0.0
    # The difference of two estimates can be negative where the photos' own variance is near 0.
    of_photos = max(0.0, _of_photos(means, members, kept) - both)
    return Spread((of_photos, _freedom(shares, kept, square)), (of_runs, runs - 1), min(both, of_runs))


def _of_photos(gains: Doubles, members: Ints, kept: Doubles) -> float:
    """The cluster-robust variance of the mean of one run's gains.

    It is the sum of the groups' squared deviations (K.-Y. Liang and S. Zeger, 1986), each divided by the share that
    the deviation keeps after the mean is subtracted (R. Bell and D. McCaffrey, 2002). For G groups of equal size it
    has G − 1 degrees of freedom.
    """
    sums = np.bincount(members, gains - gains.mean()) / len(gains)
    return float((sums**2 / kept).sum())


def _freedom(shares: Doubles, kept: Doubles, square: float) -> float:
    """Satterthwaite's degrees of freedom: tr(M)² / tr(M²) of the matrix M of the variance's quadratic form.

    The entries of M are w_g w_h ((g = h) + square − w_g − w_h) / √(kept_g kept_h). M itself, G×G, is never built.
    """
    a = shares**2 / kept
    # The diagonal of M has other entries than the formula, so its terms are subtracted here and added as shares⁴ below.
    of_all = _sum_of_squares(a, shares, square) - (a**2 * (square - 2 * shares) ** 2).sum()
    return float(square**2 / ((shares**4).sum() + of_all))


def _sum_of_squares(a: Doubles, w: Doubles, s: float) -> float:
    """Σ_gh a_g a_h (s − w_g − w_h)², in a time linear in the number of groups."""
    a0, a1, a2 = a.sum(), (a * w).sum(), (a * w * w).sum()
    return float(s * s * a0 * a0 - 4 * s * a0 * a1 + 2 * a0 * a2 + 2 * a1 * a1)


def resamples(photos: int, groups: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.int64]]:
    """Draw the rows of `RESAMPLES` bootstrap resamples, int64 (≈ N,) each; groups are drawn whole.

    B. Efron, 1979; of groups: A. Davison and D. Hinkley, "Bootstrap Methods and their Application", 1997, 3.8.
    """
    random = np.random.default_rng(SEED)
    members = np.arange(photos) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members)
    ends = np.cumsum(sizes)
    rows = np.argsort(members, kind="stable")
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(sizes), len(sizes))
        # 0, 1, … within each drawn group, without a loop over groups.
        steps = np.arange(sizes[drawn].sum()) - np.repeat(np.cumsum(sizes[drawn]) - sizes[drawn], sizes[drawn])
        yield rows[np.repeat(ends[drawn] - sizes[drawn], sizes[drawn]) + steps]


def sign_flip(sums: Ints) -> float:
    """The two-sided mid-p of a sum under the hypothesis that each summand's sign is random.

    It is exact: a convolution gives the distribution over all 2^G signs. Where all summands are ±1 it is McNemar's
    mid-p test.

    Args:
        sums: int64 (G,), the summands.
    """
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    probs = np.ones(1)  # that the positive summands add to 0, 1, 2, …
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(size * count + 1)
        # Of `count` summands of this size, k are positive with a binomial probability; they add k · size.
        steps[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        probs = np.convolve(probs, steps)
    # The sum is twice the positive part minus the total of all sizes, which is len(probs) - 1.
    place = (abs(int(sums.sum())) + len(probs) - 1) // 2
    return min(1.0, float(2 * probs[place + 1 :].sum() + probs[place]))


def tango(better: float, worse: float, photos: float) -> tuple[float, float]:
    """The 95 % score interval of a difference of paired shares (T. Tango, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 17, 1998).

    It holds the differences that the score test does not reject; at 0 that test is McNemar's. Its width is never 0.

    >>> [round(end, 4) for end in tango(1, 7, 21)]
    [-0.5172, -0.026]
    """

    def rejected(difference: float) -> bool:
        b = (2 * photos - better + worse) * difference - better - worse
        c = worse * difference * (1 - difference)
        # The maximum likelihood estimate of the share of photos that became worse, given the difference.
        of_worse = (math.sqrt(max(0.0, b * b + 8 * photos * c)) - b) / (4 * photos)
        # Rounding can make the variance negative at the ends -1 and 1; then every other difference is rejected.
        variance = photos * max(0.0, 2 * of_worse + difference * (1 - difference))
        return (better - worse - photos * difference) ** 2 > Z * Z * variance

    return _edge(rejected, (better - worse) / photos, -1), _edge(rejected, (better - worse) / photos, 1)


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of the interval, by bisection between a difference that is not rejected and one that is."""
    for _ in range(60):
        middle = (inside + outside) / 2
        # 60 halvings reach the precision of float64. `outside` is returned, so that rounding never makes the interval
        # too short.
        inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
    return outside


def holm(values: Sequence[float]) -> Doubles:
    """The p values of several comparisons, corrected for their number (S. Holm, 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(values)
    # The smallest p is multiplied by the number of comparisons, the next by one less, and none may be below an earlier
    # one.
    raised = np.asarray(values, np.float64)[order] * np.arange(len(values), 0, -1)
    result = np.empty(len(values))
    result[order] = np.minimum(1, np.maximum.accumulate(raised)) if len(values) else []
    return result


def _t_interval(value: float, spread: Spread) -> tuple[float, float, float]:
    """Low end, high end and p of a mean.

    The critical value is the mean of the t points of photos and runs, weighted with their variance components
    (W. Cochran, "Approximate significance levels of the Behrens-Fisher test", Biometrics 20, 1964). Satterthwaite's
    degrees of freedom of the sum (1946) have a type I error of up to 8 % where three runs differ much; this has 5 %.
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
    """The p at which the weighted t point equals `away`; it lies between the p of either component alone."""
    from scipy.optimize import brentq
    from scipy.special import stdtr, stdtrit

    if runs[0] == 0 or photos[0] == 0:
        return float(2 * stdtr(photos[1] if runs[0] == 0 else runs[1], -away))
    weight = runs[0] / (photos[0] + runs[0])

    def over(log_p: float) -> float:
        p = math.exp(log_p) / 2
        return float(-(1 - weight) * stdtrit(photos[1], p) - weight * stdtrit(runs[1], p)) - away

    # The root is sought in log p, because p spans hundreds of orders of magnitude.
    low = math.log(max(1e-300, 2 * min(float(stdtr(part[1], -away)) for part in (photos, runs)))) - 1e-6
    return math.exp(low if over(low) <= 0 else float(brentq(over, low, 0.0)))


def power(value: float, photos: Part, runs: Part) -> float:
    """The power of the test: the probability that a true difference is significant.

    Args:
        value: The true difference.
        photos: The variance component of the photos, and its degrees of freedom.
        runs: The same of the runs.
    """
    from scipy.special import chdtri, ndtr

    # Each component is estimated anew in a new experiment, so the power is averaged over quantiles of the chi-squared
    # distribution of the estimates.
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

    def significant(number: int) -> bool:
        # More photos reduce the component of the photos and the interaction, but not the differences between runs.
        share = number / photos
        part = max(of_photos[0], TINY) / share, max(1.0, (of_photos[1] + 1) * share - 1)
        return power(value, part, (of_runs[0] - spread.both + spread.both / share, of_runs[1])) >= POWER

    return smallest_that(significant, 0, MOST_PHOTOS)


def smallest_that(significant: Callable[[int], bool], few: int, most: int) -> int | None:
    """The smallest number above `few` for which a difference is significant, to 1 in 500.

    Args:
        significant: Says whether a number is large enough; it must be monotone.
        few: A number that is not large enough.
        most: The largest number to consider.

    Returns:
        None where not even `most` is large enough.
    """
    if not significant(most):
        return None
    many = most
    while many - few > max(1, few // 500):
        # The geometric mean while the ends differ by orders of magnitude, then plain bisection.
        middle = math.isqrt(max(1, few) * many) if many > 4 * few + 4 else (few + many) // 2
        few, many = (few, middle) if significant(middle) else (middle, many)
    return many
