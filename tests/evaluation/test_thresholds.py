"""Thresholds: conformal sets held against MAPIE, and what they promise on photos that chose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluation.thresholds import CARS_KEPT, KEPT, MIN_NEAR, choose, least
from nameplate.models.verdict import Thresholds, in_set, strangeness

MAKES = ("BMW", "BMW", "Audi", "Audi", "Kia")


def _answers(count: int, seed: int = 0, classes: int = 5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Calibrated answers: the truth is drawn from the probabilities."""
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.full(classes, 0.3), count).astype(np.float32)
    return chances, np.array([random.choice(classes, p=row / row.sum()) for row in chances.astype(np.float64)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_are_those_of_mapie(coverage: float) -> None:
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Fixed(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is read as Any
        """Its photos are their probabilities."""

        def fit(self, rows: NDArray[np.float32], truths: NDArray[np.int64]) -> Fixed:
            self.classes_, self.n_features_in_, self.is_fitted_ = np.unique(truths), rows.shape[1], True
            return self

        def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
            return rows

        def predict(self, rows: NDArray[np.float32]) -> NDArray[np.int64]:
            return np.asarray(rows.argmax(1))

    chances, truths = _answers(300)
    fresh, _ = _answers(200, seed=1)
    theirs = SplitConformalClassifier(
        Fixed().fit(chances, truths), confidence_level=coverage, conformity_score="lac", prefit=True
    ).conformalize(chances, truths)
    _, sets = theirs.predict_set(fresh)
    cut = least(chances, truths, coverage)
    for row, theirs_of_row in zip(fresh, sets[:, :, 0], strict=True):
        ours = set(in_set(row, cut))
        assert ours == set(np.flatnonzero(theirs_of_row).tolist()) or (not theirs_of_row.any() and len(ours) == 1)


def test_sets_hold_the_truth_of_fresh_photos_as_often_as_promised() -> None:
    held = [
        np.mean([truth in in_set(row, cut) for row, truth in zip(*_answers(300, seed=1000 + seed), strict=True)])
        for seed in range(40)
        for cut in [least(*_answers(200, seed=seed), 0.9)]
    ]
    assert np.mean(held) >= 0.895


def test_too_few_photos_promise_everything() -> None:
    chances, truths = _answers(10)
    assert least(chances, truths) == 0.0
    assert len(in_set(chances[0], 0.0)) == 5
    assert choose(chances, truths, MAKES, None, far=2.0) == Thresholds(far=2.0)


def test_known_cars_are_kept() -> None:
    chances, truths = _answers(2000)
    random = np.random.default_rng(3)
    near, cars = (random.gamma(9, 0.1, 2000).astype(np.float32) for _ in range(2))
    found = choose(chances, truths, MAKES, (near, cars))
    assert found.photos == 2000
    assert found.near is not None
    assert found.far is not None
    assert np.mean(strangeness(near, chances, found) <= found.near) == pytest.approx(KEPT, abs=0.002)
    assert np.mean(cars <= found.far) == pytest.approx(CARS_KEPT, abs=0.002)
    assert (found.middle, found.spread) == pytest.approx(
        (np.median(near), np.subtract(*np.quantile(near, [0.75, 0.25])))
    )
    assert choose(chances, truths, MAKES, (near, cars), far=7.5).far == 7.5


def test_makes_have_a_threshold_of_their_own() -> None:
    chances, truths = _answers(1000)
    found = choose(chances, truths, MAKES, None)
    assert found.make is not None
    assert found.nameplate is not None
    of_makes = np.stack([chances[:, :2].sum(1), chances[:, 2:4].sum(1), chances[:, 4]], 1)
    assert found.make == pytest.approx(least(of_makes, np.array([0, 0, 1, 1, 2])[truths]), rel=1e-5)


def test_a_nameplate_of_one_photo_does_not_spoil_the_others() -> None:
    chances, truths = _answers(100)
    near = np.ones(100, np.float32)
    near[::2] = 2
    near[5] = np.inf
    found = choose(chances, truths, MAKES, (near, near))
    assert found.usable
    assert found.near is not None


def test_a_dozen_photos_say_how_far_a_known_car_may_be_and_fewer_say_nothing() -> None:
    chances, truths = _answers(12)
    near = np.linspace(1, 2, 12, dtype=np.float32)
    found = choose(chances, truths, MAKES, (near, near), far=4.0)
    assert (found.nameplate, found.make, found.far) == (None, None, 4.0)
    assert found.near == pytest.approx(strangeness(near, chances, found).max())  # of 12 the farthest
    near[MIN_NEAR - 1 :] = np.inf  # these are alone in their class
    assert choose(chances, truths, MAKES, (near, near), far=4.0) == Thresholds(far=4.0)


def test_as_many_further_known_cars_are_kept_as_promised() -> None:
    random = np.random.default_rng(8)
    for photos, promised in ((12, 12 / 13), (30, KEPT), (200, KEPT)):
        kept = []
        for _ in range(300):
            chances = np.full((photos + 200, 2), 0.5, np.float32)
            near = random.gamma(9, 0.1, photos + 200).astype(np.float32)
            some = slice(0, photos)
            found = choose(chances[some], np.zeros(photos, np.int64), MAKES[:2], (near[some], near[some]), far=9.0)
            assert found.near is not None
            kept.append(np.mean(strangeness(near[photos:], chances[photos:], found) <= found.near))
        assert promised - 0.01 <= np.mean(kept) <= promised + 0.03
