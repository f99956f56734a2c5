"""Metrics held against scikit-learn's, their intervals against theory and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as theirs

from nameplate.evaluation import evaluate
from nameplate.evaluation.metrics import confusion_matrix, wilson

Answers = tuple[NDArray[np.float32], NDArray[np.int64], list[str]]


def answers(photos: int, classes: int, seed: int, skill: float = 1.5) -> Answers:
    """Probabilities of a model that is right more often than not, on classes of unequal size."""
    random = np.random.default_rng(seed)
    truths = np.minimum(random.geometric(0.3, photos) - 1, classes - 1)
    logits = random.normal(size=(photos, classes))
    logits[np.arange(photos), truths] += skill
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return chances.astype(np.float32), truths, [f"car {number}" for number in range(classes)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(2, 12), st.integers(0, 10_000))
def test_every_figure_is_scikit_learns(photos: int, classes: int, seed: int) -> None:
    chances, truths, names = answers(photos, classes, seed)
    named, labels = chances.argmax(1), np.arange(classes)
    found = evaluate(chances, truths, names)
    there = np.unique(truths)
    assert found.photos == photos
    assert found.top1.value == pytest.approx(theirs.accuracy_score(truths, named))
    assert found.macro_f1.value == pytest.approx(
        theirs.f1_score(truths, named, labels=there, average="macro", zero_division=0)
    )
    wide = chances.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    assert found.log_loss == pytest.approx(theirs.log_loss(truths, wide, labels=labels), rel=1e-4)
    if classes > 5:
        expected = theirs.top_k_accuracy_score(truths, chances, k=5, labels=labels)
        assert found.top5.value == pytest.approx(expected)
    else:
        assert found.top5.value == 1
    matrix = theirs.confusion_matrix(truths, named, labels=labels)
    assert np.array_equal(confusion_matrix(truths, named, classes), matrix)
    precision, recall, f1, support = theirs.precision_recall_fscore_support(
        truths, named, labels=labels, zero_division=0
    )
    assert [row.nameplate for row in found.classes] == [names[i] for i in there]
    for row in found.classes:
        i = names.index(row.nameplate)
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert row.photos == support[i]
    wrong = {(c.truth, c.named): c.photos for c in found.confusions}
    assert wrong == {(names[i], names[j]): matrix[i, j] for i in labels for j in labels if i != j and matrix[i, j]}
    counts = [c.photos for c in found.confusions]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    ("hits", "photos", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval_is_the_published_one(hits: int, photos: int, low: float, high: float) -> None:
    found = wilson(hits, photos)
    assert found.value == hits / photos
    assert found.interval == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_holds_its_value_and_stays_a_share(photos: int, data: st.DataObject) -> None:
    found = wilson(data.draw(st.integers(0, photos)), photos)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_the_intervals_bracket_their_values() -> None:
    found = evaluate(*answers(300, 8, 1))
    for metric in (found.top1, found.top5, found.macro_f1):
        assert metric.low < metric.value < metric.high
    assert 0.05 < found.macro_f1.high - found.macro_f1.low < 0.3


def test_the_macro_f1_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 60 samples about 57 intervals hold the figure of the whole population; 48 or fewer would be chance."""
    chances, truths, names = answers(30_000, 6, 2)
    truth = evaluate(chances, truths, names).macro_f1.value
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        rows = random.integers(0, len(truths), 150)
        found = evaluate(chances[rows], truths[rows], names).macro_f1
        covered += found.low <= truth <= found.high
    assert covered > 48


def test_more_photos_narrow_the_intervals() -> None:
    few, many = (evaluate(*answers(photos, 6, 4)) for photos in (100, 6400))
    for name in ("top1", "macro_f1"):
        narrow, wide = getattr(many, name), getattr(few, name)
        assert (narrow.high - narrow.low) * 4 < wide.high - wide.low


def test_the_same_answers_give_the_same_figures() -> None:
    assert evaluate(*answers(120, 7, 5)) == evaluate(*answers(120, 7, 5))


def test_no_photos_are_a_value_error() -> None:
    chances, _, names = answers(1, 3, 0)
    with pytest.raises(ValueError, match="no photos"):
        evaluate(chances[:0], np.zeros(0, np.int64), names)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_of_five_nameplates_or_fewer_every_photo_is_in_the_top_five(classes: int) -> None:
    found = evaluate(*answers(50, classes, 6, skill=0))
    assert found.top5.value == 1
    assert found.top1.value < 1


def test_all_right_has_no_confusions_and_f1_of_one() -> None:
    chances = np.eye(6, dtype=np.float32)[[0, 3, 3, 5]]
    found = evaluate(chances, np.array([0, 3, 3, 5]), [*"abcdef"])
    assert not found.confusions
    assert (found.macro_f1.low, found.macro_f1.high) == (1.0, 1.0)
    assert found.log_loss == 0
    assert [row.nameplate for row in found.classes] == ["a", "d", "f"]


def test_a_sure_and_wrong_answer_costs_much_but_not_without_end() -> None:
    found = evaluate(np.eye(2, dtype=np.float32)[[0]], np.array([1]), ["a", "b"])
    assert 20 < found.log_loss < 100
    assert (found.top1.value, found.macro_f1.value) == (0, 0)
