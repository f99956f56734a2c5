"""Weights of members: fitted where it is more than noise, and judged on photos that did not fit them."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.fit.held_out import HeldOutPredictions
from nameplate.fit.weights import averaged, choose_weights, cross_weighted, fit_weights
from nameplate.types import Photo

CLASSES = 5


def member(strength: float, noise: float, seed: int, photos: int = 400) -> HeldOutPredictions:
    """Logits of the true class plus noise; the photos and their classes are the same for every member."""
    classes = np.random.default_rng(0).integers(0, CLASSES, photos)
    logits = np.random.default_rng(seed).normal(0, noise, (photos, CLASSES)).astype(np.float32)
    logits[np.arange(photos), classes] += strength
    named = tuple(Photo(f"{i}.jpg", str(each), sha256=f"{i:064x}") for i, each in enumerate(classes))
    return HeldOutPredictions(named, classes.astype(np.int64), np.arange(photos), logits)


def test_members_that_are_alike_get_equal_weights() -> None:
    found = choose_weights([member(2, 1, 1), member(2, 1, 2)])
    assert found.weights == (0.5, 0.5)
    assert not found.fitted
    assert found.gain is not None
    assert "not better by more than noise" in found.reason


def test_a_member_of_noise_is_left_out() -> None:
    found = choose_weights([member(2, 1, 1), member(0, 1, 2), member(2, 1, 3)])
    assert found.fitted
    assert found.weights[1] == 0
    assert found.weights[0] == pytest.approx(0.5, abs=0.1)
    assert sum(found.weights) == pytest.approx(1)
    assert found.gain is not None
    assert found.gain.significant


def test_few_photos_fit_no_weights() -> None:
    found = choose_weights([member(2, 1, 1, 40), member(0, 1, 2, 40)])
    assert found.weights == (0.5, 0.5)
    assert "only 40 photos" in found.reason


def test_fitted_weights_are_judged_on_photos_that_did_not_fit_them() -> None:
    # With many members of noise, weights that are judged on their own photos would look better than they are.
    members = [member(0, 1, seed, 100) for seed in range(30)]
    y_true = members[0].classes
    logits = np.stack([each.logits for each in members])
    own = np.einsum("m,mnc->nc", fit_weights(logits, y_true), logits)
    own = np.exp(own) / np.exp(own).sum(1, keepdims=True)
    crossed = cross_weighted(members)
    rows = np.arange(100)
    assert np.log(own[rows, y_true]).mean() > np.log(crossed[rows, y_true]).mean()
    assert not choose_weights(members).fitted


def test_the_fit_is_the_least_log_loss() -> None:
    members = [member(2, 1, 1), member(1, 1, 2)]
    logits, y_true = np.stack([each.logits for each in members]), members[0].classes

    def loss(factors: list[float]) -> float:
        mean = np.einsum("m,mnc->nc", np.array(factors), logits)
        return float((np.log(np.exp(mean).sum(1)) - mean[np.arange(len(y_true)), y_true]).mean())

    best = fit_weights(logits, y_true).tolist()
    assert best[0] > best[1] > 0
    for step in (-0.1, 0.1):
        assert loss([best[0] + step, best[1]]) > loss(best)
        assert loss([best[0], best[1] + step]) > loss(best)


def test_the_average_is_that_of_the_logits() -> None:
    one, two = member(2, 1, 1), member(1, 1, 2)
    assert averaged([one, two], (0.25, 0.75)).logits == pytest.approx(0.25 * one.logits + 0.75 * two.logits, abs=1e-5)
