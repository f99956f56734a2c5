"""`Engine`: one bundle behind a queue with a hard cap, and the worker processes that empty it.

A worker that dies is replaced. The photos that it had are tried once more, each alone with its worker: so a photo that
kills the decoder is found, and costs no other photo its answer.

Clients share the queue. Of those that have photos in it, the one with the fewest at the workers is next; and when the
queue is full, the client that has the most in it gives way to one that has fewer (B. Suter et al., "Design
considerations for supporting TCP with per-flow queueing", 1998: longest queue drop). A client alone may fill it.

The queue is full when it holds so many photos (`queue_photos`), or when those ahead would take too long
(`queue_seconds`): the same number of photos is a short wait on one machine and a long one on another.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from msgspec import structs

from nameplate.defaults import NO_TTA
from nameplate.errors import Failure, NameplateError
from nameplate.model.model import Model
from nameplate.model.reference import ReferenceAnswer, reference_problem
from nameplate.runtime.base import BATCH
from nameplate.runtime.select import available_cpus
from nameplate.serve.errors import Problem
from nameplate.serve.ipc import (
    USUAL,
    JobOptions,
    ServedAnswer,
    Setup,
    Waiting,
    WorkerJob,
    WorkerProcess,
    WorkerResult,
    late,
    read_answer,
    start_worker,
)
from nameplate.serve.settings import ServeSettings
from nameplate.serve.throughput import Throughput
from nameplate.serve.tracing import add_photos
from nameplate.types import Prediction

STALL_SECONDS = 15.0
"""A worker that has work is killed if it sends nothing for this time plus the time limit of one photo."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds to wait before the next start; the index is the number of workers in a row that died young."""
YOUNG = 10.0
"""A worker that lives for fewer seconds has died young."""
KILLER = "the decoder died of it, twice"
"""The detail of the failure of a photo that ends two workers."""
DISPLACED = "The queue is full, and this client has the most photos in it. Send fewer at once, or again shortly."
"""The detail of the refusal of photos that gave way to another client's."""


Event = Literal[
    "worker ready", "worker failed", "worker died", "worker killed", "worker fault", "reload", "reload refused"
]
"""Events of a served bundle, by the names that they have in logs."""


class Observer(Protocol):
    """Is told what happens in an engine, for metrics and logs."""

    def answered(self, model: str, done: WorkerResult) -> None:
        """Take note that a photo was answered."""
        ...

    def event(self, name: Event, **facts: object) -> None:
        """Take note of an event and its facts, such as `pid`."""
        ...


