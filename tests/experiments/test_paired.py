"""Two candidates compared photo by photo, and how the result is worded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nameplate.evaluate.metrics import wilson
from nameplate.evaluate.significance import holm, sign_flip
from nameplate.experiments.paired import (
    PairedAnswers,
    answers,
    one_speed,
    ordered,
    pairs,
    photo_keys,
    summary,
    with_verdicts,
)
from nameplate.report.compare import ComparisonRow, Pair
from nameplate.types import Photo


def said(right: list[bool], start: int = 0) -> PairedAnswers:
    keys = tuple(str(start + place) for place in range(len(right)))
    named = tuple("a" if each else "b" for each in right)
    return PairedAnswers(keys, ("a",) * len(right), named, (0.5,) * len(right))


def row(name: str, right: list[bool]) -> ComparisonRow:
    return ComparisonRow(name, "net", len(right), wilson(sum(right), len(right)), 1.0)


def some(count: int, wrong: range) -> list[bool]:
    return [place not in wrong for place in range(count)]


ALONE = {str(place): place for place in range(200)}
RIGHT = {"a": some(100, range(10)), "b": some(100, range(5, 17)), "c": some(100, range(30, 80))}
FOUND = {name: said(right) for name, right in RIGHT.items()}


def test_pairs_are_mcnemars_raised_by_holm() -> None:
    found = pairs(FOUND, ALONE)
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    first = found[0]
    assert (first.better, first.worse, round(first.difference.value, 6)) == (5, 7, -0.02)
    assert first.p == sign_flip(np.repeat([1, -1], [5, 7]))
    assert [each.raised for each in found] == holm([each.p for each in found]).tolist()
    assert [each.told for each in found] == [False, True, True]
    assert found[1].raised > found[1].p


def test_against_a_base_there_are_fewer_pairs_to_raise_for() -> None:
    found = pairs(FOUND, ALONE, "b")
    assert [(each.first, each.second) for each in found] == [("b", "a"), ("b", "c")]


def test_copies_count_as_one() -> None:
    right = {"a": some(40, range(0)), "b": some(40, range(8))}
    found = {name: said(each) for name, each in right.items()}
    [alone], [copied] = pairs(found, ALONE), pairs(found, {str(k): max(k - 7, 0) for k in range(40)})
    assert alone.told  # eight photos lost
    assert not copied.told  # of one picture


def test_only_photos_that_both_answered_are_paired() -> None:
    [pair] = pairs({"a": said([True] * 6), "b": said([False] * 6, start=4)}, ALONE)
    assert (pair.photos, pair.difference.value) == (2, -1.0)
    assert pairs({"a": said([True]), "b": said([True], start=9)}, ALONE) == ()


def test_verdicts_are_in_words_and_the_right_way_round() -> None:
    rows = [*(row(name, right) for name, right in RIGHT.items()), ComparisonRow("lost", "net", error="no weights")]
    rows = list(ordered(rows))
    assert [each.name for each in rows] == ["a", "b", "c", "lost"]
    found = pairs(FOUND, ALONE)
    best = {each.name: each.verdict for each in with_verdicts(rows, found, "a", False)}
    assert best["a"] == "the best"
    assert best["b"].startswith("within noise of a (−2.0 points, p ")
    assert best["c"].startswith("worse than a by 40.0 points (−")
    assert best["lost"] == ""
    assert summary(rows, found, "a", False) == "The best is a, in a tie: within noise of it is b."
    turned = {each.name: each.verdict for each in with_verdicts(rows, pairs(FOUND, ALONE, "c"), "c", True)}
    assert turned["a"].startswith("better than c by 40.0 points (+")
    assert summary(rows, pairs(FOUND, ALONE, "c"), "c", True) == "Better than c: a, b."
    assert summary(rows[:1], (), "a", False).startswith("Only a could be evaluated")


def test_a_verdict_reads_a_pair_from_either_end() -> None:
    rows = [row("a", RIGHT["a"]), row("c", RIGHT["c"])]
    [forth], [back] = (pairs({k: FOUND[k] for k in names}, ALONE) for names in ("ac", "ca"))

    def verdict(pair: Pair) -> str:
        return with_verdicts(rows, [pair], "a", False)[1].verdict

    assert verdict(forth) == verdict(back)


def test_answers_are_the_most_probable_class_and_the_true_probability() -> None:
    probs = np.array([[0.7, 0.3], [0.6, 0.4]], np.float32)
    found = answers(["x", "y"], probs, np.array([0, 1]), ["A", "B"])
    assert (found.truths, found.named) == (("A", "B"), ("A", "A"))
    assert found.chances == pytest.approx((0.7, 0.4))
    assert found.right == {"x": True, "y": False}


def test_a_file_that_is_there_twice_has_two_keys() -> None:
    photos = [Photo("1", sha256="d"), Photo("2", sha256="e"), Photo("3", sha256="d")]
    assert photo_keys(photos) == ["d", "e", "d 2"]


def test_rows_of_one_network_have_one_speed() -> None:
    first = replace(row("a", [True]), parameters=3, gmacs=0.1, photos_per_second=20.0)
    rows = [
        first,
        replace(first, name="b", photos_per_second=50.0),
        replace(first, gmacs=0.2),
        ComparisonRow("x", "net", error=""),
    ]
    assert [each.photos_per_second for each in one_speed(rows)] == [50.0, 50.0, 20.0, None]


def test_a_summary_of_changes_names_the_base() -> None:
    same = {"a": FOUND["a"], "b": FOUND["a"]}
    rows = [row("a", RIGHT["a"]), row("b", RIGHT["a"])]
    assert summary(rows, pairs(same, ALONE, "a"), "a", True) == "Within noise of a: b."
