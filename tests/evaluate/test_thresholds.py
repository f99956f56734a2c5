"""Thresholds: prediction sets compared with MAPIE's, and their coverage on photos that chose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluate.thresholds import (
    CARS_KEPT,
    KEPT,
    MIN_NEAR,
    choose_thresholds,
    conformal_threshold,
    selection_conditional_threshold,
)
from nameplate.model.verdict import COVERAGE, Thresholds, gated, ood_score, prediction_set
from nameplate.types import Floats

MAKES = ("BMW", "BMW", "Audi", "Audi", "Kia")


def _answers(count: int, seed: int = 0, classes: int = 5) -> tuple[Floats, NDArray[np.int64]]:
    """Calibrated answers: the truth is drawn from the probabilities."""
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.full(classes, 0.3), count).astype(np.float32)
    return probs, np.array([random.choice(classes, p=row / row.sum()) for row in probs.astype(np.float64)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_prediction_sets_equal_those_of_mapie(coverage: float) -> None:
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Fixed(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is read as Any
        """Its photos are their probabilities."""

        def fit(self, rows: Floats, y_true: NDArray[np.int64]) -> Fixed:
            self.classes_, self.n_features_in_, self.is_fitted_ = np.unique(y_true), rows.shape[1], True
            return self

        def predict_proba(self, rows: Floats) -> Floats:
            return rows

        def predict(self, rows: Floats) -> NDArray[np.int64]:
            return np.asarray(rows.argmax(1))

    probs, y_true = _answers(300)
    fresh, _ = _answers(200, seed=1)
    theirs = SplitConformalClassifier(
        Fixed().fit(probs, y_true), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(probs, y_true)
    _, sets = theirs.predict_set(fresh)
    cut = conformal_threshold(probs, y_true, coverage)
    for row, theirs_of_row in zip(fresh, sets[:, :, 0], strict=True):
        ours = set(prediction_set(row, cut))
        assert ours == set(np.flatnonzero(theirs_of_row).tolist()) or (not theirs_of_row.any() and len(ours) == 1)


def test_prediction_sets_reach_their_coverage_on_new_photos() -> None:
    held = [
        np.mean(
            [truth in prediction_set(row, cut) for row, truth in zip(*_answers(300, seed=1000 + seed), strict=True)]
        )
        for seed in range(40)
        for cut in [conformal_threshold(*_answers(200, seed=seed), 0.9)]
    ]
    assert np.mean(held) >= 0.895


def test_with_too_few_photos_a_set_contains_every_class() -> None:
    probs, y_true = _answers(10)
    assert conformal_threshold(probs, y_true) == 0.0
    assert len(prediction_set(probs[0], 0.0)) == 5
    assert choose_thresholds(probs, y_true, MAKES, None, far=2.0) == Thresholds(far=2.0)


def test_known_cars_are_kept() -> None:
    probs, y_true = _answers(2000)
    random = np.random.default_rng(3)
    near, cars = (random.gamma(9, 0.1, 2000).astype(np.float32) for _ in range(2))
    found = choose_thresholds(probs, y_true, MAKES, (near, cars))
    assert found.photos == 2000
    assert found.near is not None
    assert found.far is not None
    assert np.mean(ood_score(near, probs, found) <= found.near) == pytest.approx(KEPT, abs=0.002)
    assert np.mean(cars <= found.far) == pytest.approx(CARS_KEPT, abs=0.002)
    assert (found.middle, found.spread) == pytest.approx(
        (np.median(near), np.subtract(*np.quantile(near, [0.75, 0.25])))
    )
    assert choose_thresholds(probs, y_true, MAKES, (near, cars), far=7.5).far == 7.5


def test_makes_have_a_threshold_of_their_own() -> None:
    probs, y_true = _answers(1000)
    found = choose_thresholds(probs, y_true, MAKES, None)
    assert found.make is not None
    assert found.nameplate is not None
    of_makes = np.stack([probs[:, :2].sum(1), probs[:, 2:4].sum(1), probs[:, 4]], 1)
    assert found.make == pytest.approx(conformal_threshold(of_makes, np.array([0, 0, 1, 1, 2])[y_true]), rel=1e-5)


def test_a_nameplate_of_one_photo_does_not_affect_the_others() -> None:
    probs, y_true = _answers(100)
    near = np.ones(100, np.float32)
    near[::2] = 2
    near[5] = np.inf
    found = choose_thresholds(probs, y_true, MAKES, (near, near))
    assert found.usable
    assert found.near is not None


def test_twelve_photos_give_a_distance_threshold_and_fewer_give_none() -> None:
    probs, y_true = _answers(12)
    near = np.linspace(1, 2, 12, dtype=np.float32)
    found = choose_thresholds(probs, y_true, MAKES, (near, near), far=4.0)
    assert (found.nameplate, found.make, found.far) == (None, None, 4.0)
    assert found.near == pytest.approx(ood_score(near, probs, found).max())  # of 12 the farthest
    near[MIN_NEAR - 1 :] = np.inf  # these are alone in their class
    assert choose_thresholds(probs, y_true, MAKES, (near, near), far=4.0) == Thresholds(far=4.0)


def test_the_promised_share_of_new_known_cars_is_kept() -> None:
    random = np.random.default_rng(8)
    for photos, promised in ((12, 12 / 13), (30, KEPT), (200, KEPT)):
        kept = []
        for _ in range(300):
            probs = np.full((photos + 200, 2), 0.5, np.float32)
            near = random.gamma(9, 0.1, photos + 200).astype(np.float32)
            some = slice(0, photos)
            found = choose_thresholds(
                probs[some], np.zeros(photos, np.int64), MAKES[:2], (near[some], near[some]), far=9.0
            )
            assert found.near is not None
            kept.append(np.mean(ood_score(near[photos:], probs[photos:], found) <= found.near))
        assert promised - 0.01 <= np.mean(kept) <= promised + 0.03


def test_the_threshold_of_sets_is_the_lower_of_all_photos_and_of_those_that_pass() -> None:
    of_truth = np.linspace(0.99, 0.01, 99, dtype=np.float32)
    probs, y_true = np.stack([of_truth, 1 - of_truth], 1), np.zeros(99, np.int64)
    everything = np.ones(99, np.bool_)
    assert selection_conditional_threshold(probs, y_true, everything) == pytest.approx(0.05)  # the 95th of 99
    easy_stopped, hard_stopped = everything.copy(), everything.copy()
    easy_stopped[:20] = False
    hard_stopped[-20:] = False
    # of the 79 that pass the 76th is taken, and it is the 96th of all; without the hard ones it would be the 76th
    assert selection_conditional_threshold(probs, y_true, easy_stopped) == pytest.approx(0.04)
    assert selection_conditional_threshold(probs, y_true, hard_stopped) == pytest.approx(0.05)
    assert conformal_threshold(probs[hard_stopped], y_true[hard_stopped]) == pytest.approx(0.24)


def _photos(
    count: int, random: np.random.Generator, gated: str
) -> tuple[Floats, NDArray[np.int64], tuple[Floats, Floats], Floats]:
    """Calibrated answers, distances that go with doubt or with sureness, and odds of a gate."""
    sure = random.random(count) < 0.22
    probs = random.dirichlet(np.full(5, 0.3), count).astype(np.float32)
    probs[sure] = 0.0005
    probs[sure, random.integers(0, 5, sure.sum())] = 0.998
    y_true = (random.random(count)[:, None] > probs.astype(np.float64).cumsum(1)[:, :-1]).sum(1)
    near = (random.gamma(9, 0.1, count) + np.where(sure, 3, 0)).astype(np.float32)
    stopped = sure & (random.random(count) < 0.9) if gated == "sure" else probs.max(1) < 0.4
    return probs, y_true.astype(np.int64), (near, near), np.where(stopped, 3, -3).astype(np.float32)


def test_photos_that_a_gate_stops_do_not_change_the_sets_of_others() -> None:
    probs, y_true, distances, odds = _photos(2000, np.random.default_rng(2), "sure")
    found = choose_thresholds(probs, y_true, MAKES, distances, 9.0, 0.0, odds)
    passed = ~np.logical_or(*gated(probs, distances, odds, found))
    assert found.nameplate is not None
    assert found.nameplate == pytest.approx(conformal_threshold(probs[passed], y_true[passed]))
    assert found.nameplate < conformal_threshold(probs, y_true)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["doubtful", "sure"])
@pytest.mark.parametrize("photos", [60, 200, 1000])
def test_prediction_sets_reach_their_coverage_on_new_photos_that_pass(kind: str, photos: int) -> None:
    random = np.random.default_rng(photos)
    held, delivered, kept = [], [], []
    for _ in range(300):
        found = choose_thresholds(*_given(_photos(photos, random, kind)))
        assert found.nameplate is not None
        probs, y_true, distances, odds = _photos(1000, random, kind)
        passed = ~np.logical_or(*gated(probs, distances, odds, found))
        inside = probs[np.arange(1000), y_true] >= found.nameplate
        inside |= probs.argmax(1) == y_true
        held.append(inside[passed].mean())
        delivered.append((inside & passed).mean())
        kept.append(passed.mean())
    assert np.mean(held) >= COVERAGE - 0.005
    assert np.mean(delivered) >= COVERAGE * np.mean(kept) - 0.005


def _given(
    photos: tuple[Floats, NDArray[np.int64], tuple[Floats, Floats], Floats],
) -> tuple[
    Floats,
    NDArray[np.int64],
    tuple[str, ...],
    tuple[Floats, Floats],
    float,
    float,
    Floats,
]:
    """What `choose` is given."""
    probs, y_true, distances, odds = photos
    return probs, y_true, MAKES, distances, 9.0, 0.0, odds
