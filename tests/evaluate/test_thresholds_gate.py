"""The gate that separates cars from other things, and its threshold."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.evaluate.thresholds import OTHERS_PASSED, fit_gate, in_calibration_half
from nameplate.model.model import Model
from nameplate.storage import sha256
from nameplate.types import Floats


def _drawn(count: int, shift: float, seed: int) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(count, 12))
    rows[:, :3] += shift
    return rows.astype(np.float32)


def test_other_things_pass_at_the_chosen_rate_and_cars_are_kept() -> None:
    cars, others = _drawn(600, 0, 0), _drawn(400, 2.5, 1)
    gate, cut = fit_gate(cars, others, (np.arange(600), np.arange(400)))
    assert gate.shape == (13,)
    fresh_cars, fresh_others = (rows @ gate[:-1] + gate[-1] for rows in (_drawn(2000, 0, 2), _drawn(2000, 2.5, 3)))
    assert np.mean(fresh_others <= cut) == pytest.approx(OTHERS_PASSED, abs=0.02)
    assert np.mean(fresh_cars > cut) < 0.03


def test_a_gate_needs_both() -> None:
    with pytest.raises(ValueError, match="0 of other things"):
        fit_gate(_drawn(5, 0, 0), _drawn(0, 0, 0), (np.arange(5), np.arange(0)))


def test_half_of_all_photos_choose_the_thresholds() -> None:
    assert np.mean([in_calibration_half(sha256(bytes([i, j]))) for i in range(50) for j in range(50)]) == pytest.approx(
        0.5, abs=0.05
    )


def test_the_shipped_bundle_has_a_gate() -> None:
    bundle = Model.load("cars196").bundle
    assert bundle.ood_detector is not None
    assert bundle.ood_detector.gate is not None
    assert bundle.manifest.thresholds.no_car is not None
