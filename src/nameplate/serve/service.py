"""`Service`: what all routes share.

`Engines` holds the served bundles and exchanges them while
requests go on, and `EngineObserver` passes on what happens in them to metrics and logs.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response

from nameplate.errors import BundleError, NameplateError, UsageError, did_you_mean
from nameplate.model.bundle import BACKBONE, IN_RUN, MANIFEST, MAX_BYTES, load_bundle
from nameplate.model.model import Model
from nameplate.runtime.select import check_runtime
from nameplate.serve.access import Client
from nameplate.serve.budget import Arrival, Budget
from nameplate.serve.copies import BundleCopy, remove_orphans
from nameplate.serve.engine import Engine, Event, Observer
from nameplate.serve.errors import Problem
from nameplate.serve.feedback.store import FeedbackStore
from nameplate.serve.ipc import WorkerResult
from nameplate.serve.keys import Keys
from nameplate.serve.observability import Metrics, event
from nameplate.serve.rates import parse_rate
from nameplate.serve.settings import ServeSettings
from nameplate.storage import sha256

CHECK_SECONDS = 1.0
"""Seconds between two checks whether a bundle has changed on disk."""


@dataclass(slots=True)
class Served:
    """A bundle that is served."""

    source: str
    """The name or path that the operator gave."""
    engine: Engine
    copy: BundleCopy
    """A copy of the bundle. Workers that start later read it, so changes to the original cannot reach them."""
    digest: str
    """SHA-256 of its bundle.json, which itself holds the SHA-256 of all other files."""
    exchanging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during a reload, so that two requests for one do not load the bundle twice."""


