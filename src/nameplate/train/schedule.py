"""How many steps an epoch has, and the learning rate at each."""

from __future__ import annotations

import copy
import ctypes
import math
import time
from collections.abc import Sequence

import torch
from torch.nn import functional

from nameplate.fit.recipe import Recipe, Stage
from nameplate.train.network import Network, depthwise_in_float32, train_mode


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


# JOINED What makes training fast here: memory that is kept, and the precision that is measured to be faster.


TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""mallopt(3)'s names for its settings."""
GROW = 256 << 20
"""Bytes that the heap grows by at once."""
TRIALS = 4
"""Steps that are timed for each precision."""


def keep_memory() -> bool:
    """Tell glibc's allocator to keep what it has been given; false where there is no glibc.

    By default every large tensor is a mapping of its own, returned when it is freed: half of a training
    step then goes into page faults (docs/benchmarks.md). Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1) and mallopt(TOP_PAD, GROW))


def faster_in_bfloat16(network: Network, device: torch.device, height: int, width: int, batch: int) -> bool:
    """Time some training steps in both precisions and say whether bfloat16 wins.

    Args:
        network: not changed; on a CPU its `depthwise_in_float32` form is what is timed.
        device: where it is to be trained.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        batch: photos a step.
    """
    trial = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        depthwise_in_float32(trial)
    train_mode(trial)
    photos = torch.zeros(batch, height, width, 3, dtype=torch.uint8, device=device)
    classes = torch.zeros(batch, dtype=torch.int64, device=device)
    seconds = {True: float("inf"), False: float("inf")}
    with torch.random.fork_rng():
        for _ in range(TRIALS):
            for bfloat16 in (False, True):
                begun = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    logits = trial(photos)
                loss = functional.cross_entropy(logits.float(), classes)
                loss.backward()
                float(loss.detach())
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[bfloat16] = min(seconds[bfloat16], time.perf_counter() - begun)
                trial.zero_grad(set_to_none=True)
    return seconds[True] < seconds[False]
