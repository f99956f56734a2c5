"""Risk and coverage held against their definition, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.evaluation.selective import COVERAGES, curve, risk_coverage


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


def test_no_threshold_parts_photos_of_one_confidence() -> None:
    found = risk_coverage(np.array([0.9] * 6 + [0.5] * 4, np.float32), np.array([True] * 5 + [False] * 5))
    assert [point.photos for point in found.points] == [6, 6, 10, 10, 10, 10, 10]
    assert found.within == (None, None)


def test_no_photos_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="no photos"):
        risk_coverage(np.zeros(0, np.float32), np.zeros(0, np.bool_))