@dataclass(slots=True)
class Engines:
    """All served bundles by name. The first one answers requests that name no model."""

    settings: ServeSettings
    observer: Observer
    served: dict[str, Served] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def load(self) -> None:
        """Read and check every bundle; no worker is started yet.

        Raises:
            NameplateError: a bundle cannot be served.
            UsageError: two bundles have the same name.
        """
        if orphans := remove_orphans():
            event("copies removed", folders=orphans, reason="their service was killed")
        with ExitStack() as copies:
            for source in self.settings.bundles:
                served = self._read(source)
                copies.callback(served.copy.remove)
                name = served.engine.name
                if name in self.served:
                    raise UsageError(f"Two bundles are called '{name}'. Serve one of them, or rename one.")
                self.served[name] = served
            copies.pop_all()

    async def start(self) -> None:
        """Start every bundle's workers.

        Raises:
            NameplateError: a bundle cannot be served.
        """
        for served in self.served.values():
            await served.engine.start()
        if self.settings.reload_on_change:
            self._spawn(self._reload_changes())

    async def stop(self, patience: float) -> None:
        """Answer what is under way for up to `patience` seconds, then end all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(served.engine.stop(patience) for served in self.served.values()))
        self.remove_copies()  # last: a worker that restarts meanwhile still reads its copy

    def remove_copies(self) -> None:
        """Delete the copies of the bundles from disk."""
        for served in self.served.values():
            served.copy.remove()

    @property
    def ready(self) -> dict[str, bool]:
        """Bundle's name → whether it answers."""
        return {name: served.engine.ready for name, served in self.served.items()}

    def get(self, name: str | None = None) -> Engine:
        """Return the engine of that name, or the first one if no name is given.

        Raises:
            Problem: no bundle has that name (`not-found`).
        """
        return self.find(name).engine

    def find(self, name: str | None = None) -> Served:
        """Like `get`, but return the `Served` bundle, which has the engine."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            known = ", ".join(self.served)
            raise Problem(
                "not-found", f"No model '{name[:80]}' is served.{did_you_mean(name, self.served)} There is {known}."
            )
        return self.served[name]

    async def reload(self, name: str) -> bool:
        """Exchange a bundle for the one that is now on disk: load, check, warm up, switch.

        Returns:
            Whether it changed; False if the files on disk are the ones that are served already.

        Raises:
            Problem: the new bundle cannot be served (`conflict`); the old one goes on.
        """
        served = self.find(name)
        async with served.exchanging:
            try:
                changed = await self._exchange(served)
            except NameplateError as error:
                self.observer.event("reload refused", model=name, reason=str(error))
                raise Problem("conflict", f"'{name}' goes on as it was: {error}") from None
        self.observer.event("reload", model=name, changed=changed, digest=served.digest)
        return changed

    async def _exchange(self, served: Served) -> bool:
        # Reading and hashing a bundle takes seconds; in a thread, the event loop goes on answering.
        new = await asyncio.to_thread(self._read, served.source)
        try:
            if new.digest == served.digest:
                new.copy.remove()
                return False
            # Clients address a bundle by its name, so the new one must have the same.
            if new.engine.name != served.engine.name:
                raise BundleError(f"the bundle is called '{new.engine.name}' now")
            await new.engine.start()
        except BaseException:
            new.copy.remove()
            raise
        # No `await` from here to the assignment: requests see either the old engine or the new one, with its digest.
        old, copy = served.engine, served.copy
        served.engine, served.copy, served.digest = new.engine, new.copy, new.digest

        async def drain() -> None:
            await old.stop(self.settings.drain_seconds)
            copy.remove()

        self._spawn(drain())  # requests that the old engine has taken are still answered by it
        return True

    def _read(self, source: str) -> Served:
        original = load_bundle(source).folder
        assert original is not None
        try:
            copy = BundleCopy.make()
        except OSError as error:
            raise _not_copied(source, error) from None
        try:
            for name in MAX_BYTES:  # a bundle's own files; a run's folder may hold gigabytes of others
                if (original / name).is_file():
                    shutil.copyfile(original / name, copy.folder / name)
            settings = self.settings
            # This process only decides verdicts with the model and never opens the runtime, so the choice is free.
            model = Model.load(
                copy.folder,
                runtime="onnxruntime",
                threads=1,
                limits=settings.limits,
                tta=settings.tta,
                cars=settings.cars,
            )
            model.require_head()
            digest = sha256((copy.folder / MANIFEST).read_bytes())
            return Served(source, Engine(model, settings, self.observer), copy, digest)
        except OSError as error:
            copy.remove()
            raise _not_copied(source, error) from None
        except BaseException:
            copy.remove()
            raise

    async def _reload_changes(self) -> None:
        """Reload bundles that change on disk. One that is refused is not tried again until it changes once more."""
        seen = {name: _stamp(served.source) for name, served in self.served.items()}
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for name, served in self.served.items():
                stamp = _stamp(served.source)
                if stamp is None or stamp == seen[name]:
                    continue
                seen[name] = stamp
                try:
                    await self.reload(name)
                except Problem:
                    continue  # `reload` has told the observer

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine in the background. The set keeps its task alive: asyncio itself holds weak references."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _not_copied(source: str, error: OSError) -> BundleError:
    return BundleError(f"Cannot copy '{source}': {error.strerror or error}.")


def _stamp(source: str) -> tuple[int, ...] | None:
    """Times, sizes and inodes of a bundle's files; None while they are missing, as in the middle of a replacement."""
    for folder in (Path(source), Path(source) / IN_RUN):  # a bundle itself, or the folder of a training run
        try:
            found = [(folder / name).stat() for name in (MANIFEST, BACKBONE)]
        except OSError:
            continue
        return tuple(number for each in found for number in (each.st_mtime_ns, each.st_size, each.st_ino))
    return None


WARNINGS: frozenset[Event] = frozenset({"worker died", "worker killed", "worker failed", "reload refused"})
"""Events that an operator should look at."""


@dataclass(frozen=True, slots=True)
class EngineObserver:
    """Passes on what happens in the engines to metrics and logs; implements `engine.Observer`."""

    metrics: Metrics

    def answered(self, model: str, done: WorkerResult) -> None:
        """Count a photo, and record the time that each stage took."""
        metrics = self.metrics
        if done.prediction is not None:
            metrics.photo(model, done.prediction)
        if done.batch:
            metrics.batch_size.labels(model).observe(done.batch)
        for stage, seconds in done.seconds.items():
            metrics.stage_seconds.labels(model, stage).observe(seconds)

    def event(self, name: Event, **facts: object) -> None:
        """Log an event, and count restarts and reloads."""
        model = str(facts.get("model"))
        if name == "worker died":
            self.metrics.worker_restarts.labels(model).inc()
        elif name == "reload refused":
            self.metrics.reloads.labels(model, "refused").inc()
        elif name == "reload":
            self.metrics.reloads.labels(model, "exchanged" if facts.get("changed") else "unchanged").inc()
        level = "error" if name == "worker fault" else "warning" if name in WARNINGS else "info"
        event(name, level=level, **facts)


