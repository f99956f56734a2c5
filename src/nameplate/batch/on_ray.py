"""Shards of a job made by workers of a Ray cluster, with the same function and the same bytes as in one process.

The shards' numbers are the rows of a Ray data set. Each worker is an actor with one model, which makes a shard from its
listing; this process writes the manifest as shards come back. Neither photos nor rows travel through Ray: they are on
storage that all nodes share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nameplate.batch.cluster import connected, pool
from nameplate.batch.job import LISTING, Job, ShardRecord, open_job
from nameplate.batch.predict import versions
from nameplate.batch.shards import MakeShards, make_shard
from nameplate.errors import NameplateError
from nameplate.model.bundle import Bundle, shipped
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus
from nameplate.storage import absolute
from nameplate.types import Limits

TRIES = 4
"""How often a shard is begun in one run. Ray begins it again whenever its worker dies, and a shard that kills four
workers does not do so by chance."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What each worker needs to start."""

    job: str
    """The job's folder."""
    bundle: str
    """The bundle's folder, or the name of one that ships."""
    limits: Limits
    threads: int
    """Processors of one worker."""


class ShardWorker:
    """A worker: it loads the model once, and makes the shards that Ray gives it."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._ready: tuple[Model, Job] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Make the shards with the numbers in column `shard`; return an encoded `_Outcome` for each.

        An error is returned as a row too: if it were raised, Ray would try again, and bury its text in a traceback.
        """
        return {"made": [self._make(int(shard)) for shard in batch["shard"]]}

    def _make(self, shard: int) -> bytes:
        try:
            # Loaded with the first shard and not in `__init__`, so that an error can be returned as a row.
            model, job = self._ready = self._ready or _ready(self._config)
            _count_try(job, shard)
            return msgspec.json.encode(_Outcome(record=make_shard(model, job, shard)))
        except NameplateError as error:
            return msgspec.json.encode(_Outcome(error=str(error)))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a worker sends back for a shard: its record, or why it could not be made."""

    record: ShardRecord | None = None
    error: str = ""


def _ready(config: WorkerConfig) -> tuple[Model, Job]:
    """Load the model and the job, and check that both are the ones of the plan.

    Raises:
        NameplateError: they are not, or this node has other versions of packages that process photos.
    """
    if not Path(config.job).is_dir():
        raise NameplateError(
            f"The node {os.uname().nodename} sees no '{config.job}': put it on storage that all share."
        )
    job = open_job(Path(config.job))
    here = versions()
    if other := {name: here.get(name, "none") for name, v in job.spec.versions.items() if here.get(name) != v}:
        planned = ", ".join(f"{name} {job.spec.versions[name]}, not {found}" for name, found in other.items())
        raise NameplateError(f"The node {os.uname().nodename} would write other rows: the job needs {planned}.")
    if job.spec.folder:
        os.chdir(job.spec.folder)  # relative paths start there, and this process does nothing else
    spec = job.spec
    model = Model.load(
        config.bundle,
        runtime=spec.runtime,
        threads=config.threads,
        limits=config.limits,
        tta=spec.tta,
        cars=spec.cars,
    )
    if model.bundle.full_digest != spec.bundle:
        raise NameplateError(f"The node {os.uname().nodename} has another bundle as '{config.bundle}'.")
    return model, job


def shards_on_ray(address: str, workers: int | None = None, threads: int | None = None) -> MakeShards:
    """Return a function that makes shards on a Ray cluster. It connects only if there are shards to make.

    A worker that dies is replaced, and its shard is made again. A node that is cut off may still write while another
    one makes its shard; that does no harm, because both write the same bytes.

    Args:
        address: the cluster; see `nameplate.batch.cluster.connected`.
        workers: the number of workers; see `nameplate.batch.cluster.pool`.
        threads: processors per worker.
    """

    def make(
        model: Model,
        job: Job,
        shards: Sequence[int],
        record: Callable[[ShardRecord], None],
        step: Callable[[int], None],
    ) -> tuple[ShardRecord, ...]:
        records: list[ShardRecord] = []
        if not shards:
            return ()
        with connected(address, available_cpus()) as cluster:
            size = pool(cluster, workers, threads, len(shards))
            config = WorkerConfig(absolute(job.root), _name(model.bundle), model.settings.limits, size.threads)
            _sweep(job)  # an earlier run's tries do not count
            for made in _records(config, shards, size.workers):
                record(made)
                records.append(made)
                step(sum(each.rows for each in records))
        _sweep(job)
        return tuple(records)

    return make


def _tries(job: Job, shard: int) -> Path:
    return job.root / f".part-{shard:05d}.tries"


def _count_try(job: Job, shard: int) -> None:
    """Count a try of a shard on the shared disk, where the count survives the worker's death.

    Raises:
        NameplateError: the shard was begun more than `TRIES` times.
    """
    # One byte appended per try: the size of the file is the count, and appending is atomic enough for one worker at a
    # time.
    with _tries(job, shard).open("ab") as file:
        file.write(b".")
        begun = file.tell()
    if begun > TRIES:
        raise NameplateError(
            f"Part {shard} took its worker with it {TRIES} times. Its photos are in "
            f"'{job.root / LISTING / f'{shard:05d}.txt'}': is there memory enough on the nodes?"
        )


def _sweep(job: Job) -> None:
    """Delete what killed workers left: counts of tries, and half-written files."""
    for left in (*job.root.glob(".part-*.tries"), *job.root.glob(".part-*.part")):
        left.unlink(missing_ok=True)


def _name(bundle: Bundle) -> str:
    """Return a bundle's name or path for all nodes. One that ships is named, since its path differs between nodes."""
    if bundle.folder is None:
        raise NameplateError(
            f"'{bundle.manifest.name}' is not saved in a folder, so no worker can read it: save it first."
        )
    return next((name for name, place in shipped().items() if place == bundle.folder), absolute(bundle.folder))


def _records(config: WorkerConfig, shards: Sequence[int], workers: int) -> Iterator[ShardRecord]:
    """Let the workers make the shards, and yield their records in the order in which they come back.

    Raises:
        NameplateError: a worker could not make its shard.
    """
    import ray.data

    made = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
        ShardWorker,
        fn_constructor_args=(config,),
        batch_size=1,
        # One shard at a time: a second one would wait behind a slow worker while others are idle.
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=config.threads,
    )
    for batch in made.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
        for outcome in batch["made"]:
            found = msgspec.json.decode(outcome, type=_Outcome)
            if found.record is None:
                raise NameplateError(found.error)
            yield found.record
