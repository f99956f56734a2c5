"""Results by make, compared with scikit-learn's on the makes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as theirs

from nameplate.evaluate.metrics import by_make

NAMES = ["Audi A4", "audi TT", "BMW X5", "Land Rover LR2", "Лада Веста", "Лада Гранта"]


def test_every_figure_equals_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    y_true = random.integers(0, 5, 300)  # no photo of the last nameplate
    named = np.where(random.random(300) < 0.6, y_true, random.integers(0, 6, 300))
    found = by_make(y_true, named, NAMES)
    make = np.array([0, 0, 1, 2, 3, 3])
    assert found.names == ("Audi", "BMW", "Land Rover", "Лада")
    assert found.top1.value == pytest.approx(theirs.accuracy_score(make[y_true], make[named]))
    assert np.array_equal(found.matrix, theirs.confusion_matrix(make[y_true], make[named]))
    precision, recall, f1, support = theirs.precision_recall_fscore_support(make[y_true], make[named])
    for row in found.results:
        i = found.names.index(row.make)
        assert (row.precision, row.recall, row.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert row.photos == support[i]
        assert row.top1.value == pytest.approx((named == y_true)[make[y_true] == i].mean())
    assert [row.photos for row in found.results] == sorted(support, reverse=True)
    assert {row.make: row.nameplates for row in found.results} == {"Audi": 2, "BMW": 1, "Land Rover": 1, "Лада": 1}


def test_a_make_without_photos_has_no_row() -> None:
    found = by_make(np.array([0, 1]), np.array([0, 2]), NAMES)
    assert [row.make for row in found.results] == ["Audi"]
    assert (found.results[0].top1.value, found.top1.value) == (0.5, 0.5)
