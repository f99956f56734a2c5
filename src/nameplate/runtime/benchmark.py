"""Try runtimes on this machine: whether each works, and which batching is fastest.

Every trial is a process of its own, `python -m nameplate.runtime.benchmark probe|batching FOLDER RUNTIME THREADS`,
because a runtime can take its process down: OpenVINO has died of a floating-point exception on some CPUs
(openvino#35943). FOLDER holds `backbone.onnx` and `photos.npy`, the model inputs to try it on. The process prints a
`ProbeResult` or a `Batching` as JSON. `model/runtime_choice.py` caches the outcomes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from nameplate.runtime.base import BATCH, Batch, Batching, Embedding, Runtime
from nameplate.runtime.openvino import import_openvino
from nameplate.runtime.select import ON_CPU, make_runtime

PROBE_SECONDS = 120
"""A candidate that takes longer than this is not used."""
BATCHING_SECONDS = 5.0
"""After so long no further batching is tried."""
GAIN = 1.05
"""How much faster than the default a batching must be to be chosen: less is noise."""
BACKBONE, INPUTS, REFERENCE = "backbone.onnx", "photos.npy", "reference.npy"
"""Files in the folder of a trial; the last holds ONNX Runtime's embeddings."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How one candidate fared in the probe."""

    runtime: str
    cosine: float = 0.0
    """The least cosine between its embeddings and ONNX Runtime's of the same file."""
    error: str | None = None
    timed_out: bool = False


def probe_runtimes(backbone: bytes, inputs: Batch, threads: int) -> tuple[ProbeResult, ...]:
    """Try every runtime of the CPU, ONNX Runtime first, each in a process of its own.

    Args:
        backbone: the ONNX file.
        inputs: model inputs to embed, uint8 N×H×W×3.
        threads: processors to use.
    """
    results = []
    with _trial_folder(backbone, inputs) as folder:
        for name in ON_CPU:
            try:
                done = _start("probe", folder, name, threads, PROBE_SECONDS)
            except subprocess.TimeoutExpired:
                results.append(ProbeResult(name, error=f"took longer than {PROBE_SECONDS} s", timed_out=True))
                continue
            try:
                # A process that crashed (SIGILL, SIGFPE) has printed nothing; its return code says why.
                results.append(msgspec.json.decode(done.stdout, type=ProbeResult))
            except msgspec.DecodeError:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                results.append(ProbeResult(name, error=f"ended with {done.returncode}: {' '.join(last)}"))
    return tuple(results)


def fastest_batching(backbone: bytes, runtime: str, threads: int, inputs: Batch) -> Batching | None:
    """Time batchings in a process of its own; None where that fails.

    Args:
        backbone: the ONNX file.
        runtime: one of `RUNTIMES`, not `auto`.
        threads: processors to use.
        inputs: model inputs to embed, uint8 N×H×W×3.
    """
    with _trial_folder(backbone, inputs) as folder:
        try:
            done = _start("batching", folder, runtime, threads, 12 * BATCHING_SECONDS)
            return msgspec.json.decode(done.stdout, type=Batching)
        except (subprocess.TimeoutExpired, msgspec.DecodeError):
            return None


@contextmanager
def _trial_folder(backbone: bytes, inputs: Batch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / BACKBONE).write_bytes(backbone)
        np.save(folder / INPUTS, inputs)
        yield folder


def _start(what: str, folder: Path, runtime: str, threads: int, timeout: float) -> subprocess.CompletedProcess[bytes]:
    # -P: the working folder may hold anything, so nothing is imported from it.
    command = [sys.executable, "-P", "-m", "nameplate.runtime.benchmark", what, str(folder), runtime, str(threads)]
    return subprocess.run(command, capture_output=True, timeout=timeout, check=False)


# What the process itself does.


def main() -> None:
    """Run one trial, print its outcome as JSON."""
    what, folder, runtime, threads = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    outcome = (_probe if what == "probe" else _time_batchings)(folder, runtime, threads)
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


def _probe(folder: Path, name: str, threads: int) -> ProbeResult:
    """Compare one runtime's embeddings with ONNX Runtime's, which is tried first and leaves its own in the folder."""
    if name.endswith("bf16"):
        able = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in able:
            return ProbeResult(name, error="this CPU does not compute in bfloat16")
    runtime = make_runtime(name, (folder / BACKBONE).read_bytes(), threads)
    embedding = _embed(runtime, np.load(folder / INPUTS))
    if name == "onnxruntime":
        np.save(folder / REFERENCE, embedding)
    return ProbeResult(name, _least_cosine(embedding, np.load(folder / REFERENCE)))


def _embed(runtime: Runtime, inputs: Batch) -> Embedding:
    return np.concatenate(list(runtime.embed(inputs[i : i + BATCH] for i in range(0, len(inputs), BATCH))))


def _least_cosine(a: Embedding, b: Embedding) -> float:
    # The least and not the mean: one wrong embedding among good ones must not pass.
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(norms, 1e-12)
    return float(cosine.min()) if np.isfinite(a).all() else -1.0


def candidates(threads: int) -> Iterator[Batching]:
    """The batchings to time, the default first."""
    yield Batching(BATCH, threads)
    for batch in (2, 1, 4):
        yield Batching(batch, threads)
    if threads > 1:
        yield Batching(BATCH, max(1, threads // 2))


def _time_batchings(folder: Path, runtime: str, threads: int) -> Batching:
    backbone, inputs = (folder / BACKBONE).read_bytes(), np.load(folder / INPUTS)
    end, best, least = time.monotonic() + BATCHING_SECONDS, Batching(BATCH, threads), float("inf")
    for batching in candidates(threads):
        if time.monotonic() > end:
            break
        opened = make_runtime(runtime, backbone, threads, batching.batch, batching.streams)
        list(opened.embed([inputs]))  # the first run allocates memory, so it is not timed
        seconds = min(_seconds(lambda: list(opened.embed([inputs]))) for _ in range(2))  # noqa: B023 - run at once
        # The default is taken as it is; every other must beat the best so far by `GAIN`.
        if seconds * (GAIN if least < float("inf") else 1) < least:
            best, least = batching, seconds
    return best


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
