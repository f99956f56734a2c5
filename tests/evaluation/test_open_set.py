"""AUROC and false accepts, held against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.evaluation.open_set import auroc, separation

SCORES = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@given(SCORES, SCORES)
def test_auroc_is_scikit_learns(known: list[int], strangers: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    truth = [0] * len(known) + [1] * len(strangers)
    theirs = roc_auc_score(truth, known + strangers)
    assert auroc(np.array(known, float), np.array(strangers, float)) == pytest.approx(theirs)


def test_what_lies_apart_is_told_apart() -> None:
    random = np.random.default_rng(0)
    known, strangers = random.normal(size=500), random.normal(6, size=80)
    found = separation(known, strangers)
    assert found.strangers == 80
    assert found.auroc.value > 0.999
    assert found.auroc.low <= found.auroc.value <= found.auroc.high <= 1
    assert found.false_accepts.value == 0
    assert found.false_accepts.high < 0.06


def test_what_is_alike_is_not() -> None:
    random = np.random.default_rng(0)
    found = separation(random.normal(size=2000), random.normal(size=2000))
    assert found.auroc.low < 0.5 < found.auroc.high
    assert found.false_accepts.value == pytest.approx(0.95, abs=0.02)


def test_nothing_cannot_be_separated() -> None:
    with pytest.raises(ValueError, match="cannot separate 0"):
        separation(np.zeros(0), np.ones(3))
