"""`JobRunner`: answers the photos of jobs, a few at a time, so that interactive requests hardly notice.

Jobs are one client of the engines among others (`SHARE`), so a photo of theirs is served in turn with those of people
who wait. Few of their photos are with a worker at once, one alone while somebody waits; none makes another's give way,
and while the queue is full none is put into it. A job's rows are written to disk every `TURN` photos, and then it is
another client's turn.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from nameplate.errors import DataError, Failure, PhotoError, WriteError
from nameplate.model.verification import Row, prediction_json
from nameplate.serve.engine import Engine
from nameplate.serve.errors import Problem
from nameplate.serve.ipc import LATE, JobOptions
from nameplate.serve.jobs.store import Job, JobStore, afresh
from nameplate.serve.jobs.upload import StoredPhoto, stored_photos
from nameplate.serve.observability import event
from nameplate.serve.served import Engines, Served
from nameplate.serve.settings import ServeSettings
from nameplate.types import Prediction

SHARE = "jobs"
"""The name under which the photos of all jobs are counted in the engines' queues."""
TURN = 32
"""Photos of a job that are answered before its rows are written."""
PAUSE = 0.5
"""Seconds before a photo is tried again that found no room."""
DISK_PAUSE = 10.0
"""Seconds before rows are tried again that could not be written."""
IDLE = 1.0
"""Seconds between two looks for jobs that are kept no longer."""


class _Exchanged(Exception):  # noqa: N818 - nothing has failed
    """The model was exchanged for another bundle meanwhile."""


@dataclass(slots=True)
class JobRunner:
    """Works on the jobs of a store."""

    store: JobStore
    engines: Engines
    settings: ServeSettings
    _photos: dict[str, Iterator[StoredPhoto]] = field(default_factory=dict)
    """Id → the photos of a job that are not answered."""
    _last: str = ""
    """The owner whose job had the last turn."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _working: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while files of the job in turn are read or written."""
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the engines have started."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End at once. What is not written is answered again by the next service."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._photos.clear()

    def add(self, job: Job) -> None:
        """Take on a new job."""
        self.store.jobs[job.id] = job
        self._wake.set()

    async def remove(self, job: Job) -> None:
        """Cancel a job and delete it."""
        self.store.jobs.pop(job.id, None)  # the turn under way sees it, and writes nothing more
        async with self._working:
            self._photos.pop(job.id, None)
            await asyncio.to_thread(self.store.remove, job)

    async def _run(self) -> None:
        while True:
            for job in self.store.expired():
                await self.remove(job)
            job_ = self._next()
            if job_ is None:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), IDLE)
                continue
            self._last = job_.owner
            try:
                await self._turn(job_)
            except (OSError, WriteError) as error:
                event("job waits", level="error", job=job_.id, reason=str(error))
                self._photos.pop(job_.id, None)
                await asyncio.sleep(DISK_PAUSE)
            except Exception:  # a fault that one job shows must not stop the others
                event("job fault", level="error", job=job_.id, traceback=traceback.format_exc())
                await self._end(job_, "A fault in Nameplate, which the service's log shows.")

    def _next(self) -> Job | None:
        """The oldest unfinished job of the owner whose turn is next; None if there is no job."""
        waiting = {job.owner: job for job in reversed(self.store.jobs.values()) if not job.finished}
        owners = sorted(waiting)
        owner = next((each for each in owners if each > self._last), owners[0] if owners else None)
        return None if owner is None else waiting[owner]

    async def _turn(self, job: Job) -> None:
        """Answer the next photos of a job, and write their rows."""
        try:
            served = self.engines.find(job.model)
        except Problem as problem:
            await self._end(job, problem.detail)
            return
        if served.digest != job.digest:  # all rows of a job are of one bundle
            job = self.store.jobs[job.id] = afresh(job, served.digest)
            self._photos.pop(job.id, None)
        try:
            rows = await self._rows(job, served)
        except _Exchanged:
            return
        except DataError as error:
            await self._end(job, str(error))
            return
        async with self._working:
            if job.id not in self.store.jobs:
                return
            if rows:
                job = await asyncio.to_thread(self.store.append, job, rows)
            if job.done == job.photos:
                self._photos.pop(job.id, None)
                job = await asyncio.to_thread(self.store.finish, job)
                event("job done", job=job.id, photos=job.photos, unreadable=job.unreadable)
            if job.id in self.store.jobs:
                self.store.jobs[job.id] = job

    async def _end(self, job: Job, error: str) -> None:
        """End a job that cannot go on."""
        async with self._working:
            self._photos.pop(job.id, None)
            if job.id in self.store.jobs:
                with suppress(OSError, WriteError):
                    job = await asyncio.to_thread(self.store.finish, job, error)
                self.store.jobs[job.id] = job
        event("job failed", level="warning", job=job.id, reason=error)

    async def _rows(self, job: Job, served: Served) -> list[Row]:
        """Answer the next `TURN` photos of a job.

        Raises:
            _Exchanged: the bundle was exchanged meanwhile.
            DataError: the upload cannot be read.
        """
        options = JobOptions(top=job.top, cars=job.cars)
        rows: list[Row] = []
        under_way: deque[asyncio.Task[Prediction]] = deque()
        try:
            while len(rows) + len(under_way) < min(TURN, job.photos - job.done):
                name, photo = await self._read(job)
                while len(under_way) >= self._allowed(served.engine, len(under_way)):
                    rows.append(prediction_json(await under_way[0]))
                    under_way.popleft()
                answering = self._answer(served, job.digest, name, photo, options)
                under_way.append(asyncio.create_task(answering))
                if job.id not in self.store.jobs:
                    return []
            while under_way:
                rows.append(prediction_json(await under_way[0]))
                under_way.popleft()
        except BaseException:
            self._photos.pop(job.id, None)  # its place is lost
            raise
        finally:
            for task in under_way:
                task.cancel()
        return rows

    def _allowed(self, engine: Engine, own: int) -> int:
        """How many photos of jobs may be with the workers: one while somebody waits, else enough to keep them busy."""
        return 1 if engine.photos > own else engine.threads * self.settings.workers + 1

    async def _read(self, job: Job) -> tuple[str, bytes | Failure]:
        """The next photo of a job."""
        async with self._working:
            if job.id not in self._photos:
                photos = stored_photos(self.store.folder_of(job), self.settings.limits, self.settings.job_limits.photos)
                self._photos[job.id] = islice(photos, job.done, None)
            return await asyncio.to_thread(_next_photo, self._photos[job.id])

    async def _answer(
        self, served: Served, digest: str, name: str, photo: bytes | Failure, options: JobOptions
    ) -> Prediction:
        """Answer a photo, however long that takes."""
        if isinstance(photo, Failure):
            return Prediction(name, failure=photo)
        while True:
            engine = served.engine
            if served.digest != digest:
                raise _Exchanged
            with suppress(Problem):  # no room, no worker, or it gave way to somebody's
                if not engine.require_room(1, SHARE):
                    [answer] = await engine.answer([photo], [name], options, client=SHARE)
                    if answer.prediction.failure != LATE:
                        return answer.prediction
            await asyncio.sleep(PAUSE)


def _next_photo(photos: Iterator[StoredPhoto]) -> tuple[str, bytes | Failure]:
    """Read the next photo.

    Raises:
        DataError: there is none, although the job counted it, or the upload cannot be read.
    """
    found = next(photos, None)
    if found is None:
        raise DataError("The upload has fewer photos than when it came.")
    try:
        return found.name, found.read()
    except PhotoError as error:
        return found.name, error.failure
