"""Parts of a job made by workers of a Ray cluster: the same job, the same function, the same bytes.

The parts' numbers are the rows of a Ray data set, an actor holds one model and makes a part from its listing, and
this process writes the ledger as parts come back. Neither photos nor rows travel through Ray: they lie on storage that
all nodes share.
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
from nameplate.batch.work import Make, work
from nameplate.errors import NameplateError
from nameplate.model.bundle import Bundle, shipped
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus
from nameplate.storage import absolute
from nameplate.types import Limits

TRIES = 4
"""How often a part is begun in one run: Ray begins it again whenever its worker dies, and what kills four is not
chance."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told, once."""

    job: str
    """The job's folder."""
    bundle: str
    """Its folder, or the name of one that ships."""
    limits: Limits
    threads: int


class PartMaker:
    """A worker: one model, and the parts that it is given, each made from its listing alone."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._ready: tuple[Model, Job] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Make parts: their numbers → a line of the ledger each, or what stands in its way.

        An error is a row too: raised, it would be tried again, and its words would drown in Ray's.
        """
        return {"made": [self._make(int(part)) for part in batch["part"]]}

    def _make(self, part: int) -> bytes:
        try:
            model, job = self._ready = self._ready or _ready(self._config)
            _count_try(job, part)
            return msgspec.json.encode(_Outcome(line=work(model, job, part)))
        except NameplateError as error:
            return msgspec.json.encode(_Outcome(error=str(error)))


@dataclass(frozen=True, slots=True)
class _Outcome:
    line: ShardRecord | None = None
    error: str = ""


def _ready(config: WorkerConfig) -> tuple[Model, Job]:
    """The model and the job, where both are the ones that were planned with.

    Raises:
        NameplateError: they are not, or this node has other versions of what touches a photo.
    """
    if not Path(config.job).is_dir():
        raise NameplateError(
            f"The node {os.uname().nodename} sees no '{config.job}': put it on storage that all share."
        )
    job = open_job(Path(config.job))
    here = versions()
    if other := {name: here.get(name, "none") for name, v in job.terms.versions.items() if here.get(name) != v}:
        planned = ", ".join(f"{name} {job.terms.versions[name]}, not {found}" for name, found in other.items())
        raise NameplateError(f"The node {os.uname().nodename} would write other rows: the job needs {planned}.")
    if job.terms.folder:
        os.chdir(job.terms.folder)  # the process is ours alone
    terms = job.terms
    model = Model.load(
        config.bundle, runtime=terms.runtime, threads=config.threads, limits=config.limits, tta=terms.tta
    )
    if model.bundle.full_digest != terms.bundle:
        raise NameplateError(f"The node {os.uname().nodename} has another bundle as '{config.bundle}'.")
    return model, job


def made_on_ray(address: str, workers: int | None = None, threads: int | None = None) -> Make:
    """What makes parts as `make_parts` does, on a Ray cluster; connected to only where parts are to be made.

    A worker that dies is replaced, and its part made again. A node that is cut off may still write while another makes
    its part: both write the same bytes.

    Args:
        address: see `nameplate.batch.cluster.connected`.
        workers: see `nameplate.batch.cluster.pool`.
        threads: of a worker.
    """

    def make(
        model: Model,
        job: Job,
        parts: Sequence[int],
        record: Callable[[ShardRecord], None],
        step: Callable[[int], None],
    ) -> tuple[ShardRecord, ...]:
        lines: list[ShardRecord] = []
        if not parts:
            return ()
        with connected(address, available_cpus()) as cluster:
            hands = pool(cluster, workers, threads, len(parts))
            config = WorkerConfig(absolute(job.root), _name(model.bundle), model.settings.limits, hands.threads)
            _sweep(job)
            for line in _lines(config, parts, hands.workers):
                record(line)
                lines.append(line)
                step(sum(line.rows for line in lines))
        _sweep(job)
        return tuple(lines)

    return make


def _tries(job: Job, part: int) -> Path:
    return job.root / f".part-{part:05d}.tries"


def _count_try(job: Job, part: int) -> None:
    """Count on the shared disk how often a part was begun, since whoever began it may not live to tell.

    Raises:
        NameplateError: too often.
    """
    with _tries(job, part).open("ab") as file:
        file.write(b".")
        begun = file.tell()
    if begun > TRIES:
        raise NameplateError(
            f"Part {part} took its worker with it {TRIES} times. Its photos are in "
            f"'{job.root / LISTING / f'{part:05d}.txt'}': is there memory enough on the nodes?"
        )


def _sweep(job: Job) -> None:
    """Delete what killed workers left: tries, and files half written."""
    for left in (*job.root.glob(".part-*.tries"), *job.root.glob(".part-*.part")):
        left.unlink(missing_ok=True)


def _name(bundle: Bundle) -> str:
    """What every node calls a bundle: one that ships lies elsewhere on each."""
    if bundle.folder is None:
        raise NameplateError(f"'{bundle.manifest.name}' lies in no folder, so no worker can read it: save it first.")
    return next((name for name, place in shipped().items() if place == bundle.folder), absolute(bundle.folder))


def _lines(config: WorkerConfig, parts: Sequence[int], workers: int) -> Iterator[ShardRecord]:
    """What the workers made, as it comes back.

    Raises:
        NameplateError: what stood in a worker's way.
    """
    import ray.data

    made = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
        PartMaker,
        fn_constructor_args=(config,),
        batch_size=1,
        # One part at a time: a second one would wait behind a slow worker while others are idle.
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=config.threads,
    )
    for batch in made.iter_batches(batch_size=1, prefetch_batches=0, batch_format="numpy"):
        for outcome in batch["made"]:
            found = msgspec.json.decode(outcome, type=_Outcome)
            if found.line is None:
                raise NameplateError(found.error)
            yield found.line
