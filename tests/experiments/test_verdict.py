from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluate.significance import paired
from nameplate.experiments import result
from nameplate.experiments.verdict import ExtraDataVerdict, SeedAnswers, SeedResult, give_verdict

NAMEPLATES = ("a", "b", "c")
TRUTHS = ["a"] * 60 + ["b"] * 60
EACH = np.arange(120)
Rights = NDArray[np.bool_]


def answers(right: Rights) -> SeedAnswers:
    named = tuple(truth if well else "c" for truth, well in zip(TRUTHS, right, strict=True))
    return SeedAnswers(named, tuple(np.where(right, 0.9, 0.05).tolist()))


def verdict(without: list[Rights], added: list[Rights], groups: NDArray[np.int64] = EACH) -> ExtraDataVerdict:
    trials = [SeedResult(20 + k, answers(a), answers(b)) for k, (a, b) in enumerate(zip(without, added, strict=True))]
    return give_verdict(trials, TRUTHS, groups, {"a": 7}, NAMEPLATES)


def drawn(share: float, seed: int = 0) -> list[Rights]:
    random = np.random.default_rng(seed)
    easy = random.random(120)
    return [easy + 0.02 * random.standard_normal(120) < share for _ in range(3)]


def test_photos_that_help() -> None:
    found = verdict(drawn(0.6), drawn(0.8))
    assert found.word == "helps"
    assert found.top1.difference.low > 0
    assert found.log_loss.difference.high < 0  # less is better
    assert found.log_loss_added < found.log_loss_without
    assert result.headline(found) == "The further photos help"
    assert result.how_to_tell(found) == ""


def test_photos_that_hurt() -> None:
    found = verdict(drawn(0.8), drawn(0.6))
    assert found.word == "hurts"
    assert found.top1.difference.high < 0


def test_a_small_difference_gives_no_verdict_and_the_number_of_photos_needed() -> None:
    found = verdict(drawn(0.7), drawn(0.72, seed=5))
    assert found.word == "cannot be told"
    assert found.top1.photos_to_tell is not None
    assert found.top1.photos_to_tell > 120
    assert "evaluation photos are needed" in result.how_to_tell(found)


def test_no_difference_needs_no_more_photos() -> None:
    found = verdict(drawn(0.7), drawn(0.7))
    assert found.word == "cannot be told"
    assert "no difference" in result.how_to_tell(found)


def test_where_seeds_differ_most_more_of_them_are_asked_for() -> None:
    half = EACH % 2 == 0
    found = verdict([half, half, half], [half | (EACH < 20), half & (EACH > 14), half | (EACH < 6)])
    assert found.word == "cannot be told"
    assert found.top1.photos_to_tell is None
    assert found.enough is not None
    assert found.enough.seeds == pytest.approx(2 * np.var([10, -8, 3], ddof=1) * (2.8016 / (5 / 3)) ** 2, rel=0.02)
    assert "seeds" in result.how_to_tell(found)


def test_one_nameplate_may_gain_alone() -> None:
    without = [np.r_[np.arange(60) % 3 > 0, np.arange(60) % 3 > 0]] * 3
    added = [np.r_[np.ones(60, bool), np.arange(60) % 3 > 0]] * 3
    found = verdict(without, added)
    assert {each.nameplate: each.word for each in found.per_class} == {"a": "helps", "b": "cannot be told"}
    assert [each.added for each in found.per_class] == [7, 0]
    assert result.about_classes(found) == "a (+33) gains. For the other 1 the difference is not significant."


def test_a_nameplate_that_fares_alike_still_has_an_interval() -> None:
    found = verdict(drawn(2.0), drawn(2.0)).per_class[0].difference
    assert found.value == 0
    assert found.low < -0.01
    assert found.high > 0.01


def test_two_photos_give_no_verdict_on_a_nameplate() -> None:
    y_true, groups = ["a", "a", *["b"] * 60], np.arange(62)
    right = tuple(y_true)
    wrong = ("c", "c", *y_true[2:])
    trials = [SeedResult(k, SeedAnswers(wrong, (0.5,) * 62), SeedAnswers(right, (0.5,) * 62)) for k in range(3)]
    found = give_verdict(trials, y_true, groups, {}, NAMEPLATES)
    assert found.per_class[0].difference.value == 1
    assert found.per_class[0].word == "cannot be told"


def test_p_of_few_images_is_not_below_that_of_coin_flips() -> None:
    gains = np.tile(np.r_[np.ones(3), np.zeros(0)], (3, 1))
    assert paired(np.zeros((3, 3)), gains, np.arange(3)).p == 0.25
    assert paired(np.zeros((3, 3)), gains, np.zeros(3, np.int64)).p == 1  # copies of one picture
    assert paired(np.zeros((3, 12)), np.ones((3, 12)), np.arange(12)).p == pytest.approx(2**-11)


def test_copies_of_one_image_count_once() -> None:
    alone = verdict(drawn(0.6), drawn(0.75))
    copies = verdict(drawn(0.6), drawn(0.75), EACH // 10)
    assert copies.pictures == 12
    assert alone.word == "helps"
    assert copies.top1.p > alone.top1.p


def test_the_type_i_error_is_as_documented() -> None:
    told = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        without, added = random.random((2, 3, 120)) < 0.7
        told += verdict(list(without), list(added)).word != "cannot be told"
    assert told <= 0.09 * 150


def test_answers_are_of_the_true_nameplates() -> None:
    found = SeedAnswers.of(np.array([[0.7, 0.3], [0.4, 0.6]], np.float32), ["b", "a"], ["a", "a"])
    assert found.named == ("b", "a")
    assert found.chance == pytest.approx((0.3, 0.6))
