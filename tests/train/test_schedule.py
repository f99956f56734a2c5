from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nameplate.fit.recipe import Recipe, Stage
from nameplate.train.schedule import learning_rate, learning_rate_now, steps_per_epoch
from nameplate.types import Doubles

SMALL = Stage(height=32, width=48, epochs=2, batch=16, learning_rate=2e-3)


def rates(stages: tuple[Stage, ...], steps: list[int]) -> Doubles:
    """The rate of every step, stage after stage."""
    every = [(n, step) for n, stage in enumerate(stages) for step in range(stage.epochs * steps[n])]
    return np.array([learning_rate(stages, n, step, steps) for n, step in every])


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1e-3), (1, 9.998946450e-4), (500, 9.486832981e-4), (1000, 9e-4), (2500, 7.684334714e-4), (7000, 4.782969e-4)],
)
def test_the_exponential_schedule_is_keras_exponential_decay(step: int, rate: float) -> None:
    """Values of keras.optimizers.schedules.ExponentialDecay(1e-3, 1000, 0.9), not staircase."""
    stage = replace(SMALL, epochs=80, learning_rate=1e-3, schedule="exponential", decay=0.9, decay_steps=1000)
    assert learning_rate((SMALL, stage), 1, step, [5, 100]) == pytest.approx(rate, rel=1e-9)


def test_the_cosine_runs_on_over_stages_of_other_batches_and_ends_at_zero() -> None:
    stages = tuple(replace(SMALL, epochs=epochs, learning_rate=1.0) for epochs in (4, 3, 2))
    found = rates(stages, [10, 20, 5])
    assert found == pytest.approx(0.5 + 0.5 * np.cos(np.pi * np.arange(110) / 110))
    assert learning_rate(stages, 2, 10, [10, 20, 5]) == pytest.approx(0, abs=1e-12)
    between = (stages[0], replace(stages[1], schedule="constant"), stages[2])
    found = rates(between, [10, 20, 5])
    assert found[0] == found[100] == 1  # each cosine begins at its peak
    assert (found[40:100] == 1).all()
    assert found[39] < 0.01


def test_a_warm_up_rises_evenly_and_then_leaves_the_schedule_alone() -> None:
    plain = replace(SMALL, epochs=3, schedule="constant", learning_rate=0.5)
    found = rates((replace(plain, warmup=1.5),), [8])
    assert found[:12] == pytest.approx(0.5 * np.arange(1, 13) / 13)
    assert (found[12:] == 0.5).all()
    cosine = replace(plain, schedule="cosine")
    warm, cold = rates((replace(cosine, warmup=1),), [8]), rates((cosine,), [8])
    assert (warm[:8] < cold[:8]).all()
    assert (warm[8:] == cold[8:]).all()


@pytest.mark.parametrize(("photos", "batch", "steps"), [(100, 32, 3), (96, 32, 3), (5, 32, 1), (32, 32, 1)])
def test_an_epoch_drops_its_incomplete_last_batch_but_never_the_only_one(photos: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(photos, batch) == steps


def test_the_rate_now_counts_each_stage_with_its_own_batch() -> None:
    recipe = Recipe("r", "", "test_efficientnet", (replace(SMALL, batch=10), replace(SMALL, batch=20)))
    assert learning_rate_now(recipe, 100, 1, 5) == learning_rate(recipe.stages, 1, 5, [10, 5])
