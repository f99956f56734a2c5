from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from nameplate.evaluate.significance import RESAMPLES, _parts, holm, paired, power, resamples, sign_flip, tango


def mcnemar(better: int, worse: int) -> float:
    """The mid-p of McNemar's test: photos that each turned one way or the other."""
    return sign_flip(np.r_[np.ones(better, np.int64), -np.ones(worse, np.int64)])


def test_mcnemars_mid_p_is_that_of_the_binomial_distribution() -> None:
    """Twice the tail, in which what was seen counts half: M. Fagerland, S. Lydersen and P. Laake, 2013."""
    tail = [math.comb(10, k) / 2**10 for k in (0, 1, 2)]
    assert mcnemar(8, 2) == pytest.approx(2 * (tail[0] + tail[1] + tail[2] / 2))
    assert (mcnemar(0, 0), mcnemar(4, 4)) == pytest.approx((1, 1))
    assert mcnemar(1, 9) == mcnemar(9, 1)


def test_the_published_example_of_mid_p_and_tango() -> None:
    """Airway hyper-responsiveness of 21 children, 1 and 7 discordant: Fagerland and others, 2013 and 2014."""
    assert round(mcnemar(1, 7), 3) == 0.039
    assert [round(end, 3) for end in tango(1, 7, 21)] == [-0.517, -0.026]


