"""What Ray costs and what it brings: `python benchmarks/cluster.py PHOTOS.csv -o OUT.json` (docs/cluster.md).

The same photos are predicted by one process and by one and two workers of a local Ray, in turn, in several rounds.
Then follows the cost of a shard apart from its photos: Ray's scheduling, the manifest, the listing. Each worker has
one processor, and so has the single process that they are compared with. The rates do not include the start: each is
of the photos after the first shard of its run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nameplate.batch.cluster import LOCAL, connected
from nameplate.batch.job import Job, ShardRecord, locked, plan
from nameplate.batch.on_ray import shards_on_ray
from nameplate.batch.predict import Options, find_output, predict_photos
from nameplate.batch.shards import MakeShards, make_shards
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus, cpu_name

PARTS = 8
"""Of each run."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One run."""

    way: str
    photos_per_second: float
    """Of the photos after the first part, or after the first of each worker."""
    cpu_seconds_per_photo: float
    """Of the processes that name photos, start-up left out."""
    first_part_seconds: float


def main() -> None:
    """Time all, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--count", type=int, default=900, help="photos a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtime", default="onnxruntime")
    given = parser.parse_args()
    listed = given.photos.read_text("utf-8").splitlines()[: given.count + 1]
    model = Model.load(runtime=given.runtime, threads=1)
    ways: dict[str, tuple[MakeShards, int]] = {
        "one process": (make_shards, 1),
        "Ray, one worker": (shards_on_ray(LOCAL, 1, 1), 1),
        "Ray, two workers": (shards_on_ray(LOCAL, 2, 1), 2),
    }
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "photos.csv"
        table.write_text("\n".join(listed) + "\n", "utf-8")
        for number in range(given.rounds):
            for way, (make, workers) in ways.items():
                output = Path(folder) / f"{number} {way}"
                runs.append(_timed(model, table, output, way, make, workers, len(listed) - 1))
                print(json.dumps(asdict(runs[-1])), flush=True)
        found = {
            "machine": {"cpu": cpu_name(), "processors": available_cpus(), "load": os.getloadavg()},
            "photos": len(listed) - 1,
            "runs": [asdict(run) for run in runs],
            "median": {way: _median([run for run in runs if run.way == way]) for way in ways},
            "two workers against one, by round": _ratios(runs, "Ray, two workers", "Ray, one worker"),
            "one worker against one process, by round": _ratios(runs, "Ray, one worker", "one process"),
            "a part beside its photos": _overheads(Path(folder) / "empty", model),
        }
    given.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(json.dumps(found, indent=2))


def _timed(model: Model, table: Path, output: Path, way: str, make: MakeShards, workers: int, photos: int) -> Timed:
    start = time.perf_counter()
    step_events: list[tuple[float, int, float]] = []

    def timing(
        model: Model, job: Job, shards: Any, record: Callable[[ShardRecord], None], step: Callable[[int], None]
    ) -> Any:
        done = 0

        def recorded(line: ShardRecord) -> None:
            nonlocal done
            record(line)
            done += line.rows
            step_events.append((time.perf_counter(), done, _cpu_seconds()))

        return make(model, job, shards, recorded, step)

    predict_photos(
        model, [str(table)], find_output(output, "csv"), Options(shard_size=-(-photos // PARTS), make=timing)
    )
    (begin, before, cpu_before), (end, after, cpu_after) = step_events[workers - 1], step_events[-1]
    named = after - before
    return Timed(
        way, round(named / (end - begin), 2), round((cpu_after - cpu_before) / named, 5), round(begin - start, 1)
    )


def _cpu_seconds() -> float:
    """Of this process and its Ray workers, by the kernel's count."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.name == str(os.getpid()) or b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _median(runs: list[Timed]) -> dict[str, float]:
    return {
        "photos_per_second": statistics.median(run.photos_per_second for run in runs),
        "cpu_seconds_per_photo": statistics.median(run.cpu_seconds_per_photo for run in runs),
        "first_part_seconds": statistics.median(run.first_part_seconds for run in runs),
    }


def _ratios(runs: list[Timed], way: str, other: str) -> list[float]:
    first, second = ([run.photos_per_second for run in runs if run.way == name] for name in (way, other))
    return [round(a / b, 3) for a, b in zip(first, second, strict=True)]


class _Nothing:
    """A worker with nothing to do."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"made": [b"x" * 300 for _ in batch["part"]]}


def _overheads(root: Path, model: Model) -> dict[str, float]:
    """Seconds per shard for Ray's scheduling and for the manifest, and seconds per photo for the listing."""
    found = {"Ray's scheduling, seconds a part": _scheduling(300)}
    references = [f"/photos/{number // 1000:06d}/{number:012d}.jpg" for number in range(200_000)]
    with locked(root):
        start = time.perf_counter()
        from nameplate.batch.predict import _spec

        spec = _spec(model, find_output(root, "csv"), 5, 10_000, ("timing",), "")
        job = plan(root, spec, lambda: references, lambda _: "onnxruntime", replace_other=True)
        found["listing, seconds a photo"] = (time.perf_counter() - start) / len(references)
        line = ShardRecord(0, 10_000, 5_000_000, "0" * 64, {"damaged": 3}, {"answer": 9_000, "unsure": 997}, 33.3)
        start = time.perf_counter()
        for _ in range(200):
            job.record(line)
        found["ledger, seconds a part"] = (time.perf_counter() - start) / 200
    return {name: float(f"{seconds:.3g}") for name, seconds in found.items()}


def _scheduling(parts: int) -> float:
    with connected(LOCAL, 1):
        import ray.data

        rows = ray.data.from_items([{"part": part} for part in range(parts)], override_num_blocks=parts)
        pool = ray.data.ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=1)
        batches = rows.map_batches(_Nothing, batch_size=1, compute=pool, num_cpus=1)
        step_events = [time.perf_counter() for _ in batches.iter_batches(batch_size=1, prefetch_batches=0)]
        return (step_events[-1] - step_events[9]) / (parts - 10)


if __name__ == "__main__":
    main()
