from __future__ import annotations

import math

import numpy as np
import pytest

from nameplate.evaluation.significance import RESAMPLES, holm, mcnemar, paired, resamples


def test_mcnemars_exact_p_is_the_binomials() -> None:
    assert mcnemar(8, 2) == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10)
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 9) == mcnemar(9, 1)


def test_one_run_of_rights_and_wrongs_is_judged_by_mcnemar() -> None:
    first = np.array([1] * 50 + [0] * 10 + [1] * 2 + [0] * 5)
    second = np.array([1] * 50 + [1] * 10 + [0] * 2 + [0] * 5)
    found = paired(first, second)
    assert (found.better, found.worse) == (10, 2)
    assert found.p == mcnemar(10, 2)
    assert found.told
    assert found.difference.value == pytest.approx(8 / 67)
    assert found.difference.low < 8 / 67 < found.difference.high


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
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


def test_noise_is_called_noise_about_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(1)
    told = sum(paired(random.random(200) < 0.8, random.random(200) < 0.8).told for _ in range(400))
    assert told <= 0.07 * 400


def test_copies_of_one_picture_count_as_one() -> None:
    random = np.random.default_rng(2)
    first, second = random.random((2, 60)) < [[0.6], [0.8]]
    alone = paired(first, second, np.arange(60)).difference
    copied = paired(np.repeat(first, 10), np.repeat(second, 10), np.repeat(np.arange(60), 10)).difference
    assert copied.value == pytest.approx(alone.value)
    assert copied.low == pytest.approx(alone.low)
    naive = paired(np.repeat(first, 10), np.repeat(second, 10)).difference
    assert naive.low > copied.low


def test_the_photos_to_tell_do_tell() -> None:
    random = np.random.default_rng(3)
    gain = np.array([1] * 12 + [-1] * 8 + [0] * 80)  # 4 points of 100 photos: noise
    found = paired(np.zeros(100), gain)
    assert not found.told
    assert found.photos_to_tell is not None
    draws = [random.choice(gain, found.photos_to_tell) for _ in range(300)]
    assert 0.7 <= np.mean([paired(np.zeros(len(draw)), draw).told for draw in draws]) <= 0.9


def test_runs_that_differ_more_than_the_ways_cannot_be_told_by_more_photos() -> None:
    second = np.stack([np.r_[np.ones(60), np.zeros(40)], np.r_[np.zeros(58), np.ones(42)]])
    found = paired(np.full((2, 100), 0.5), second)
    assert not found.told
    assert found.photos_to_tell is None


def test_two_ways_that_answer_alike_do_not_differ() -> None:
    found = paired([1, 0, 1], [1, 0, 1])
    assert (found.p, found.photos_to_tell) == (1, None)
    assert found.difference.low < found.difference.value == 0 < found.difference.high  # of three photos


def test_several_comparisons_are_paid_for() -> None:
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
def test_ten_photos_that_fare_alike_do_not_make_a_difference_certain(right: np.ndarray) -> None:
    found = paired(right, right)
    assert found.p == 1
    assert found.difference.value == 0
    assert found.difference.low < -0.05 < 0.05 < found.difference.high
    many = paired(np.ones(1000), np.ones(1000)).difference
    assert 0 < many.high < 0.01
    gained = paired(np.zeros(10), np.ones(10)).difference
    assert gained.low < gained.value == gained.high == 1
