"""`JobStore`: jobs on disk, a folder each, so that they survive the service.

    FOLDER/ID/job.json       the job and how far it is (`Job`); replaced as a whole after the rows that it counts
    FOLDER/ID/upload         its photos' bytes, until it is done
    FOLDER/ID/results.jsonl  a row for each photo that is answered, in the order of the upload

What was being received, or written behind the last `job.json`, when a service was killed is dropped by the next one.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from nameplate.defaults import TOP
from nameplate.errors import DataError
from nameplate.model.verification import Row
from nameplate.serve.errors import Problem
from nameplate.serve.jobs.upload import PLACES, UPLOAD
from nameplate.serve.observability import event
from nameplate.serve.settings import JobLimits
from nameplate.storage import whole_file, working_in
from nameplate.types import Cars

RECORD, RESULTS = "job.json", "results.jsonl"
ID = re.compile(r"[0-9a-f]{32}")


class Job(msgspec.Struct):
    """A job as it is kept. The fields are the JSON's keys."""

    id: str
    owner: str
    """Whose it is (`access.Client.share`)."""
    model: str
    digest: str
    """Of the bundle that gave all rows so far."""
    top: int = TOP
    cars: Cars | None = None
    """Which cars of a photo are named; None: as the service's settings say."""
    photos: int = 0
    created: float = 0.0
    """Unix time."""
    upload_bytes: int = 0
    """Bytes of its photos on disk; 0 once it has ended."""
    done: int = 0
    """How many photos are answered."""
    unreadable: int = 0
    """How many of them cannot be read."""
    result_bytes: int = 0
    """Bytes of their rows; what lies behind them in the file is not counted yet."""
    finished: float = 0.0
    """Unix time of its end; 0 before."""
    error: str = ""
    """Why it has failed; empty otherwise."""

    @property
    def state(self) -> str:
        """`queued`, `running`, `done` or `failed`."""
        if self.finished:
            return "failed" if self.error else "done"
        return "running" if self.done else "queued"

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.upload_bytes + self.result_bytes


def afresh(job: Job, digest: str) -> Job:
    """The job with none of its photos answered."""
    return msgspec.structs.replace(job, digest=digest, done=0, unreadable=0, result_bytes=0)


@dataclass(slots=True)
class Arriving:
    """A job whose photos are being received: it counts against the limits already."""

    owner: str
    bytes: int = 0