@pytest.mark.parametrize(("better", "worse", "photos"), [(10, 2, 67), (1, 7, 21), (3, 0, 40), (12, 12, 60), (0, 1, 9)])
def test_the_ends_of_tangos_interval_are_where_the_score_test_changes(better: int, worse: int, photos: int) -> None:
    """The likelihood of (better, worse, alike) at a given difference, maximised by trying; T. Tango, 1998."""
    for difference in tango(better, worse, photos):
        low, high = max(0.0, -difference), (1 - difference) / 2  # of the share that is worse
        share = np.linspace(low, high, 2_000_001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = (
                better * np.log(share + difference)
                + worse * np.log(share)
                + (photos - better - worse) * np.log1p(-2 * share - difference)
            )
        best = share[np.nanargmax(likelihood)]
        variance = photos * (2 * best + difference - difference**2)
        assert (better - worse - photos * difference) ** 2 / variance == pytest.approx(1.959964**2, rel=2e-3)


def test_all_combinations_of_signs_are_counted() -> None:
    sums = np.array([3, -1, 2, 2, 0, -1, 4])
    changed = np.abs(sums[sums != 0])
    ways = np.array(list(itertools.product((-1, 1), repeat=len(changed)))) @ changed
    seen = abs(sums.sum())
    assert sign_flip(sums) == pytest.approx((np.abs(ways) > seen).mean() + (np.abs(ways) == seen).mean() / 2)
    assert sign_flip(np.zeros(4, np.int64)) == 1


def test_the_test_is_significant_exactly_where_the_interval_excludes_zero() -> None:
    random = np.random.default_rng(5)
    for photos in (4, 9, 26, 60, 104):
        for better in range(photos + 1):
            for worse in range(min(better, photos - better) + 1):
                found = paired(np.zeros(photos), np.r_[np.ones(better), -np.ones(worse), np.zeros(photos)][:photos])
                assert found.significant == (found.difference.low > 0)
                assert found.difference.low < found.difference.high
    for _ in range(300):
        copies = random.integers(0, 25, 60)
        gains = random.choice([-1, 0, 0, 1, 1], 25)[copies] * (random.random(60) < 0.8)
        for ways in (gains, np.stack([gains, gains * (random.random(60) < 0.9)]), gains + 0.1):
            found = paired(np.zeros_like(ways), ways, copies)
            assert found.significant == (not found.difference.low <= 0 <= found.difference.high)


def test_groups_of_different_sizes_have_fewer_degrees_of_freedom() -> None:
    """Satterthwaite's, from the matrix of the squared sum written out."""
    sizes = np.array([5, 1, 1, 3, 2])
    spread = _parts(np.random.default_rng(0).normal(size=(1, 12)), np.repeat(np.arange(5), sizes))
    shares = sizes / 12
    away = np.diag(shares) @ (np.eye(5) - np.outer(np.ones(5), shares))  # what of each picture's mean is its deviation
    squares = away @ away.T / np.sqrt(np.outer(*[np.diag(away @ away.T) / shares**2] * 2))
    assert spread.photos[1] == pytest.approx(np.trace(squares) ** 2 / (squares**2).sum())
    assert _parts(np.ones((1, 12)), np.arange(12)).photos[1] == pytest.approx(11)


def test_scores_of_one_run_are_tested_by_students_t() -> None:
    first, second = np.random.default_rng(6).normal([[0.0], [0.4]], size=(2, 30))
    found, theirs = paired(first, second), scipy.stats.ttest_rel(second, first)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.difference.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_the_variance_components_are_those_of_the_crossed_design() -> None:
    """Mean squares of a two-way table, by hand; the t points weighted with their variances."""
    gains = np.random.default_rng(7).normal([[0.2], [0.9], [1.6]], 1.0, (3, 8))
    runs, photos = gains.mean(1), gains.mean(0)
    rest = gains - runs[:, None] - photos + gains.mean()
    both = (rest**2).sum() / (2 * 7) / 24
    of_photos, of_runs = max(0, 3 * photos.var(ddof=1) / 24 - both), 8 * runs.var(ddof=1) / 24
    point = (scipy.stats.t.ppf(0.975, 7) * of_photos + scipy.stats.t.ppf(0.975, 2) * of_runs) / (of_photos + of_runs)
    half = point * math.sqrt(of_photos + of_runs)
    found = paired(np.zeros((3, 8)), gains)
    assert found.difference.interval == pytest.approx((gains.mean() - half, gains.mean() + half))
    at_the_edge = paired(np.zeros((3, 8)), gains - gains.mean() + half)
    assert at_the_edge.p == pytest.approx(0.05, abs=1e-6)


def test_copies_of_a_single_image_show_no_difference() -> None:
    for second in (np.ones(9), np.full(9, 0.3), np.ones((3, 9))):
        found = paired(np.zeros_like(second), second, np.zeros(9))
        assert not found.significant
        assert found.difference.low <= 0


def test_the_power_is_that_of_students_t() -> None:
    for degrees in (5, 20, 80):
        theirs = scipy.stats.nct(degrees, 2.5)
        point = scipy.stats.t.ppf(0.975, degrees)
        expected = theirs.sf(point) + theirs.cdf(-point)
        assert power(2.5, (1.0, degrees), (0.0, 0)) == pytest.approx(expected, abs=2e-3)
    assert power(2.801585, (1.0, 1e9), (0.0, 0)) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("better", "worse"), [(3, 0), (8, 5), (12, 8), (30, 25)])
