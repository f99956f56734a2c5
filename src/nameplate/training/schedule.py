"""How many steps an epoch has, and the learning rate at each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nameplate.fit.recipe import Recipe, Stage


def steps_per_epoch(photos: int, batch: int) -> int:
    """The incomplete last batch is dropped; where there are fewer photos than a batch takes, the one is all of them."""
    return max(1, photos // batch)


def learning_rate_now(recipe: Recipe, photos: int, stage: int, step: int) -> float:
    """The rate of the backbone's last layer with `step` steps of this stage done, where `photos` train."""
    return learning_rate(recipe.stages, stage, step, [steps_per_epoch(photos, s.batch) for s in recipe.stages])


def learning_rate(stages: Sequence[Stage], number: int, step: int, steps_per_epoch: Sequence[int]) -> float:
    """The rate of the backbone's last layer.

    Args:
        stages: all of them.
        number: of the stage.
        step: done in this stage.
        steps_per_epoch: of each stage.
    """
    stage = stages[number]
    rate = stage.learning_rate
    warmup = stage.warmup * steps_per_epoch[number]
    if step < warmup:
        rate *= (step + 1) / (warmup + 1)
    if stage.schedule == "exponential":
        return rate * math.pow(stage.decay, step / stage.decay_steps)
    if stage.schedule == "constant":
        return rate
    first, last = number, number  # the run of consecutive cosine stages
    while first > 0 and stages[first - 1].schedule == "cosine":
        first -= 1
    while last + 1 < len(stages) and stages[last + 1].schedule == "cosine":
        last += 1
    lengths = [stages[i].epochs * steps_per_epoch[i] for i in range(first, last + 1)]
    done = sum(lengths[: number - first]) + step
    return rate * 0.5 * (1 + math.cos(math.pi * done / max(1, sum(lengths))))