@dataclass(slots=True)
class JobStore:
    """All jobs of a service."""

    folder: Path
    limits: JobLimits
    jobs: dict[str, Job] = field(default_factory=dict)
    """Id → job, the oldest first."""
    _arriving: list[Arriving] = field(default_factory=list)
    _lock: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(cls, folder: Path, limits: JobLimits) -> JobStore:
        """Open a folder, which is made where there is none, and read its jobs.

        Raises:
            NameplateError: another service uses it.
            WriteError: it cannot be made.
            DataError: a job cannot be read.
        """
        store = cls(folder, limits)
        store._lock.enter_context(working_in(folder, keep=True))
        try:
            folder.chmod(0o700)
            found = [store._read(each) for each in folder.iterdir() if ID.fullmatch(each.name)]
            for part in folder.glob(".*.part"):  # was being received when a service was killed
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            store.close()
            raise DataError(f"Cannot read the jobs in '{folder}': {error.strerror or error}.") from None
        except BaseException:
            store.close()
            raise
        store.jobs = {job.id: job for job in sorted(found, key=lambda job: job.created)}
        if going_on := [job.id for job in store.jobs.values() if not job.finished]:
            event("jobs go on", jobs=len(going_on))
        return store

    def close(self) -> None:
        """Let another service use the folder."""
        self._lock.close()

    def folder_of(self, job: Job) -> Path:
        """The job's folder."""
        return self.folder / job.id

    def _all(self) -> list[Job | Arriving]:
        return [*self.jobs.values(), *self._arriving]

    @contextmanager
    def arriving(self, owner: str) -> Iterator[Arriving]:
        """Count a job that is being received against the limits.

        Raises:
            Problem: there are too many, of this client (`too-many`) or in all (`full`).
        """
        jobs = [each.owner for each in self._all()]
        own, limits = jobs.count(owner), self.limits
        if own >= limits.of_client or len(jobs) >= limits.in_all:
            raise Problem(
                "too-many" if own >= limits.of_client else "full",
                f"There are {len(jobs)} of {limits.in_all} jobs, {own} of them this client's, which may have "
                f"{limits.of_client}. Delete one that is done.",
                retry_after=60,
            )
        arriving = Arriving(owner)
        self._arriving.append(arriving)
        try:
            yield arriving
        finally:
            self._arriving.remove(arriving)

    def take_room(self, arriving: Arriving, count: int) -> None:
        """Hold `count` more bytes for a job that is being received.

        Raises:
            Problem: there is no room for them.
        """
        used: Counter[str] = Counter()
        for each in self._all():
            used[each.owner] += each.bytes
        cap, total = self.limits.bytes_in_all, used.total()
        # The rule of `budget.Budget`.
        if used[arriving.owner] + count > cap - total - count:
            raise Problem(
                "full",
                f"Jobs fill {total:,} of {cap:,} bytes, {used[arriving.owner]:,} of them this client's: a client may "
                "fill as many as are left free. Delete jobs that are done, or send fewer photos.",
                retry_after=60,
            )
        arriving.bytes += count

    def find(self, id_: str, owner: str) -> Job:
        """Return a client's job.

        Raises:
            Problem: the client has no such job, or it is kept no longer.
        """
        job = self.jobs.get(id_)
        if job is None or job.owner != owner or self._expired(job):
            raise Problem("not-found", "You have no such job: it was deleted, is kept no longer, or is another key's.")
        return job

    def of(self, owner: str) -> list[Job]:
        """A client's jobs that are kept, the newest first; at most `JobLimits.of_client`."""
        return [job for job in reversed(self.jobs.values()) if job.owner == owner and not self._expired(job)]

    def expires(self, job: Job) -> float:
        """Unix time until which a job is kept; 0 while it has not ended."""
        return job.finished + self.limits.kept_seconds if job.finished else 0.0

    def _expired(self, job: Job) -> bool:
        return bool(job.finished) and time.time() >= self.expires(job)

    def expired(self) -> list[Job]:
        """The jobs that are kept no longer."""
        return [job for job in self.jobs.values() if self._expired(job)]

    # Those below write, and so run in threads.

    def save(self, job: Job) -> None:
        """Write how far a job is.

        Raises:
            WriteError: it cannot be written.
        """
        with whole_file(self.folder_of(job) / RECORD, mode=0o600) as temporary:
            temporary.write_bytes(msgspec.json.encode(job))

    def append(self, job: Job, rows: Sequence[Row]) -> Job:
        """Write the rows of the next photos, and return the job as it is then.

        Raises:
            OSError, WriteError: they cannot be written; the job is as it was.
        """
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        with (self.folder_of(job) / RESULTS).open("ab") as file:
            file.truncate(job.result_bytes)  # what a service wrote that was killed before it counted it
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unreadable = sum(row.error is not msgspec.UNSET for row in rows)
        further = msgspec.structs.replace(
            job,
            done=job.done + len(rows),
            unreadable=job.unreadable + unreadable,
            result_bytes=job.result_bytes + len(data),
        )
        self.save(further)
        return further

    def finish(self, job: Job, error: str = "") -> Job:
        """End a job: its photos are deleted, and what is there of its results is kept.

        Raises:
            WriteError: it cannot be written.
        """
        ended = msgspec.structs.replace(job, finished=time.time(), error=error, upload_bytes=0)
        self.save(ended)
        for name in (UPLOAD, PLACES):
            (self.folder_of(job) / name).unlink(missing_ok=True)
        return ended

    def remove(self, job: Job) -> None:
        """Delete a job's folder. It is renamed first, so that no half of it is found later."""
        gone = self.folder / f".{job.id}.{secrets.token_hex(4)}.part"
        with suppress(FileNotFoundError):
            self.folder_of(job).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _read(self, folder: Path) -> Job:
        try:
            job = msgspec.json.decode((folder / RECORD).read_bytes(), type=Job)
        except msgspec.MsgspecError as error:
            raise DataError(f"'{folder / RECORD}' is no job: {error}. Delete '{folder}'.") from None
        if job.finished:  # a service may have been killed before it deleted them
            for name in (UPLOAD, PLACES):
                (folder / name).unlink(missing_ok=True)
        rows = folder / RESULTS
        return job if not job.done or rows.stat().st_size >= job.result_bytes else afresh(job, job.digest)


def current_jobs(store: JobStore) -> Iterator[Metric]:
    """Yield gauges of the jobs as they are now."""
    jobs = GaugeMetricFamily("nameplate_jobs", "Jobs that are kept, by state.", labels=["state"])
    states = Counter(job.state for job in store.jobs.values())
    for state in ("queued", "running", "done", "failed"):
        jobs.add_metric([state], states[state])
    yield jobs
    left = sum(job.photos - job.done for job in store.jobs.values() if not job.finished)
    yield GaugeMetricFamily("nameplate_job_photos", "Photos of jobs that are not answered yet.", value=left)
    held = sum(job.bytes for job in store.jobs.values())
    yield GaugeMetricFamily("nameplate_job_bytes", "Bytes of jobs on disk.", value=held)
