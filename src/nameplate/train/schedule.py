"""The learning-rate schedule, and two settings that make training fast: allocator and precision."""

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
    """Number of steps in an epoch: an incomplete last batch is dropped, but there is at least one step."""
    return max(1, photos // batch)


def learning_rate_now(recipe: Recipe, photos: int, stage: int, step: int) -> float:
    """The learning rate of the backbone's last layer after `step` steps of a stage, with `photos` training photos."""
    return learning_rate(recipe.stages, stage, step, [steps_per_epoch(photos, s.batch) for s in recipe.stages])


def learning_rate(stages: Sequence[Stage], number: int, step: int, steps_per_epoch: Sequence[int]) -> float:
    """The learning rate of the backbone's last layer.

    Args:
        stages: all stages of the recipe.
        number: index of the stage, from 0.
        step: number of steps done in this stage.
        steps_per_epoch: number of steps per epoch of each stage.
    """
    stage = stages[number]
    rate = stage.learning_rate
    warmup = stage.warmup * steps_per_epoch[number]
    if step < warmup:
        # The first step already trains at a rate above 0.
        rate *= (step + 1) / (warmup + 1)
    if stage.schedule == "exponential":
        return rate * math.pow(stage.decay, step / stage.decay_steps)
    if stage.schedule == "constant":
        return rate
    # Consecutive cosine stages share one cosine, so that the rate does not jump up where the input size changes.
    first, last = number, number
    while first > 0 and stages[first - 1].schedule == "cosine":
        first -= 1
    while last + 1 < len(stages) and stages[last + 1].schedule == "cosine":
        last += 1
    lengths = [stages[i].epochs * steps_per_epoch[i] for i in range(first, last + 1)]
    done = sum(lengths[: number - first]) + step
    return rate * 0.5 * (1 + math.cos(math.pi * done / max(1, sum(lengths))))


# Speed: the memory allocator and the precision.

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""The parameters M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX of mallopt(3)."""
GROW = 256 << 20
"""Number of bytes by which the heap grows at once."""
TRIALS = 4
"""Number of timed steps for each precision."""


def keep_memory() -> bool:
    """Make glibc's allocator keep freed memory instead of returning it; false where there is no glibc.

    By default glibc maps each large tensor separately and unmaps it when it is freed. Page faults then take half of
    the time of a training step (docs/benchmarks.md). Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1) and mallopt(TOP_PAD, GROW))


def faster_in_bfloat16(network: Network, device: torch.device, height: int, width: int, batch: int) -> bool:
    """Time training steps in both precisions; whether bfloat16 is the faster one.

    Args:
        network: is copied, not changed; on a CPU, the copy gets `depthwise_in_float32`, as in training.
        device: the device to train on.
        height: height of the model's input in pixels.
        width: width of the model's input in pixels.
        batch: number of photos in each step.
    """
    trial = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        depthwise_in_float32(trial)
    train_mode(trial)
    photos = torch.zeros(batch, height, width, 3, dtype=torch.uint8, device=device)
    classes = torch.zeros(batch, dtype=torch.int64, device=device)
    seconds = {True: float("inf"), False: float("inf")}
    with torch.random.fork_rng():  # dropout must not change the random numbers of the training that follows
        for _ in range(TRIALS):
            for bfloat16 in (False, True):
                begun = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    logits = trial(photos)
                loss = functional.cross_entropy(logits.float(), classes)
                loss.backward()
                float(loss.detach())  # waits for the device
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                # The fastest step counts: the first ones allocate memory, and other programs only slow a step down.
                seconds[bfloat16] = min(seconds[bfloat16], time.perf_counter() - begun)
                trial.zero_grad(set_to_none=True)
    return seconds[True] < seconds[False]
