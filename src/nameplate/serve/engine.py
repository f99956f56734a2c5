"""`Engine`: one bundle behind a queue with a hard cap, and the worker processes that empty it.

A worker that dies is replaced. What it had under way is tried once more, each photo alone, so that one that
kills the decoder is found and takes no others with it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from msgspec import structs

from nameplate.errors import Failure, NameplateError
from nameplate.model.model import Model
from nameplate.model.reference import ReferenceAnswer, reference_problem
from nameplate.model.runtime import BATCH, available_cpus
from nameplate.serve.errors import Problem
from nameplate.serve.ipc import (
    ServedAnswer,
    Setup,
    Waiting,
    Worker,
    WorkerJob,
    WorkerResult,
    late,
    read_answer,
    start_worker,
)
from nameplate.serve.settings import ServeSettings
from nameplate.types import NO_TTA, TOP, Prediction

STALL_SECONDS = 15.0
"""A worker that has work and says nothing for so long, beyond the time that one photo may take, is killed."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the next start, after so many workers in a row that died young."""
YOUNG = 10.0
"""Seconds of life below which a worker died young."""
KILLER = "the decoder died of it, twice"
"""What is said of a photo that ends two workers."""


Event = Literal["worker ready", "worker failed", "worker died", "worker killed", "reload", "reload refused"]
"""What happens to a bundle that is served, as logs call it."""


class Observer(Protocol):
    """Who wants to know what happens, for metrics and logs."""

    def answered(self, model: str, done: WorkerResult) -> None:
        """A photo was answered."""
        ...

    def event(self, name: Event, **facts: object) -> None:
        """A worker started, died, …"""
        ...


