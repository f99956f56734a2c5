"""Metrics compared with scikit-learn's; their intervals compared with theory and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as theirs

from nameplate.evaluate import evaluate
from nameplate.evaluate.metrics import confusion_matrix, effective_wilson, mean_of_shares, share, skewed_mean, wilson
from nameplate.types import Doubles, Floats

Answers = tuple[Floats, NDArray[np.int64], list[str]]


def answers(photos: int, classes: int, seed: int, skill: float = 1.5) -> Answers:
    """Probabilities of a model that is right more often than not, on classes of unequal size."""
    random = np.random.default_rng(seed)
    y_true = np.minimum(random.geometric(0.3, photos) - 1, classes - 1)
    logits = random.normal(size=(photos, classes))
    logits[np.arange(photos), y_true] += skill
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probs.astype(np.float32), y_true, [f"car {number}" for number in range(classes)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(2, 12), st.integers(0, 10_000))
def test_every_figure_equals_that_of_scikit_learn(photos: int, classes: int, seed: int) -> None:
    probs, y_true, names = answers(photos, classes, seed)
    named, labels = probs.argmax(1), np.arange(classes)
    found = evaluate(probs, y_true, names)
    there = np.unique(y_true)
    assert found.photos == photos
    assert found.top1.value == pytest.approx(theirs.accuracy_score(y_true, named))
    assert found.macro_f1.value == pytest.approx(
        theirs.f1_score(y_true, named, labels=there, average="macro", zero_division=0)
    )
    wide = probs.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    assert found.log_loss == pytest.approx(theirs.log_loss(y_true, wide, labels=labels), rel=1e-4)
    if classes > 5:
        expected = theirs.top_k_accuracy_score(y_true, probs, k=5, labels=labels)
        assert found.top5.value == pytest.approx(expected)
    else:
        assert found.top5.value == 1
    matrix = theirs.confusion_matrix(y_true, named, labels=labels)
    assert np.array_equal(confusion_matrix(y_true, named, classes), matrix)
    precision, recall, f1, support = theirs.precision_recall_fscore_support(
        y_true, named, labels=labels, zero_division=0
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
def test_wilsons_interval_contains_its_value_and_stays_within_0_and_1(photos: int, data: st.DataObject) -> None:
    found = wilson(data.draw(st.integers(0, photos)), photos)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_a_figure_with_the_variance_of_a_share_gets_wilsons_interval() -> None:
    assert effective_wilson(0.9, 0.09 / 50, 50, 50).interval == pytest.approx(wilson(45, 50).interval)
    assert effective_wilson(0.9, 0.09 / 25, 500_000, 50).interval == pytest.approx(wilson(22.5, 25).interval, abs=1e-4)
    assert effective_wilson(1.0, 0.0, 50, 20).interval == pytest.approx(wilson(20, 20).interval)


def test_copies_of_one_image_count_as_one_in_top_1() -> None:
    right = np.arange(40) % 8 > 0
    alone, copied = share(right, np.arange(40)), share(np.repeat(right, 5), np.repeat(np.arange(40), 5))
    assert alone.interval == pytest.approx(wilson(35, 40).interval)
    assert copied.interval == pytest.approx(alone.interval, abs=0.01)


def test_the_mean_of_shares_is_newcombes_method() -> None:
    """R. G. Newcombe, Statistics in Medicine 17, 1998, 873, table II, method 10: 56/70 − 48/80 is 0.0524 to 0.3339.

    p₁ − p₂ is p₁ + (1 − p₂) − 1, so twice the mean of 56/70 and 32/80, less 1.
    """
    found = mean_of_shares([56, 32], [70, 80])
    assert [2 * end - 1 for end in found.interval] == pytest.approx([0.0524, 0.3339], abs=6e-5)
    assert mean_of_shares([9, 3], [10, 4]).value == pytest.approx((0.9 + 0.75) / 2)


def test_the_interval_of_a_skewed_mean_is_halls() -> None:
    """His monotone transformation of the Studentised mean, inverted by trying."""
    values = np.random.default_rng(0).exponential(size=40) ** 2
    found = skewed_mean(values)
    deviation = values.std(ddof=1)
    skewness = ((values - values.mean()) ** 3).mean() / deviation**3
    for end, point in zip(found.interval, (2.0227, -2.0227), strict=True):
        away = (values.mean() - end) / deviation
        turned = away + skewness * away**2 / 3 + skewness**2 * away**3 / 27 + skewness / (6 * 40)
        assert np.sqrt(40) * turned == pytest.approx(point, abs=1e-3)
    assert found.high - found.value > 1.3 * (found.value - found.low)
    assert skewed_mean(np.repeat(values, 5), np.repeat(np.arange(40), 5)).interval == pytest.approx(found.interval)


def test_the_mean_of_one_loss_or_of_equal_ones_is_not_known_exactly() -> None:
    for values in (np.array([0.5]), np.full(9, 0.5)):
        assert skewed_mean(values).low < 0.5 < skewed_mean(values).high


def test_the_macro_f1_interval_is_its_linear_approximation() -> None:
    """With many photos the variance is that of the F1s' derivatives, taken numerically."""
    probs, y_true, names = answers(4000, 5, 7)
    named = probs.argmax(1)
    found = evaluate(probs, y_true, names).macro_f1
    matrix = confusion_matrix(y_true, named, 5).astype(np.float64)

    def figure(counts: Doubles) -> float:
        return float((2 * np.diag(counts) / (counts.sum(0) + counts.sum(1))).mean())

    slopes = np.array(
        [
            [(figure(matrix + 1e-3 * np.outer(np.eye(5)[i], np.eye(5)[j])) - figure(matrix)) / 1e-3 for j in range(5)]
            for i in range(5)
        ]
    )
    rows = matrix.sum(1, keepdims=True)
    means = (matrix * slopes).sum(1, keepdims=True) / rows
    error = np.sqrt((matrix * (slopes - means) ** 2).sum())
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error, rel=0.01)


