"""The Mahalanobis detector: distances compared with scikit-learn's, storage, hostile tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.model.ood import MahalanobisDetector, fit_detector, fit_whitening, leave_one_out_distances
from nameplate.types import Floats

RANDOM = np.random.default_rng(5)
CLASSES = np.repeat(np.arange(6), 400)


def _photos(random: np.random.Generator, classes: NDArray[np.int64], size: int = 24) -> Floats:
    """Embeddings whose covariance within a class is not the identity: unlike scales, and two strong directions."""
    centres = np.random.default_rng(1).normal(size=(6, size)) * 3
    strong = np.random.default_rng(2).normal(size=(2, size))
    noise = random.normal(size=(len(classes), size)) * np.linspace(0.2, 4, size)
    return (centres[classes] + noise + random.normal(size=(len(classes), 2)) @ strong * 5).astype(np.float32)


def test_distances_are_mahalanobis_to_the_nearest_class() -> None:
    """With every direction kept the map is exact, and scikit-learn's distances are ours but for a constant."""
    from sklearn.covariance import EmpiricalCovariance

    train, test = _photos(RANDOM, CLASSES), _photos(RANDOM, CLASSES[::40])
    known = fit_detector(train, CLASSES)
    means = np.stack([train[c == CLASSES].mean(0) for c in range(6)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(train - means[CLASSES])
    theirs = np.stack([covariance.mahalanobis(test - mean) for mean in means]).min(0) / train.shape[1]
    near, cars = known.distances(test)
    np.testing.assert_allclose(near, theirs, rtol=0.1)
    assert np.corrcoef(near, theirs)[0, 1] > 0.999
    assert cars is near


def test_the_whitening_transform_makes_all_variances_equal() -> None:
    train = _photos(RANDOM, CLASSES)
    mapped = fit_whitening(train, CLASSES)(train)
    within = mapped - np.stack([mapped[c == CLASSES].mean(0) for c in range(6)])[CLASSES]
    values = np.linalg.eigvalsh(np.cov(within.T))
    assert values.min() > 0.7
    assert values.max() < 1.4


def test_an_ood_sample_is_farther_than_known_ones() -> None:
    known = fit_detector(_photos(RANDOM, CLASSES), CLASSES)
    belongs, _ = known.distances(_photos(RANDOM, CLASSES[::40]))
    strange, _ = known.distances(RANDOM.normal(size=(50, 24)).astype(np.float32) * 20)
    assert strange.min() > belongs.max()
    assert 0.7 < np.median(belongs) < 1.4


def test_a_stored_detector_is_loaded_bit_for_bit() -> None:
    parent = fit_detector(_photos(RANDOM, CLASSES), CLASSES)
    known = fit_detector(_photos(RANDOM, CLASSES % 3), CLASSES % 3, parent)
    again = MahalanobisDetector.of(known.tensors, 24, 3)
    assert again.backbone_class_means is not None
    for name, tensor in known.tensors.items():
        assert np.array_equal(tensor, again.tensors[name]), name
    photos = _photos(RANDOM, CLASSES[::40])
    for one, two in zip(known.distances(photos), again.distances(photos), strict=True):
        assert np.array_equal(one, two)


def test_a_head_on_a_backbone_keeps_the_backbones_cars() -> None:
    parent = fit_detector(_photos(RANDOM, CLASSES), CLASSES)
    few = CLASSES % 2
    known = fit_detector(_photos(RANDOM, few), few, parent)
    photos = _photos(RANDOM, np.full(20, 5))  # of a class that only the backbone knows
    near, cars = known.distances(photos)
    assert np.allclose(cars, parent.distances(photos)[0])
    assert (near > cars).all()
    own, nearest_car = known.distances(_photos(RANDOM, few[:20]))
    assert (nearest_car <= own).all()
    grandchild = fit_detector(_photos(RANDOM, few), few, known)
    assert np.array_equal(grandchild.distances(photos)[1], cars)


def test_leave_one_out_distances_exclude_each_photo_from_its_mean() -> None:
    classes = np.repeat(np.arange(3), 4)
    photos = _photos(RANDOM, classes)
    parent = fit_detector(_photos(RANDOM, CLASSES), CLASSES)
    known = fit_detector(photos, classes, parent)
    found = leave_one_out_distances(known, photos, classes)
    for place in range(len(classes)):
        kept = np.arange(len(classes)) != place
        without = fit_detector(photos[kept], classes[kept], parent)
        assert found[place] == pytest.approx(without.distances(photos[place : place + 1])[0][0], rel=0.02)
    alone = leave_one_out_distances(fit_detector(photos[::4], np.arange(3), parent), photos[::4], np.arange(3))
    assert np.isfinite(alone).all()  # then the next nameplate is the nearest


def test_one_photo_per_class_and_identical_photos_are_no_error() -> None:
    for photos, classes in (
        (_photos(RANDOM, np.arange(6)), np.arange(6)),
        (np.repeat(_photos(RANDOM, np.arange(2)), 3, axis=0), np.repeat(np.arange(2), 3)),
        (np.ones((4, 24), np.float32), np.repeat(np.arange(2), 2)),
    ):
        near, _ = fit_detector(photos, classes).distances(photos)
        assert np.isfinite(near).all()
        assert near.max() < 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean", lambda part: part[:-1]),
        ("directions", lambda part: part.T),
        ("centres", lambda part: part[:, :-1]),
        ("centres", lambda part: part * np.nan),
        ("scale", lambda part: part * 0),
        ("scale", lambda part: -part),
        ("shares", lambda part: part[None]),
        ("cars", lambda part: part[:0]),
        ("cars", lambda part: part.ravel()),
        ("mean", lambda part: part + np.inf),
    ],
)
def test_impossible_tensors_are_refused(name: str, change: Any) -> None:
    parent = fit_detector(_photos(RANDOM, CLASSES), CLASSES)
    tensors = fit_detector(_photos(RANDOM, CLASSES), CLASSES, parent).tensors
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=r"is \(|not finite|not above 0"):
        MahalanobisDetector.of(tensors, 24, 6)
    del tensors["scale"]
    with pytest.raises(KeyError):
        MahalanobisDetector.of(tensors, 24, 6)


def test_a_gate_is_stored_and_inherited() -> None:
    gate = RANDOM.normal(size=25).astype(np.float32)
    parent = replace(fit_detector(_photos(RANDOM, CLASSES), CLASSES), gate=gate)
    again = MahalanobisDetector.of(parent.tensors, 24, len(parent.class_means))
    child = fit_detector(_photos(RANDOM, CLASSES), CLASSES, again)
    photos = _photos(RANDOM, CLASSES[:5])
    odds = child.non_car_log_odds(photos)
    assert odds is not None
    assert odds == pytest.approx(photos @ gate[:-1] + gate[-1], rel=1e-4, abs=1e-4)
    assert fit_detector(photos, CLASSES[:5]).non_car_log_odds(photos) is None
    with pytest.raises(ValueError, match="'gate' is"):
        MahalanobisDetector.of(parent.tensors | {"gate": gate[:-1]}, 24, len(parent.class_means))
