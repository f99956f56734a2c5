"""Thresholds: conformal sets held against MAPIE, and what they promise on photos that chose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.evaluation.thresholds import CARS_KEPT, KEPT, MIN_NEAR, choose, least, least_delivered
from nameplate.models.verdict import COVERAGE, Thresholds, caught, in_set, strangeness

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


def test_sets_are_cut_by_all_photos_and_by_those_that_pass_the_gates_whichever_is_lower() -> None:
    of_truth = np.linspace(0.99, 0.01, 99, dtype=np.float32)
    chances, truths = np.stack([of_truth, 1 - of_truth], 1), np.zeros(99, np.int64)
    everything = np.ones(99, np.bool_)
    assert least_delivered(chances, truths, everything) == pytest.approx(0.05)  # the 95th of 99
    easy_stopped, hard_stopped = everything.copy(), everything.copy()
    easy_stopped[:20] = False
    hard_stopped[-20:] = False
    # of the 79 that pass the 76th is taken, and it is the 96th of all; without the hard ones it would be the 76th
    assert least_delivered(chances, truths, easy_stopped) == pytest.approx(0.04)
    assert least_delivered(chances, truths, hard_stopped) == pytest.approx(0.05)
    assert least(chances[hard_stopped], truths[hard_stopped]) == pytest.approx(0.24)


def _photos(
    count: int, random: np.random.Generator, gated: str
) -> tuple[
    NDArray[np.float32], NDArray[np.int64], tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]
]:
    """Calibrated answers, distances that go with doubt or with sureness, and odds of a gate."""
    sure = random.random(count) < 0.22
    chances = random.dirichlet(np.full(5, 0.3), count).astype(np.float32)
    chances[sure] = 0.0005
    chances[sure, random.integers(0, 5, sure.sum())] = 0.998
    truths = (random.random(count)[:, None] > chances.astype(np.float64).cumsum(1)[:, :-1]).sum(1)
    near = (random.gamma(9, 0.1, count) + np.where(sure, 3, 0)).astype(np.float32)
    stopped = sure & (random.random(count) < 0.9) if gated == "sure" else chances.max(1) < 0.4
    return chances, truths.astype(np.int64), (near, near), np.where(stopped, 3, -3).astype(np.float32)


def test_photos_that_a_gate_stops_choose_no_sets_of_what_passes() -> None:
    chances, truths, distances, odds = _photos(2000, np.random.default_rng(2), "sure")
    found = choose(chances, truths, MAKES, distances, 9.0, 0.0, odds)
    passed = ~np.logical_or(*caught(chances, distances, odds, found))
    assert found.nameplate is not None
    assert found.nameplate == pytest.approx(least(chances[passed], truths[passed]))
    assert found.nameplate < least(chances, truths)


@pytest.mark.slow
@pytest.mark.parametrize("gated", ["doubtful", "sure"])
@pytest.mark.parametrize("photos", [60, 200, 1000])
def test_sets_hold_the_truth_of_fresh_photos_that_pass_the_gates_as_often_as_promised(gated: str, photos: int) -> None:
    random = np.random.default_rng(photos)
    held, delivered, kept = [], [], []
    for _ in range(300):
        found = choose(*_given(_photos(photos, random, gated)))
        assert found.nameplate is not None
        chances, truths, distances, odds = _photos(1000, random, gated)
        passed = ~np.logical_or(*caught(chances, distances, odds, found))
        inside = chances[np.arange(1000), truths] >= found.nameplate
        inside |= chances.argmax(1) == truths
        held.append(inside[passed].mean())
        delivered.append((inside & passed).mean())
        kept.append(passed.mean())
    assert np.mean(held) >= COVERAGE - 0.005
    assert np.mean(delivered) >= COVERAGE * np.mean(kept) - 0.005


def _given(
    photos: tuple[
        NDArray[np.float32], NDArray[np.int64], tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]
    ],
) -> tuple[
    NDArray[np.float32],
    NDArray[np.int64],
    tuple[str, ...],
    tuple[NDArray[np.float32], NDArray[np.float32]],
    float,
    float,
    NDArray[np.float32],
]:
    """What `choose` is given."""
    chances, truths, distances, odds = photos
    return chances, truths, MAKES, distances, 9.0, 0.0, odds