def test_the_intervals_bracket_their_values() -> None:
    found = evaluate(*answers(300, 8, 1))
    for metric in (found.top1, found.top5, found.macro_f1):
        assert metric.low < metric.value < metric.high
    assert 0.05 < found.macro_f1.high - found.macro_f1.low < 0.3


def test_the_macro_f1_interval_covers_the_true_value_about_as_often_as_stated() -> None:
    """Of 60 samples about 57 intervals hold the figure of the whole population; 48 or fewer would be chance."""
    probs, y_true, names = answers(30_000, 6, 2)
    truth = evaluate(probs, y_true, names).macro_f1.value
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        rows = random.integers(0, len(y_true), 150)
        found = evaluate(probs[rows], y_true[rows], names).macro_f1
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
    probs, _, names = answers(1, 3, 0)
    with pytest.raises(ValueError, match="no photos"):
        evaluate(probs[:0], np.zeros(0, np.int64), names)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_with_five_nameplates_or_fewer_every_photo_is_in_the_top_five(classes: int) -> None:
    found = evaluate(*answers(50, classes, 6, skill=0))
    assert found.top5.value == 1
    assert found.top1.value < 1


def test_without_mistakes_there_are_no_confusions_and_f1_is_one() -> None:
    probs = np.eye(6, dtype=np.float32)[[0, 3, 3, 5]]
    found = evaluate(probs, np.array([0, 3, 3, 5]), [*"abcdef"])
    assert not found.confusions
    assert found.macro_f1.value == found.macro_f1.high == 1
    assert 0.2 < found.macro_f1.low < 0.5  # four photos prove little
    assert found.log_loss == 0
    assert [row.nameplate for row in found.classes] == ["a", "d", "f"]


def test_a_confident_wrong_answer_has_a_large_but_finite_loss() -> None:
    found = evaluate(np.eye(2, dtype=np.float32)[[0]], np.array([1]), ["a", "b"])
    assert 20 < found.log_loss < 100
    assert (found.top1.value, found.macro_f1.value) == (0, 0)
