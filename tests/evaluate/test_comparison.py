"""Two models on the same photos: which photos are compared, and how the result is worded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nameplate.errors import DataError
from nameplate.evaluate.comparison import compare_models, loss_verdict, verdict
from nameplate.evaluate.significance import paired
from nameplate.model.classifier import log_losses
from tests.evaluate.answers import NAMES, judged


def test_a_far_better_model_is_found_better_and_a_similar_one_is_not() -> None:
    good, poor, like = judged(0, 3.0), judged(1, 0.5), judged(2, 3.0)
    found = compare_models(good, poor, "poor")
    assert (found.photos, found.difference.significant) == (60, True)
    assert "is better than 'poor'" in verdict(found)
    assert found.log_loss < found.other_log_loss
    assert "lower" in loss_verdict(found)
    assert "is worse than 'good'" in verdict(compare_models(poor, good, "good"))
    alike = compare_models(good, like, "like")
    assert "cannot be told" in verdict(alike)
    assert f"{alike.difference.photos_to_tell:,} photos would tell" in verdict(alike)


def test_the_figures_are_those_of_the_paired_test() -> None:
    one, two = judged(0, 2.0), judged(1, 3.0)
    found = compare_models(one, two, "two")
    assert found.difference == paired(two.right, one.right)
    losses = [log_losses(each.probabilities, each.y_true) for each in (one, two)]
    assert found.log_loss_difference == paired(losses[1], losses[0])
    assert found.difference.difference.value == pytest.approx(found.top1.value - found.other_top1.value)


def test_a_model_against_itself_differs_nowhere() -> None:
    found = compare_models(judged(), judged(), "itself")
    assert found.difference.difference.value == 0
    assert found.difference.difference.interval == pytest.approx((-0.0602, 0.0602), abs=1e-4)  # 60 photos may miss one
    assert verdict(found) == "This bundle and 'itself' are right and wrong on the same 60 photos."


def test_nameplates_in_another_order_or_fewer_are_matched_by_photo() -> None:
    one = judged(0, 3.0)
    turned = replace(
        one,
        nameplates=one.nameplates[::-1],
        probabilities=np.ascontiguousarray(one.probabilities[:, ::-1]),
        y_true=len(NAMES) - 1 - one.y_true,
    )
    assert compare_models(one, turned, "turned").difference.better == 0
    assert compare_models(one, turned, "turned").log_loss_difference.difference.value == 0
    fewer = judged(1, 3.0, NAMES[:4], taught=False)
    found = compare_models(one, fewer, "fewer")
    assert (found.photos, found.same_nameplates) == (24, False)
    assert "know different nameplates" in loss_verdict(found)
    assert found.top1.value == pytest.approx(float(one.right[:24].mean()))


def test_no_photo_in_common_says_so() -> None:
    one, two = judged(0, 3.0, NAMES[:3], taught=False), judged(0, 3.0, NAMES[5:], taught=False)
    with pytest.raises(DataError, match=r"No photo can be judged by both: 18 by this bundle and 30 by 'two'"):
        compare_models(one, two, "two")
