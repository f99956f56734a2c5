"""Measures the inference throughput of backbones: `python -m nameplate.fit.benchmark FOLDER THREADS RUNTIME…`.

`measure_throughput` starts this module as a subprocess, so that a runtime that crashes takes nothing else with it.
FOLDER holds one ONNX file for each backbone, and photos.npy. In each round every runtime runs every backbone once, so
that other load on the machine slows all of them alike.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError, NameplateError
from nameplate.runtime.base import BATCH, Runtime
from nameplate.runtime.select import make_runtime

ROUNDS = 9
"""Number of timed rounds; one round before them warms up and is not counted."""
PHOTOS = 64
"""Number of photos in each round."""
SECONDS = 300
"""Time limit of the subprocess in seconds."""
INPUTS = "photos.npy"
"""The file of model inputs in FOLDER, uint8 N×H×W×3."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """The throughput of one backbone in one runtime."""

    backbone: str
    """The name that the caller of `measure_throughput` gave it."""
    runtime: str
    rounds: tuple[float, ...]
    """Photos per second in each round, inference only."""

    @property
    def photos_per_second(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    def over(self, other: Throughput) -> float:
        """The speed-up over another one: the median of the ratios of the rounds, which are compared one to one."""
        return median(own / reference for own, reference in zip(self.rounds, other.rounds, strict=True))


def measure_throughput(
    backbones: Mapping[str, bytes], inputs: NDArray[np.uint8], runtimes: Sequence[str], threads: int
) -> tuple[Throughput, ...]:
    """Measure the throughput of backbones in a subprocess; combinations that a runtime cannot load are left out.

    Args:
        backbones: name → ONNX file.
        inputs: model inputs, uint8 N×H×W×3; the first `PHOTOS` are used.
        runtimes: names from `RUNTIMES`, except `auto`.
        threads: number of processors to use.

    Raises:
        NameplateError: the subprocess failed or exceeded `SECONDS`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, backbone in backbones.items():
            (Path(folder) / f"{name}.onnx").write_bytes(backbone)
        np.save(Path(folder) / INPUTS, inputs[:PHOTOS])
        # -P keeps the current folder off the import path: a file there must not shadow a package.
        command = [sys.executable, "-P", "-m", "nameplate.fit.benchmark", folder, str(threads), *runtimes]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
            return msgspec.json.decode(done.stdout, type=tuple[Throughput, ...])
        except (subprocess.SubprocessError, msgspec.DecodeError) as error:
            raise NameplateError(f"The speed of {' and '.join(backbones)} could not be measured: {error}.") from None


def fastest_of(throughputs: Sequence[Throughput], backbone: str) -> Throughput:
    """The fastest measurement of one backbone."""
    return max((each for each in throughputs if each.backbone == backbone), key=lambda each: each.photos_per_second)


def main() -> None:
    """Print a JSON list of `Throughput` on stdout."""
    folder, threads, runtimes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    inputs = np.load(folder / INPUTS)
    opened: dict[tuple[str, str], Runtime] = {}
    for path in sorted(folder.glob("*.onnx")):
        for name in runtimes:
            try:
                opened[path.stem, name] = make_runtime(name, path.read_bytes(), threads)
            except BundleError as error:  # this runtime cannot run this file; the others are still measured
                print(f"{path.stem} by {name}: {error}", file=sys.stderr)
    rounds = [[_throughput(runtime, inputs) for runtime in opened.values()] for _ in range(1 + ROUNDS)][1:]
    throughputs = [Throughput(*which, each) for which, each in zip(opened, zip(*rounds, strict=True), strict=True)]
    sys.stdout.buffer.write(msgspec.json.encode(throughputs))


def _throughput(runtime: Runtime, inputs: NDArray[np.uint8]) -> float:
    """Photos per second of one round."""
    start = time.perf_counter()
    for _ in runtime.embed(inputs[i : i + BATCH] for i in range(0, len(inputs), BATCH)):
        pass
    return len(inputs) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
