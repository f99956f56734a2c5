"""AUROC and false accepts, compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from nameplate.evaluate.metrics import wilson
from nameplate.evaluate.ood import auroc, separation

SCORES = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@settings(deadline=None)
@given(SCORES, SCORES)
def test_auroc_is_that_of_scikit_learn(known: list[int], strangers: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    truth = [0] * len(known) + [1] * len(strangers)
    theirs = roc_auc_score(truth, known + strangers)
    assert auroc(np.array(known, float), np.array(strangers, float)) == pytest.approx(theirs)


def test_separate_scores_are_separated() -> None:
    random = np.random.default_rng(0)
    known, strangers = random.normal(size=500), random.normal(6, size=80)
    found = separation(known, strangers)
    assert found.strangers == 80
    assert found.auroc.value > 0.999
    assert found.auroc.low <= found.auroc.value <= found.auroc.high <= 1
    assert found.false_accepts.value == 0
    assert found.false_accepts.high < 0.06


def test_perfect_separation_keeps_an_interval() -> None:
    found = separation(np.arange(50.0), np.arange(100.0, 130.0)).auroc
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(wilson(30, 30).low)  # the fewer, and at most their variance


def test_aurocs_interval_is_delongs_in_the_middle() -> None:
    """Variance of E. DeLong and others, 1988, of placements counted by hand."""
    random = np.random.default_rng(3)
    known, strangers = random.normal(size=400), random.normal(0.5, size=300)
    above = (strangers[:, None] > known).astype(float)
    variance = above.mean(1).var(ddof=1) / 300 + above.mean(0).var(ddof=1) / 400
    found = separation(known, strangers).auroc
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=0.02)


def test_the_threshold_of_few_known_photos_is_uncertain() -> None:
    """The chances that j of 3 known photos lie below it, times Jeffreys' betas, added up by hand."""
    found = separation(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.5, 2.5, 9.0])).false_accepts
    passed = [0.5, 1.5, 2.5, 3.5]  # midway between those below one known photo and those below the next
    places = np.linspace(0, 1, 100_001)
    under = sum(
        binom.pmf(j, 3, 0.95) * beta.cdf(places, share + 0.5, 4 - share + 0.5) for j, share in enumerate(passed)
    )
    assert found.interval == pytest.approx(tuple(places[np.searchsorted(under, (0.025, 0.975))]), abs=2e-5)


def test_more_known_photos_narrow_the_share_that_passes() -> None:
    random = np.random.default_rng(4)
    few, many = (
        separation(random.normal(size=known), random.normal(1.5, size=400)).false_accepts for known in (50, 5000)
    )
    assert few.high - few.low > 3 * (many.high - many.low)


def test_equal_scores_are_not_separated() -> None:
    random = np.random.default_rng(0)
    found = separation(random.normal(size=2000), random.normal(size=2000))
    assert found.auroc.low < 0.5 < found.auroc.high
    assert found.false_accepts.value == pytest.approx(0.95, abs=0.02)


def test_empty_scores_cannot_be_separated() -> None:
    with pytest.raises(ValueError, match="cannot separate 0"):
        separation(np.zeros(0), np.ones(3))