def current_state(engines: Engines, budget: Budget) -> Iterator[Metric]:
    """Yield gauges of the queues, the workers and the bundles as they are now."""
    photos = GaugeMetricFamily("nameplate_queue_photos", "Photos under way, waiting ones included.", labels=["model"])
    memory = GaugeMetricFamily(
        "nameplate_worker_resident_memory_bytes", "Memory of a worker.", labels=["model", "worker"]
    )
    ready = GaugeMetricFamily("nameplate_workers_ready", "Workers that are warm.", labels=["model"])
    info = GaugeMetricFamily("nameplate_model_info", "1 for each bundle served.", labels=["model", "digest"])
    for name, served in engines.served.items():
        workers = served.engine.workers
        photos.add_metric([name], served.engine.photos)
        ready.add_metric([name], sum(worker.ready is not None and not worker.leaving for worker in workers))
        info.add_metric([name, served.digest], 1)
        for number, worker in enumerate(workers):
            memory.add_metric([name, str(number)], worker.memory)
    yield from (photos, memory, ready, info)
    yield GaugeMetricFamily("nameplate_queue_bytes", "Bytes of requests' bodies in memory.", value=budget.used)


T = TypeVar("T")


@dataclass(slots=True)
class Service:
    """A running service."""

    settings: ServeSettings
    engines: Engines
    budget: Budget
    metrics: Metrics = field(default_factory=Metrics)
    keys: Keys | None = None
    """None if no keys are required."""
    feedback: FeedbackStore | None = None
    """The store of users' corrections; None if corrections are not taken."""
    draining: bool = False
    """Whether the service is stopping: it is no longer ready, and proxies should send nothing new."""
    ending: bool = False
    """Whether it takes no new connections any more."""
    _arrivals: set[Arrival] = field(default_factory=set)

    @classmethod
    def of(cls, settings: ServeSettings) -> Service:
        """Make a service: its bundles are read and checked, its workers are not started yet.

        Raises:
            NameplateError: a bundle cannot be served.
            UsageError: some settings contradict each other.
        """
        check(settings)
        keys = None if settings.keys is None else Keys(settings.keys, failed=_keys_not_read)
        metrics, budget = Metrics(), Budget(settings.queue_bytes)
        engines = Engines(settings, EngineObserver(metrics))
        engines.load()
        metrics.add_gauges(lambda: current_state(engines, budget))
        return cls(settings, engines, budget, metrics, keys, _open_feedback(settings))

    @contextmanager
    def arriving(self, arrival: Arrival) -> Iterator[None]:
        """Hurry a body that is read in this block when the service ends."""
        self._arrivals.add(arrival)
        if self.ending:
            arrival.hurry()
        try:
            yield
        finally:
            self._arrivals.discard(arrival)

    def hurry(self) -> None:
        """Have little patience with bodies that still arrive: the service ends as soon as all are answered."""
        self.ending = True
        for arrival in self._arrivals:
            arrival.hurry()

    @property
    def ready(self) -> bool:
        """Whether every bundle answers."""
        return not self.draining and all(self.engines.ready.values())


def _keys_not_read(why: str) -> None:
    event("keys not read", level="error", reason=why)


def _open_feedback(settings: ServeSettings) -> FeedbackStore | None:
    if settings.feedback is None:
        return None
    return FeedbackStore.open(settings.feedback, cap=settings.feedback_bytes)


def check(settings: ServeSettings) -> None:
    """Check that the settings go together.

    Raises:
        UsageError: some settings contradict each other.
    """
    check_runtime(settings.runtime)
    if settings.queue_photos < settings.photos:
        raise UsageError(
            f"The queue takes {settings.queue_photos} photos and one request may bring {settings.photos}: "
            "such a request would always be refused."
        )
    if settings.rate is not None:
        parse_rate(settings.rate)
    if settings.queue_bytes < 2 * settings.body_bytes:
        raise UsageError(
            f"The queue takes {settings.queue_bytes:,} bytes, one client half of them, and one request may bring "
            f"{settings.body_bytes:,}: such a request would always be refused."
        )


def service_of(request: Request) -> Service:
    """Return the service that a request has reached."""
    service: Service = request.app.state.service
    return service


def share_of(request: Request) -> str:
    """Return the name under which the bytes and photos of the request's client are counted."""
    client: Client = request.scope["state"]["client"]
    return client.share


def json_response(value: object, status: int = 200) -> Response:
    """Make a JSON response, encoded by msgspec as all of Nameplate's JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Gone(Exception):  # noqa: N818 - nothing has failed
    """The client has closed the connection."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await some work, and cancel it when the client closes the connection. The body must have been read before.

    Raises:
        Gone: the client has closed the connection.
    """
    # Starlette reports a closed connection only to who asks for the next message, so a second task asks for it.
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