def test_the_number_of_photos_agrees_with_the_exact_power(better: int, worse: int) -> None:
    """Over all numbers of changed photos, and all splits that the test tells."""
    promised = paired(np.zeros(100), np.r_[np.ones(better), -np.ones(worse), np.zeros(100 - better - worse)])
    assert promised.photos_to_tell is not None
    binom, changed = scipy.stats.binom, (better + worse) / 100
    likely = np.arange(*binom.ppf([1e-7, 1 - 1e-7], promised.photos_to_tell, changed).astype(int))
    power = 0.0
    for number, chance in zip(likely, binom.pmf(likely, promised.photos_to_tell, changed), strict=True):
        least = next((k for k in range(number // 2, number + 1) if mcnemar(k, number - k) < 0.05), number + 1)
        power += chance * binom.sf(least - 1, number, better / (better + worse))
    assert 0.78 <= power <= 0.91


def test_one_run_of_right_and_wrong_answers_is_tested_by_mcnemar() -> None:
    first = np.array([1] * 50 + [0] * 10 + [1] * 2 + [0] * 5)
    second = np.array([1] * 50 + [1] * 10 + [0] * 2 + [0] * 5)
    found = paired(first, second)
    assert (found.better, found.worse) == (10, 2)
    assert found.p == mcnemar(10, 2)
    assert found.significant
    assert found.difference.value == pytest.approx(8 / 67)
    assert found.difference.low < 8 / 67 < found.difference.high


def test_intervals_contain_the_true_value_about_as_often_as_stated() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        easy = random.random(300)
        runs = [(0.02 * random.standard_normal(), 0.02 * random.standard_normal()) for _ in range(4)]
        first = np.array([easy < 0.6 + a for a, _ in runs])
        second = np.array([easy < 0.65 + b for _, b in runs])
        found = paired(first, second).difference
        held += found.low <= 0.05 <= found.high
    assert 0.92 <= held / 400 <= 0.99


def test_no_difference_is_found_about_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(1)
    told = sum(paired(random.random(200) < 0.8, random.random(200) < 0.8).significant for _ in range(400))
    assert told <= 0.07 * 400


def test_copies_of_one_image_count_as_one() -> None:
    random = np.random.default_rng(2)
    first, second = random.random((2, 60)) < [[0.6], [0.8]]
    alone = paired(first, second, np.arange(60)).difference
    copied = paired(np.repeat(first, 10), np.repeat(second, 10), np.repeat(np.arange(60), 10)).difference
    assert copied.value == pytest.approx(alone.value)
    assert copied.low == pytest.approx(alone.low)
    naive = paired(np.repeat(first, 10), np.repeat(second, 10)).difference
    assert naive.low > copied.low


def test_photos_to_tell_are_enough() -> None:
    random = np.random.default_rng(3)
    gain = np.array([1] * 12 + [-1] * 8 + [0] * 80)  # 4 points of 100 photos: noise
    found = paired(np.zeros(100), gain)
    assert not found.significant
    assert found.photos_to_tell is not None
    draws = [random.choice(gain, found.photos_to_tell) for _ in range(300)]
    assert 0.7 <= np.mean([paired(np.zeros(len(draw)), draw).significant for draw in draws]) <= 0.9


def test_more_photos_do_not_help_where_runs_differ_more_than_methods() -> None:
    second = np.stack([np.r_[np.ones(60), np.zeros(40)], np.r_[np.zeros(58), np.ones(42)]])
    found = paired(np.full((2, 100), 0.5), second)
    assert not found.significant
    assert found.photos_to_tell is None


def test_two_methods_with_equal_answers_do_not_differ() -> None:
    found = paired([1, 0, 1], [1, 0, 1])
    assert (found.p, found.photos_to_tell, found.difference.value) == (1, None, 0)
    assert found.difference.interval == pytest.approx((-0.5615, 0.5615), abs=1e-4)  # of three photos


def test_several_comparisons_are_corrected_for() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert len(holm([])) == 0


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((2, 3), (3,)), ((0,), (0,))])
def test_scores_that_cannot_be_paired_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="cannot pair"):
        paired(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_resamples_draw_groups_whole() -> None:
    groups = np.array([7, 3, 7, 9, 3, 7])
    drawn = list(resamples(6, groups))
    assert len(drawn) == RESAMPLES
    for rows in drawn[:50]:
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[2] == counts[5]
        assert counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3
    alone = np.concatenate(list(resamples(6)))
    assert np.bincount(alone) == pytest.approx(np.full(6, RESAMPLES), rel=0.2)
    assert [rows.tolist() for rows in resamples(6, groups)] == [rows.tolist() for rows in drawn]


@pytest.mark.parametrize("right", [np.ones(10), np.zeros(10)])
def test_ten_photos_with_equal_gains_do_not_make_a_difference_certain(right: np.ndarray) -> None:
    found = paired(right, right)
    assert found.p == 1
    assert found.difference.value == 0
    assert found.difference.low < -0.05 < 0.05 < found.difference.high
    many = paired(np.ones(1000), np.ones(1000)).difference
    assert 0 < many.high < 0.01
    gained = paired(np.zeros(10), np.ones(10)).difference
    assert gained.low < gained.value == gained.high == 1
