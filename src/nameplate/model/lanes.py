"""Batches through a runtime, several side by side, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.images.parallel import ordered_map
from nameplate.types import Floats

Batch = NDArray[np.uint8]
Embedding = Floats

BATCH = 8
"""Photos a batch: on CPUs small batches stay in the cache (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How photos go through a runtime; it changes the time that takes, never the embeddings."""

    batch: int = BATCH
    """Photos at once, `BATCH` at most."""
    streams: int = 1
    """Batches side by side, each on its share of the processors."""


def side_by_side(
    run: Callable[[Batch], Embedding], batches: Iterable[Batch], batch: int, streams: int
) -> Iterator[Embedding]:
    """What `run` makes of batches, in order.

    Args:
        run: uint8 N×H×W×3 → float32 N×D; must bear being called from several threads.
        batches: of any size.
        batch: photos that `run` is given at most: a larger batch is split.
        streams: threads that call it.
    """
    pieces = (whole[start : start + batch] for whole in batches for start in range(0, len(whole), batch))
    if streams == 1:
        return map(run, pieces)
    return ordered_map(run, pieces, streams, ahead=streams, name="nameplate-infer")
