"""What makes training fast here: memory that is kept, and the precision that is measured to be faster."""

from __future__ import annotations

import copy
import ctypes
import time

import torch
from torch.nn import functional

from nameplate.training.network import Network, depthwise_in_float32, learn

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
    learn(trial)
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