@dataclass(slots=True)
class Engine:
    """One served bundle: its queue and its workers."""

    model: Model
    """The service's own copy. It decides claims and verdicts, and never embeds a photo."""
    settings: ServeSettings
    observer: Observer
    name: str = ""
    """What the model is called here; empty: as its bundle is."""
    workers: list[WorkerProcess] = field(default_factory=list)
    reference: ReferenceAnswer | None = None
    """The answer that every worker must give for the reference image: the bundle's own, or else the first worker's."""
    since: float = 0.0
    """When the engine became ready (Unix time); 0 before."""
    _queue: dict[int, Waiting] = field(default_factory=dict)
    _under_way: dict[int, Waiting] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: bool = False
    _broken: str = ""
    """Why no worker can be started any more; empty if one can."""
    _answered: float = field(default_factory=time.monotonic)
    """When a worker was last seen ready."""
    _throughput: Throughput = field(default_factory=Throughput)
    _cpus: int = field(default_factory=available_cpus)

    def __post_init__(self) -> None:
        """Take the bundle's name where the operator gave none."""
        self.name = self.name or self.model.bundle.manifest.name

    @property
    def ready(self) -> bool:
        """Whether at least one worker is warm."""
        return not self._closing and any(worker.ready and not worker.leaving for worker in self.workers)

    @property
    def runtime(self) -> str:
        """The runtime that runs the backbone."""
        return next((worker.ready.runtime for worker in self.workers if worker.ready), self.settings.runtime)

    @property
    def photos(self) -> int:
        """Number of photos in the queue or with a worker."""
        return len(self._queue) + len(self._under_way)

    @property
    def quick(self) -> int:
        """Number of these photos of which no worker has said that they take long to decode."""
        return self.photos - sum(waiting.slow for waiting in self._under_way.values())

    @property
    def room(self) -> int:
        """How many quick photos are answered within `queue_seconds`; at least a batch, so that no worker idles."""
        return max(BATCH, int(self.settings.queue_seconds / self._throughput.seconds))

    @property
    def lost_seconds(self) -> float:
        """Seconds since a worker was last ready; 0 before the first one was."""
        return time.monotonic() - self._answered if self.since else 0.0

    async def start(self) -> None:
        """Start the workers and supervise them from now on.

        Raises:
            NameplateError: the bundle cannot be served.
        """
        # The bundle's reference answer was made without TTA and in the usual way to locate the car.
        if self.settings.tta == NO_TTA and self.settings.cars == "main":
            self.reference = self.reference or self.model.bundle.manifest.golden
        try:
            first = await self._warm_worker()
        except BaseException:
            await self.stop()
            raise
        self.reference = self.reference or ReferenceAnswer(first.ready.reference.top)  # type: ignore[union-attr]
        self.since = time.time()
        self._spawn(self._supervise(first))
        # The first worker has proven that the bundle can be served; the others may start while it answers.
        for _ in range(self.settings.workers - 1):
            self._spawn(self._supervise(None))
        self._spawn(self._kill_stalled())

    async def stop(self, patience: float = 0.0) -> None:
        """Answer what is under way for up to `patience` seconds, then end the workers and refuse the rest."""
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
        options: JobOptions = USUAL,
        *,
        client: str = "",
    ) -> list[ServedAnswer]:
        """Identify the cars in photos. Either all photos are queued, or none.

        Args:
            photos: the bytes of files, or with form `input` of prepared model inputs, uint8 H×W×3.
            names: the photos' names in the answers.
            options: how each is to be answered.
            client: whose photos they are.

        Raises:
            Problem: the queue is full, the service is not ready, or the answer took too long.
        """
        for waiting in self.require_room(len(photos), client):
            self._settle(waiting, Problem("full", DISPLACED, retry_after=self._backlog))
        seconds = self.settings.request_seconds
        loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
        wanted = [
            Waiting(WorkerJob(next(self._numbers), name, seconds, options, client), photo, until, loop.create_future())
            for photo, name in zip(photos, names, strict=True)
        ]  # fmt: skip
        if not self.quick:
            self._throughput.begin()
        # No await since `require_room`, so no other request can have filled the queue in between.
        self._queue.update((waiting.job.id, waiting) for waiting in wanted)
        self._pump()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.gather(*(waiting.answer for waiting in wanted))
        except TimeoutError:
            raise Problem("late", f"No answer within {seconds:g} s. Try again later.", self._backlog) from None
        finally:
            add_photos(waiting.times for waiting in wanted)
            self._forget(wanted)  # also if this coroutine is cancelled because the client has gone

    def require_room(self, photos: int, client: str = "") -> list[Waiting]:
        """Refuse a request early, before any more work is done for it.

        Args:
            photos: how many photos the request brings at least.
            client: whose photos they are.

        Returns:
            The jobs that must give way to it.

        Raises:
            Problem: the queue is full, or the service is not ready.
        """
        # While a dead worker is replaced, requests are queued. They are refused only if none can be expected to come.
        if not self.ready and (self._closing or self._broken or not self.since):
            raise Problem("not-ready", f"'{self.name}' is not ready yet. Try again shortly.", retry_after=1)
        cap = self.settings.queue_photos
        # However many photos a request brings, the first may be answered in time: otherwise none of many would ever be.
        excess = max(self.photos + photos - cap, self.quick + 1 - self.room)
        displaced = self._displaced(excess, photos, client) if excess > 0 else []
        if len(displaced) < excess:
            raise Problem(
                "full", f"{self.photos} of {cap} photos are under way, which take some {self._backlog:.1f} s, and "
                f"{photos} more would be too many. Try again shortly.", retry_after=self._backlog,
            )  # fmt: skip
        return displaced

    def _displaced(self, excess: int, photos: int, client: str) -> list[Waiting]:
        """Up to `excess` queued jobs, the newest of those clients that have more under way than `client` will have."""
        waiting: dict[str, list[Waiting]] = {}
        for each in self._queue.values():
            waiting.setdefault(each.job.client, []).append(each)
        has = Counter(each.job.client for each in (*self._queue.values(), *self._under_way.values()))
        will_have = has[client] + photos
        found: list[Waiting] = []
        while len(found) < excess:
            most = max((name for name, jobs in waiting.items() if jobs), key=has.__getitem__, default=client)
            if has[most] <= will_have:
                break
            found.append(waiting[most].pop())
            has[most] -= 1
        return found

    @property
    def _backlog(self) -> float:
        """Estimated seconds until everything under way is answered."""
        return self._throughput.seconds * self.photos

    def _pump(self) -> None:
        """Give queued jobs to workers that have room, the least busy worker first."""
        while self._queue and self._free_worker(alone=False):
            waiting = self._next()
            worker = self._free_worker(alone=waiting.tries > 0)
            if worker is None:
                return
            self._queue.pop(waiting.job.id)
            waiting.worker, waiting.tries = worker, waiting.tries + 1
            self._under_way[waiting.job.id] = waiting
            # Clocks of two processes need not agree, so the worker is told the time left and not the deadline.
            worker.give(structs.replace(waiting.job, seconds=waiting.until - time.monotonic()), waiting.photo)

    def _next(self) -> Waiting:
        """The queued job whose turn it is: one that is tried again, or the oldest of the client that has the fewest
        with workers.
        """
        served = Counter(waiting.job.client for waiting in self._under_way.values())
        return min(self._queue.values(), key=lambda each: (each.tries == 0, served[each.job.client], each.job.id))

    def _free_worker(self, *, alone: bool) -> WorkerProcess | None:
        """Find the worker for the next job; None if all are busy. A job that is tried again needs an idle worker."""
        able = [w for w in self.workers if w.ready and not w.leaving and not self._reserved(w)]
        return min(
            (w for w in able if (not w.jobs if alone else w.quick < self.window) and not (w.jobs and w.clogged)),
            key=lambda w: len(w.jobs),
            default=None,
        )

    def _reserved(self, worker: WorkerProcess) -> bool:
        """Whether a worker has a job that is tried again, and so must get no other."""
        return any(self._under_way[job].tries > 1 for job in worker.jobs if job in self._under_way)

    @property
    def threads(self) -> int:
        """Processors of each worker."""
        together = self.settings.threads_of.get(self.name) or self.settings.threads or self._cpus
        return max(1, together // self.settings.workers)

    @property
    def window(self) -> int:
        """Quick photos that one worker may have at once: enough to fill a batch and to decode the next meanwhile.

        On a slow machine they are fewer: half of those that may wait stay here, where they can give way to others.
        """
        return min(BATCH * (self.threads + 1), max(BATCH, self.room // (2 * self.settings.workers)))

    def _slow(self, job: int) -> None:
        """Take note that a photo takes long to decode, and give its worker another."""
        if job in self._under_way:
            self._under_way[job].slow = True
        self._pump()

    def _done(self, done: WorkerResult, body: bytes) -> None:
        """Settle the job that a worker has answered."""
        quick = self.quick
        waiting = self._under_way.pop(done.id, None)
        if waiting is None or not waiting.slow:
            self._throughput.answered(busy=quick > 1)
        # The worker still answers what it has, but gets nothing new; `_kill_stalled` ends it when it is done.
        if done.stale and waiting is not None and waiting.worker is not None:
            waiting.worker.leaving = True
        if done.prediction is not None:
            self.observer.answered(self.name, done)
        if waiting is not None and not waiting.answer.done():
            waiting.times.answered(done.spans)
            waiting.answer.set_result(read_answer(done, body) if done.prediction else late(waiting))
        self._pump()

    def _settle(self, waiting: Waiting, outcome: ServedAnswer | Problem) -> None:
        """End a job here, without a worker's answer."""
        self._queue.pop(waiting.job.id, None)
        self._under_way.pop(waiting.job.id, None)
        if waiting.answer.done():
            return
        if isinstance(outcome, Problem):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)

    def _forget(self, wanted: Sequence[Waiting]) -> None:
        """Drop the jobs of a request that has ended; those that are with a worker are cancelled there."""
        for waiting in wanted:
            self._queue.pop(waiting.job.id, None)
            if waiting.job.id in self._under_way and waiting.worker is not None:
                waiting.worker.cancel((waiting.job.id,))
            if waiting.answer.done():
                waiting.answer.cancelled() or waiting.answer.exception()  # asyncio logs exceptions that nobody fetched
            else:
                waiting.answer.cancel()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine in the background. The set keeps its task alive: asyncio itself holds weak references."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm_worker(self) -> WorkerProcess:
        """Start a worker and check its answer for the reference image.

        Raises:
            NameplateError: the worker does not start, or answers differently.
        """
        settings, start = self.settings, time.monotonic()
        folder = self.model.bundle.folder
        worker = await start_worker(
            Setup(
                str(folder),
                settings.runtime,
                self.threads,
                settings.limits,
                settings.tta,
                settings.cars,
                settings.batch_wait,
            ),
            lambda pid, said: self.observer.event("worker fault", model=self.name, pid=pid, traceback=said),
        )
        self.workers.append(worker)
        try:
            ready = await worker.warm()
            problem = self.reference and reference_problem(self.reference, ready.reference, ready.runtime)
            if problem:
                raise NameplateError(f"'{self.name}' does not answer as it should: {problem}.")
        except BaseException:
            self.workers.remove(worker)
            await worker.end()
            raise
        self.observer.event("worker ready", model=self.name, pid=worker.pid, seconds=time.monotonic() - start)
        return worker

    async def _supervise(self, worker: WorkerProcess | None) -> None:
        """Keep one of the places for workers filled: start a worker, listen to it, and replace it when it dies."""
        young = 0
        while True:
            if worker is None:
                await asyncio.sleep(PAUSES[min(young, len(PAUSES) - 1)])
                try:
                    worker = await self._warm_worker()
                except Exception as error:  # also that there are no file descriptors or processes left just now
                    # One failed start proves nothing: the worker may have been killed from outside meanwhile.
                    self._broken = str(error) if young else ""
                    self.observer.event("worker failed", model=self.name, reason=f"{type(error).__name__}: {error}")
                    young += 1
                    continue
                self._broken = ""
            born = time.monotonic()  # a start does not count as life
            self._pump()
            await worker.listen(self._done, self._slow)
            self.workers.remove(worker)
            code = await worker.end()
            self._on_worker_exit(worker, code)
            young = young + 1 if time.monotonic() - born < YOUNG else 0
            worker = None

    def _on_worker_exit(self, worker: WorkerProcess, code: int) -> None:
        """Queue a dead worker's jobs again; those that were tried twice are answered with a failure."""
        self.observer.event("worker died", model=self.name, pid=worker.pid, code=code, photos=len(worker.jobs))
        lost = [self._under_way[job] for job in sorted(worker.jobs) if job in self._under_way]
        for waiting in lost:
            if waiting.tries > 1:
                named = Prediction(waiting.job.name, failure=Failure("damaged", KILLER))
                self._settle(waiting, ServedAnswer(named))
            else:
                del self._under_way[waiting.job.id]
                self._queue[waiting.job.id] = waiting

    async def _kill_stalled(self) -> None:
        """Kill workers that stall, and workers with a decoder that cannot be stopped once they have no other jobs."""
        patience = STALL_SECONDS + self.settings.limits.seconds
        while True:
            await asyncio.sleep(0.2)
            now = time.monotonic()
            if self.ready:
                self._answered = now
            for worker in self.workers:
                # A killed worker stays in the list until its socket closes, which may take several rounds of this
                # loop on a busy machine. It is killed, and reported, once.
                if worker.killed or not worker.ready:
                    continue
                stalled = bool(worker.jobs) and now - worker.last_heard > patience
                if stalled or (worker.leaving and not worker.jobs):
                    self.observer.event("worker killed", model=self.name, pid=worker.pid, stalled=stalled)
                    worker.kill()
