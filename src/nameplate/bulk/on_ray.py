"""Parts of a job made by workers of a Ray cluster: the same job, the same function, the same bytes.

The parts' numbers are the rows of a Ray data set, an actor holds one model and makes a part from its listing, and
this process writes the ledger as parts come back. Neither photos nor rows travel through Ray: they lie on storage that
all nodes share.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nameplate.bulk.job import Job, LedgerLine, open_job
from nameplate.bulk.journal import drop
from nameplate.bulk.predict import versions
from nameplate.bulk.work import Made, Make, work
from nameplate.cluster import Cluster, crew
from nameplate.errors import NameplateError
from nameplate.models.model import Model
from nameplate.storage import absolute
from nameplate.types import Limits

RETRIES = 3
"""Times that a part is tried again which has taken its worker with it; what kills four is not chance."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told, once."""

    job: str
    """The job's folder."""
    bundle: str
    """Its folder, or the name of one that ships."""
    limits: Limits
    threads: int


class PartMaker:
    """A worker: one model, and the parts that it is given, each made from its listing alone."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._ready: tuple[Model, Job] | None = None
        self._scratch = ExitStack()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Make parts: their numbers → a line of the ledger each, or what stands in its way.

        An error is a row too: raised, it would be tried again, and its words would drown in Ray's.
        """
        return {"made": [self._make(int(part)) for part in batch["part"]]}

    def _make(self, part: int) -> bytes:
        try:
            model, job = self._ready = self._ready or _ready(self._orders)
            with tempfile.TemporaryDirectory(prefix="nameplate-") as scratch:
                return msgspec.json.encode(_Outcome(line=work(model, job, part, Path(scratch))))
        except NameplateError as error:
            return msgspec.json.encode(_Outcome(error=str(error)))


@dataclass(frozen=True, slots=True)
class _Outcome:
    line: LedgerLine | None = None
    error: str = ""


def _ready(orders: Orders) -> tuple[Model, Job]:
    """The model and the job, where both are the ones that were planned with.

    Raises:
        NameplateError: they are not, or this node has other versions of what touches a photo.
    """
    if not Path(orders.job).is_dir():
        raise NameplateError(f"The node {os.uname().nodename} sees no '{orders.job}': put it on storage that all share.")
    job = open_job(Path(orders.job))
    here = versions()
    if other := {name: here.get(name, "none") for name, v in job.terms.versions.items() if here.get(name) != v}:
        planned = ", ".join(f"{name} {job.terms.versions[name]}, not {found}" for name, found in other.items())
        raise NameplateError(f"The node {os.uname().nodename} would write other rows: the job needs {planned}.")
    if job.terms.folder:
        os.chdir(job.terms.folder)  # the process is ours alone
    terms = job.terms
    model = Model.load(
        orders.bundle, runtime=terms.runtime, threads=orders.threads, limits=orders.limits, tta=terms.tta
    )
    if model.bundle.seal != terms.bundle:
        raise NameplateError(f"The node {os.uname().nodename} has another bundle as '{orders.bundle}'.")
    return model, job


def made_by(cluster: Cluster, workers: int | None, threads: int | None) -> Make:
    """What makes parts as `make_parts` does, on a cluster.

    A worker that dies is replaced, and its part made again. Workers keep no journals: a node that is cut off may still
    write while another makes its part.

    Args:
        cluster: connected.
        workers: see `crew`.
        threads: of a worker.
    """

    def make(
        model: Model,
        job: Job,
        parts: Sequence[int],
        record: Callable[[LedgerLine], None],
        step: Callable[[int], None] = lambda _: None,
    ) -> Made:
        hands = crew(cluster, workers, threads, len(parts))
        orders = Orders(absolute(job.root), str(model.bundle.folder), model.settings.limits, hands.threads)
        lines, done = [], 0
        for outcome in _outcomes(orders, parts, hands.workers) if parts else ():
            if outcome.line is None:
                raise NameplateError(outcome.error)
            record(outcome.line)
            drop(job.path(outcome.line.part))
            lines.append(outcome.line)
            done += outcome.line.rows
            step(done)
        return Made(tuple(lines), 0)

    return make
