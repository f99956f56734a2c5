"""How fast backbones run, held against each other: `python -m nameplate.fit.benchmark FOLDER THREADS RUNTIME…`.

`measure_throughput` runs it in a process of its own, which may die without harm. FOLDER holds a file a backbone, and
photos.npy. Every backbone is run by every runtime in turn, round after round: what else the machine does then falls on
all of them alike.
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
"""Times that each is run, after one that is not counted."""
PHOTOS = 64
"""Photos a round."""
SECONDS = 300
"""A measurement that takes longer is given up."""
PICTURES = "photos.npy"


@dataclass(frozen=True, slots=True)
class Throughput:
    """One backbone by one runtime."""

    backbone: str
    """What `measure_throughput` was told that it is called."""
    runtime: str
    rounds: tuple[float, ...]
    """Photos a second, inference alone."""

    @property
    def photos_per_second(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    def over(self, other: Throughput) -> float:
        """How many times as fast as another one: the median over the rounds, each against its own."""
        return median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def measure_throughput(
    backbones: Mapping[str, bytes], pictures: NDArray[np.uint8], runtimes: Sequence[str], threads: int
) -> tuple[Throughput, ...]:
    """Time backbones, all in turn; what a runtime cannot load is left out.

    Args:
        backbones: name → ONNX file.
        pictures: prepared photos, uint8 N×H×W×3; the first `PHOTOS` are run.
        runtimes: some of `RUNTIMES` but `auto`.
        threads: processors to use.

    Raises:
        NameplateError: the process that measures died, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, backbone in backbones.items():
            (Path(folder) / f"{name}.onnx").write_bytes(backbone)
        np.save(Path(folder) / PICTURES, pictures[:PHOTOS])
        command = [sys.executable, "-P", "-m", "nameplate.fit.benchmark", folder, str(threads), *runtimes]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
            return msgspec.json.decode(done.stdout, type=tuple[Throughput, ...])
        except (subprocess.SubprocessError, msgspec.DecodeError) as error:
            raise NameplateError(f"The speed of {' and '.join(backbones)} could not be measured: {error}.") from None


def fastest_of(throughputs: Sequence[Throughput], backbone: str) -> Throughput:
    """Of one backbone's."""
    return max((pace for pace in throughputs if pace.backbone == backbone), key=lambda pace: pace.photos_per_second)


def main() -> None:
    """Print a JSON list of `Throughput`."""
    folder, threads, runtimes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    pictures = np.load(folder / PICTURES)
    opened: dict[tuple[str, str], Runtime] = {}
    for path in sorted(folder.glob("*.onnx")):
        for name in runtimes:
            try:
                opened[path.stem, name] = make_runtime(name, path.read_bytes(), threads)
            except BundleError as error:
                print(f"{path.stem} by {name}: {error}", file=sys.stderr)
    rounds = [[_pace(runtime, pictures) for runtime in opened.values()] for _ in range(1 + ROUNDS)][1:]
    throughputs = [Throughput(*which, each) for which, each in zip(opened, zip(*rounds, strict=True), strict=True)]
    sys.stdout.buffer.write(msgspec.json.encode(throughputs))


def _pace(runtime: Runtime, pictures: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    for _ in runtime.embed(pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)):
        pass
    return len(pictures) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
