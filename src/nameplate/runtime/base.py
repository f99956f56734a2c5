"""What every runtime has in common: batches of model inputs in, embeddings out, and how their time is measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError
from nameplate.images.parallel import ordered_map
from nameplate.types import Floats

Batch = NDArray[np.uint8]
"""Model inputs, uint8 N×H×W×3."""
Embedding = Floats
"""Embeddings of a batch, float32 N×D."""

BATCH = 8
"""Largest batch, in model inputs. On CPUs the activations of small batches stay in the cache (docs/benchmarks.md)."""
OUTPUTS = ("embedding", "map")
"""Names of a backbone's outputs: float32 N×D and, in many backbones, the embedding of each place, float32 N×h×w×D."""


class Runtime(Protocol):
    """Runs one backbone."""

    @property
    def name(self) -> str:
        """One of `select.RUNTIMES`."""
        ...

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        """Embed batches, in order: uint8 N×H×W×3, N ≤ `BATCH`, to float32 N×D."""
        ...


@dataclass(frozen=True, slots=True)
class Batching:
    """How model inputs are grouped for a runtime. It changes the speed and never the embeddings."""

    batch: int = BATCH
    """Model inputs in one call, at most `BATCH`."""
    streams: int = 1
    """Batches computed side by side, each on its share of the processors."""


def side_by_side(
    run: Callable[[Batch], Embedding], batches: Iterable[Batch], batch: int, streams: int
) -> Iterator[Embedding]:
    """Apply `run` to batches in several threads; yield the results in order.

    Args:
        run: uint8 N×H×W×3 → float32 N×D; must be safe to call from several threads.
        batches: of any size.
        batch: most model inputs that `run` is given; a larger batch is split.
        streams: threads that call it.
    """
    pieces = (whole[start : start + batch] for whole in batches for start in range(0, len(whole), batch))
    if streams == 1:
        return map(run, pieces)
    return ordered_map(run, pieces, streams, ahead=streams, name="nameplate-infer")


def checked_output(found: object, inputs: int, dimensions: int = 2) -> Floats:
    """Check the form of a backbone's output: a float32 array with one row for each model input.

    Its values are not checked here: one photo with NaN must not fail the others in its batch (`pipeline.embedded`).

    Args:
        found: the output as the runtime returned it.
        inputs: model inputs in the batch.
        dimensions: that the array must have.

    Raises:
        BundleError: the output has another form.
    """
    if not isinstance(found, np.ndarray):
        raise BundleError("The backbone gives a sequence, not an array of numbers.")
    if found.dtype != np.float32:
        raise BundleError(f"The backbone gives {found.dtype}, not float32.")
    if found.ndim != dimensions or len(found) != inputs:
        raise BundleError(
            f"The backbone gives {'×'.join(map(str, found.shape)) or 'one number'} for "
            f"{inputs} photos, not a row for each."
        )
    return found


# Where the time goes: seconds of work by stage ("decode", "infer"), added up over all threads.

Watch = Callable[[str], AbstractContextManager[None]]
"""Called with a stage's name, returns a context manager around the work to measure."""
_NOTHING = nullcontext()


def no_watch(_: str) -> AbstractContextManager[None]:
    """A `Watch` that measures nothing."""
    return _NOTHING


class Stopwatch:
    """A `Watch` that adds up seconds by stage, from any thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure a block, also one that raises an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:  # `+=` on a dict entry is not atomic
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
