"""How many photos go through a runtime at once, and in how many streams: measured, once for each machine.

`python -m nameplate.model.benchmark FOLDER RUNTIME THREADS` is run by `tuned` in a process of its own, which may die
without harm. The embeddings are the same bits whatever is chosen, so nothing but time depends on it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np

from nameplate.errors import NameplateError
from nameplate.model.bundle import Bundle
from nameplate.model.lanes import BATCH, Batch, Tuning
from nameplate.model.runtime import cpu_name, make_runtime
from nameplate.storage import cache_folder, sha256, whole_file

TUNE_PHOTOS = 5_000
"""Photos that a job must have for the measurement to be worth its seconds."""
SECONDS = 5.0
"""After which no further candidate is tried."""
GAIN = 1.05
"""How much faster than the usual way a candidate must be: less is noise."""


def tuned(bundle: Bundle, runtime: str, threads: int, pictures: Callable[[], Batch | None]) -> Tuning | None:
    """The fastest way found; None where it cannot be measured: then the usual way is taken.

    Args:
        bundle: whose backbone runs.
        runtime: one of `RUNTIMES`, not `auto`.
        threads: processors to use.
        pictures: gives some, uint8 N×H×W×3, where they are needed.
    """
    versions = [_version("onnxruntime"), _version("openvino")]
    key = sha256(repr((bundle.digest, runtime, threads, cpu_name(), versions, BATCH)).encode())[:32]
    report = cache_folder() / "tuning" / f"{key}.json"
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(report.read_bytes(), type=Tuning)
    photos = pictures()
    found = None if photos is None else _run(bundle.backbone, runtime, threads, photos)
    if found is not None:
        with suppress(NameplateError, OSError), whole_file(report) as temporary:
            temporary.write_bytes(msgspec.json.encode(found))
    return found


def candidates(threads: int) -> Iterator[Tuning]:
    """What is tried, the usual way first."""
    yield Tuning(BATCH, threads)
    for batch in (2, 1, 4):
        yield Tuning(batch, threads)
    if threads > 1:
        yield Tuning(BATCH, max(1, threads // 2))


def main() -> None:
    """Time the candidates on FOLDER/photos.npy, print the fastest as JSON."""
    folder, runtime, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    backbone, photos = (folder / "backbone.onnx").read_bytes(), np.load(folder / "photos.npy")
    end, best, least = time.monotonic() + SECONDS, Tuning(BATCH, threads), float("inf")
    for tuning in candidates(threads):
        if time.monotonic() > end:
            break
        opened = make_runtime(runtime, backbone, threads, tuning.batch, tuning.streams)
        list(opened.embed([photos]))  # the first run allocates
        seconds = min(_seconds(lambda: list(opened.embed([photos]))) for _ in range(2))  # noqa: B023 - run at once
        if seconds * (GAIN if least < float("inf") else 1) < least:
            best, least = tuning, seconds
    sys.stdout.buffer.write(msgspec.json.encode(best))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _run(backbone: bytes, runtime: str, threads: int, photos: Batch) -> Tuning | None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "backbone.onnx").write_bytes(backbone)
        np.save(Path(folder) / "photos.npy", photos)
        command = [sys.executable, "-P", "-m", "nameplate.model.benchmark", folder, runtime, str(threads)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=12 * SECONDS, check=False)
            return msgspec.json.decode(done.stdout, type=Tuning)
        except (subprocess.TimeoutExpired, msgspec.DecodeError):
            return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