@dataclass(slots=True)
class Engine:
    """One bundle being served."""

    model: Model
    """The service's own copy: it reads claims and answers, and never embeds."""
    settings: ServeSettings
    observer: Observer
    workers: list[Worker] = field(default_factory=list)
    golden: ReferenceAnswer | None = None
    """What it must say of the golden photo: as when it was made, else as the first worker."""
    since: float = 0.0
    """When it became ready, Unix time."""
    _queue: OrderedDict[int, Waiting] = field(default_factory=OrderedDict)
    _under_way: dict[int, Waiting] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: bool = False
    _broken: str = ""
    """Why no worker starts any more; empty where one does."""
    _pace: float = 0.05
    """Seconds a photo, lately."""
    _last: float = 0.0

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.model.bundle.manifest.name

    @property
    def ready(self) -> bool:
        """Whether a worker is warm."""
        return not self._closing and any(worker.ready and not worker.leaving for worker in self.workers)

    @property
    def runtime(self) -> str:
        """What runs the backbone."""
        return next((worker.ready.runtime for worker in self.workers if worker.ready), self.settings.runtime)

    @property
    def photos(self) -> int:
        """Photos under way, waiting ones included."""
        return len(self._queue) + len(self._under_way)

    async def start(self) -> None:
        """Start the workers, and go on watching them.

        Raises:
            NameplateError: the bundle cannot be served.
        """
        if self.settings.tta == NO_TTA:  # it was made with one look
            self.golden = self.golden or self.model.bundle.manifest.golden
        try:
            first = await self._warm_worker()
        except BaseException:
            await self.stop()
            raise
        self.golden = self.golden or ReferenceAnswer(first.ready.golden.top)  # type: ignore[union-attr]
        self.since = time.time()
        self._keep(self._attend(first))
        for _ in range(self.settings.workers - 1):
            self._keep(self._attend(None))
        self._keep(self._watch())

    async def stop(self, patience: float = 0.0) -> None:
        """Answer what is under way, for so many seconds, then end the workers."""
        self._closing = True
        until = time.monotonic() + patience
        while self.photos and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.end(1.0) for worker in self.workers))
        self.workers.clear()
        for waiting in [*self._queue.values(), *self._under_way.values()]:
            self._settle(waiting, Problem("not-ready", "The service is stopping. Try another, or again shortly.", 1))

    async def answer(
        self,
        photos: Sequence[bytes],
        names: Sequence[str],
        *,
        form: Literal["file", "picture"] = "file",
        top: int = TOP,
        heatmap: bool = False,
        embeddings: bool = False,
    ) -> list[ServedAnswer]:
        """Name the cars in photos; all are taken in, or none.

        Args:
            photos: files, or with form `picture` the model's pictures, uint8 H×W×3, as bytes.
            names: what the answers call them.
            form: which of the two.
            top: how many nameplates to give for each.
            heatmap: whether to draw what speaks for the answer.
            embeddings: whether to give the embeddings.

        Raises:
            Problem: the queue is full, the service is not ready, or the answer took too long.
        """
        self.require_room(len(photos))
        seconds = self.settings.request_seconds
        loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
        wanted = [
            Waiting(WorkerJob(next(self._numbers), name, seconds, form, top, heatmap, embeddings), photo, until,
                    loop.create_future())
            for photo, name in zip(photos, names, strict=True)
        ]  # fmt: skip
        self._queue.update((waiting.job.id, waiting) for waiting in wanted)
        self._pump()
        try:
            async with asyncio.timeout(seconds):
                return [await waiting.answer for waiting in wanted]
        except TimeoutError:
            raise Problem("late", f"No answer within {seconds:g} s. Try again later.", self._backlog) from None
        finally:
            self._forget(wanted)

    def require_room(self, photos: int) -> None:
        """Say no before any more work is done for a request that brings so many photos.

        Raises:
            Problem: the queue is full, or the service is not ready.
        """
        if not self.ready and (self._closing or self._broken or not self.since):
            raise Problem("not-ready", f"'{self.name}' is not ready yet. Try again shortly.", retry_after=1)
        cap = self.settings.queue_photos
        if self.photos + photos > cap:
            raise Problem(
                "full", f"{self.photos} of {cap} photos are under way, and {photos} more would be too many. "
                "Try again shortly.", retry_after=self._backlog,
            )  # fmt: skip

    @property
    def _backlog(self) -> float:
        """Seconds that what is under way will take."""
        return self._pace * self.photos

    def _pump(self) -> None:
        """Give waiting jobs to workers that have room, the least busy first."""
        while self._queue:
            waiting = next(iter(self._queue.values()))
            worker = self._free_worker(alone=waiting.tries > 0)
            if worker is None:
                return
            self._queue.pop(waiting.job.id)
            waiting.worker, waiting.tries = worker, waiting.tries + 1
            self._under_way[waiting.job.id] = waiting
            left = structs.replace(waiting.job, seconds=waiting.until - time.monotonic())
            worker.give(left, waiting.photo)

    def _free_worker(self, *, alone: bool) -> Worker | None:
        """Who takes the next job; what is tried again is alone with its worker."""
        able = [w for w in self.workers if w.ready and not w.leaving and not self._reserved(w)]
        room = 1 if alone else self.window
        return min(
            (w for w in able if len(w.jobs) < room and not (w.jobs and w.clogged)),
            key=lambda w: len(w.jobs),
            default=None,
        )

    def _reserved(self, worker: Worker) -> bool:
        return any(self._under_way[job].tries > 1 for job in worker.jobs if job in self._under_way)

    @property
    def threads(self) -> int:
        """Processors for each worker."""
        return max(1, (self.settings.threads or available_cpus()) // self.settings.workers)

    @property
    def window(self) -> int:
        """Photos that one worker has at once: enough to decode while others are embedded, and to fill batches."""
        return BATCH * (self.threads + 1)

    def _done(self, done: WorkerResult, body: bytes) -> None:
        """A worker has answered."""
        now = time.monotonic()
        if self._last and self.photos > 1:
            self._pace += 0.05 * (min(1.0, now - self._last) - self._pace)
        self._last = now
        waiting = self._under_way.pop(done.id, None)
        if done.stale and waiting is not None and waiting.worker is not None:
            waiting.worker.leaving = True
        if done.prediction is not None:
            self.observer.answered(self.name, done)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(read_answer(done, body) if done.prediction else late(waiting))
        self._pump()

    def _settle(self, waiting: Waiting, outcome: ServedAnswer | Problem) -> None:
        self._queue.pop(waiting.job.id, None)
        self._under_way.pop(waiting.job.id, None)
        if waiting.answer.done():
            return
        if isinstance(outcome, Problem):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)

    def _forget(self, wanted: Sequence[Waiting]) -> None:
        """Whoever asked has gone: what still waits is dropped, what is under way is cancelled."""
        for waiting in wanted:
            self._queue.pop(waiting.job.id, None)
            if waiting.job.id in self._under_way and waiting.worker is not None:
                waiting.worker.cancel((waiting.job.id,))
            if waiting.answer.done():
                waiting.answer.cancelled() or waiting.answer.exception()  # seen: asyncio complains of it otherwise
            else:
                waiting.answer.cancel()

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm_worker(self) -> Worker:
        """A new worker that says of the golden photo what it should.

        Raises:
            NameplateError: it does not, or does not start.
        """
        settings, start = self.settings, time.monotonic()
        folder = self.model.bundle.folder
        worker = await start_worker(
            Setup(str(folder), settings.runtime, self.threads, settings.limits, settings.tta, settings.batch_wait)
        )
        self.workers.append(worker)
        try:
            ready = await worker.warm()
            problem = self.golden and reference_problem(self.golden, ready.golden, ready.runtime)
            if problem:
                raise NameplateError(f"'{self.name}' does not answer as it should: {problem}.")
        except BaseException:
            self.workers.remove(worker)
            await worker.end()
            raise
        self.observer.event("worker ready", model=self.name, pid=worker.pid, seconds=time.monotonic() - start)
        return worker

    async def _attend(self, worker: Worker | None) -> None:
        """Keep one place filled with a worker that lives."""
        young = 0
        while True:
            if worker is None:
                await asyncio.sleep(PAUSES[min(young, len(PAUSES) - 1)])
                try:
                    worker = await self._warm_worker()
                except NameplateError as error:
                    self._broken = str(error) if young else ""  # one may have been killed as it started
                    self.observer.event("worker failed", model=self.name, reason=str(error))
                    young += 1
                    continue
                self._broken = ""
            born = time.monotonic()
            self._pump()
            await worker.listen(self._done)
            self.workers.remove(worker)
            code = await worker.end()
            self._on_worker_exit(worker, code)
            young = young + 1 if time.monotonic() - born < YOUNG else 0
            worker = None

    def _on_worker_exit(self, worker: Worker, code: int) -> None:
        """A worker is gone: try what it had once more, and give up what was tried twice."""
        self.observer.event("worker died", model=self.name, pid=worker.pid, code=code, photos=len(worker.jobs))
        lost = [self._under_way[job] for job in sorted(worker.jobs) if job in self._under_way]
        for waiting in lost:
            if waiting.tries > 1:
                named = Prediction(waiting.job.name, failure=Failure("damaged", KILLER))
                self._settle(waiting, ServedAnswer(named))
            else:
                del self._under_way[waiting.job.id]
                self._queue[waiting.job.id] = waiting
        for waiting in reversed([each for each in lost if each.job.id in self._queue]):
            self._queue.move_to_end(waiting.job.id, last=False)

    async def _watch(self) -> None:
        """Kill workers that stall, and those that a photo has left busy once they have nothing else to do."""
        patience = STALL_SECONDS + self.settings.limits.seconds
        while True:
            await asyncio.sleep(0.2)
            now = time.monotonic()
            for worker in self.workers:
                # A killed worker stays in the list until its socket closes, which may take several rounds of this
                # loop on a busy machine. It is killed, and reported, once.
                if worker.killed or not worker.ready:
                    continue
                stalled = bool(worker.jobs) and now - worker.heard > patience
                if stalled or (worker.leaving and not worker.jobs):
                    self.observer.event("worker killed", model=self.name, pid=worker.pid, stalled=stalled)
                    worker.kill()
