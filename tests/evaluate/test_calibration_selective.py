"""Risk and coverage, compared with their definition, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.evaluate.calibration import COVERAGES, curve, risk_coverage
from nameplate.evaluate.metrics import wilson


@given(st.lists(st.tuples(st.integers(1, 100_000), st.booleans()), min_size=1, max_size=40, unique_by=lambda a: a[0]))
def test_the_curve_is_its_definition(answers: list[tuple[int, bool]]) -> None:
    """Y. Geifman, R. El-Yaniv, 2017: the risk of those that a threshold lets through, for each threshold."""
    confidence = np.array([sure / 100_000 for sure, _ in answers], np.float32)
    right = np.array([right for _, right in answers])
    coverage, risk = curve(confidence, right)
    for threshold in confidence:
        through = confidence >= threshold
        place = int(through.sum()) - 1
        assert coverage[place] == pytest.approx(through.mean())
        assert risk[place] == pytest.approx((~right[through]).mean())


def test_equal_confidences_count_as_their_mean_in_whatever_order_they_come() -> None:
    confidence = np.array([0.9, 0.9, 0.5], np.float32)
    for right in ([True, False, True], [False, True, True]):
        assert curve(confidence, np.array(right))[1].tolist() == pytest.approx([0.5, 0.5, 1 / 3])


def test_the_area_of_four_answers() -> None:
    found = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([True, False, True, False]))
    assert found.aurc.value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert found.aurc.low <= found.aurc.value <= found.aurc.high


def test_without_a_wrong_answer_the_interval_has_a_width() -> None:
    found = risk_coverage(np.linspace(1, 0.5, 60).astype(np.float32), np.ones(60, bool)).aurc
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(wilson(0, 30).high)  # worth half of the photos


def test_the_interval_of_the_area_is_that_of_the_jackknife() -> None:
    """With many photos its variance is that of leaving out one photo at a time."""
    random = np.random.default_rng(5)
    confidence = random.permutation(np.linspace(0.3, 1, 400)).astype(np.float32)
    right = random.random(400) < confidence
    left = [float(curve(np.delete(confidence, i), np.delete(right, i))[1].mean()) for i in range(400)]
    error = np.sqrt(399 / 400 * ((np.array(left) - np.mean(left)) ** 2).sum())
    found = risk_coverage(confidence, right).aurc
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=0.03)
    copies = risk_coverage(np.repeat(confidence, 3), np.repeat(right, 3), np.repeat(np.arange(400), 3)).aurc
    assert copies.high - copies.low == pytest.approx(found.high - found.low, rel=0.02)


def test_as_many_as_can_be_answered_at_a_risk() -> None:
    confidence = np.linspace(1, 0.01, 200).astype(np.float32)
    right = np.ones(200, bool)
    right[[100, 150, 160, 170, 180, 190, 191, 192, 193, 194, 195]] = False
    one, five = risk_coverage(confidence, right).within
    assert one is not None
    assert five is not None
    assert one.photos == 150
    assert one.risk.value == pytest.approx(1 / 150)
    assert five.photos == 194
    assert five.risk.value == pytest.approx(9 / 194)
    assert one.threshold == pytest.approx(confidence[149])
    assert [point.coverage for point in risk_coverage(confidence, right).points] == pytest.approx(list(COVERAGES))


def test_no_threshold_separates_photos_of_one_confidence() -> None:
    found = risk_coverage(np.array([0.9] * 6 + [0.5] * 4, np.float32), np.array([True] * 5 + [False] * 5))
    assert [point.photos for point in found.points] == [6, 6, 10, 10, 10, 10, 10]
    assert found.within == (None, None)


def test_no_photos_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="no photos"):
        risk_coverage(np.zeros(0, np.float32), np.zeros(0, np.bool_))
