"""Calibration compared with scikit-learn's bins, and its interval with simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from nameplate.evaluate.calibration import BINS, MIN_CALIBRATION, calibrate, fit_temperatures
from nameplate.model.classifier import log_loss, probabilities
from nameplate.types import Floats


def sure(photos: int, seed: int, boast: float = 1.0) -> tuple[Floats, NDArray[np.bool_]]:
    """Confidences, and whether the answers are right: as often as said where `boast` is 1, else less often."""
    random = np.random.default_rng(seed)
    logits = random.normal(2.2, 1.8, photos)
    confidence = np.maximum(1 / (1 + np.exp(-boast * logits)), 0.05)
    return confidence.astype(np.float32), random.random(photos) < 1 / (1 + np.exp(-logits))


def test_the_bins_are_those_of_scikit_learn_with_equal_numbers() -> None:
    confidence, right = sure(3000, 0, 1.4)
    found = calibrate(confidence, right)
    shares, means = calibration_curve(right, confidence.astype(np.float64), n_bins=BINS, strategy="quantile")
    assert [each.confidence for each in found.bins] == pytest.approx(means.tolist(), abs=1e-6)
    assert [each.right.value for each in found.bins] == pytest.approx(shares.tolist(), abs=1e-9)
    sizes = np.array([each.photos for each in found.bins])
    assert sizes.sum() == 3000
    assert found.ece.value == pytest.approx(float((sizes * np.abs(shares - means)).sum() / 3000), abs=1e-6)


@pytest.mark.parametrize(("boast", "photos"), [(1.0, 600), (1.5, 600), (2.5, 120)])
def test_the_interval_contains_the_error_of_a_huge_sample(boast: float, photos: int) -> None:
    """Of 30 samples about 27 or more intervals hold it; 22 or fewer would be chance."""
    logits = np.random.default_rng(1).normal(2.2, 1.8, 200_000)
    truth, said = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-boast * logits))
    error = float(np.abs(truth - np.maximum(said, 0.05)).mean())
    if boast == 1:
        error = 0.0
    held = [calibrate(*sure(photos, seed, boast)).ece for seed in range(30)]
    assert sum(each.low <= error <= each.high for each in held) > 22


def test_calibrated_confidences_are_within_chance_and_overconfident_ones_are_not() -> None:
    honest, boasting = calibrate(*sure(2000, 2)), calibrate(*sure(2000, 2, 2.5))
    assert honest.by_chance.low < honest.ece.value < honest.by_chance.high
    assert honest.ece.low == 0
    assert boasting.ece.low > boasting.by_chance.high


def test_copies_of_one_image_widen_the_interval() -> None:
    confidence, right = sure(400, 3, 2.5)
    confidence, right = np.repeat(confidence, 4), np.repeat(right, 4)
    alone, grouped = calibrate(confidence, right), calibrate(confidence, right, np.repeat(np.arange(400), 4))
    assert grouped.ece.value == alone.ece.value
    assert grouped.ece.high - grouped.ece.low > 1.5 * (alone.ece.high - alone.ece.low)


def test_one_photo_and_equal_confidences_are_one_bin() -> None:
    [only] = calibrate(np.array([0.75], np.float32), np.array([True])).bins
    assert (only.photos, only.confidence, only.right.value) == (1, 0.75, 1)
    equal = calibrate(np.full(100, 0.5, np.float32), np.arange(100) < 80)
    assert len(equal.bins) == 1
    assert equal.ece.value == pytest.approx(0.3)


def test_no_photos_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="no photos"):
        calibrate(np.zeros(0, np.float32), np.zeros(0, np.bool_))


def test_each_runtime_gets_the_temperature_of_its_own_logits() -> None:
    random = np.random.default_rng(4)
    classes = random.integers(0, 5, 20_000)
    logits = random.normal(size=(20_000, 5)).astype(np.float32)
    logits[np.arange(20_000), classes] += 1.5
    few = MIN_CALIBRATION - 1
    found = fit_temperatures({"a": (logits, classes), "b": (4 * logits, classes), "few": (logits[:few], classes[:few])})
    assert set(found) == {"a", "b"}
    sure = np.eye(5, dtype=np.float32)[classes] * 9
    assert fit_temperatures({"all right": (sure, classes)}) == {}
    assert found["b"] == pytest.approx(4 * found["a"], rel=1e-2)
    best = log_loss(probabilities(logits, found["a"]), classes)
    assert all(best <= log_loss(probabilities(logits, found["a"] * factor), classes) for factor in (0.9, 1.1))
