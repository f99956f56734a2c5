"""`Service`: what all routes share."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
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
from nameplate.serve.access import parse_rate
from nameplate.serve.engine import Engine, Event, Observer
from nameplate.serve.errors import Problem
from nameplate.serve.feedback.store import FeedbackStore
from nameplate.serve.ipc import WorkerResult
from nameplate.serve.keys import Keys
from nameplate.serve.observability import Metrics, event
from nameplate.serve.settings import ServeSettings
from nameplate.storage import sha256

# JOINED `Budget`: the bytes of all requests' bodies that are in memory, under a hard cap.


@dataclass(slots=True)
class Hold:
    """What one request holds of the budget."""

    budget: Budget
    bytes: int = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            Problem: the budget has no more; `full`.
        """
        budget = self.budget
        if budget.used + count > budget.cap:
            raise Problem(
                "full",
                f"The photos of other requests fill {budget.used:,} of {budget.cap:,} bytes. Try again shortly.",
                retry_after=1,
            )
        budget.used += count
        self.bytes += count


@dataclass(slots=True)
class Budget:
    """Bytes that may be held, and those that are."""

    cap: int
    used: int = 0

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Something to hold bytes with; all are given back when the block ends."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.used -= hold.bytes


# JOINED `Engines`: the bundles that are served, and how one is exchanged for a newer one while requests go on.


LOOK_SECONDS = 1.0
"""How often bundles are looked at for changes."""


@dataclass(slots=True)
class Served:
    """A bundle that is served."""

    source: str
    """As the operator named it."""
    engine: Engine
    folder: Path
    """A copy of the bundle, which workers that are started later read, whatever becomes of the original."""
    digest: str
    """SHA-256 of its bundle.json, which holds those of all its files."""
    exchanging: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Engines:
    """All bundles that are served, by name; the first answers where none is named."""

    settings: ServeSettings
    observer: Observer
    served: dict[str, Served] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def load(self) -> None:
        """Read and check every bundle; no worker is started yet.

        Raises:
            NameplateError: one cannot be served.
            UsageError: two have one name.
        """
        for source in self.settings.bundles:
            served = self._read(source)
            if served.engine.name in self.served:
                raise UsageError(f"Two bundles are called '{served.engine.name}'. Serve one of them, or rename one.")
            self.served[served.engine.name] = served

    async def start(self) -> None:
        """Start every bundle's workers.

        Raises:
            NameplateError: one cannot be served.
        """
        for served in self.served.values():
            await served.engine.start()
        if self.settings.reload_on_change:
            self._keep(self._watch())

    async def stop(self, patience: float) -> None:
        """Answer what is under way, for so many seconds, then end all workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(served.engine.stop(patience) for served in self.served.values()))
        self.remove_copies()

    def remove_copies(self) -> None:
        """Remove the copies of the bundles."""
        for served in self.served.values():
            shutil.rmtree(served.folder, ignore_errors=True)

    @property
    def ready(self) -> dict[str, bool]:
        """Of each bundle, whether it answers."""
        return {name: served.engine.ready for name, served in self.served.items()}

    def get(self, name: str | None = None) -> Engine:
        """The engine of that name, or the first.

        Raises:
            Problem: there is none; `not-found`.
        """
        return self.find(name).engine

    def find(self, name: str | None = None) -> Served:
        """`get`, with where it comes from."""
        if name is None:
            return next(iter(self.served.values()))
        if name not in self.served:
            known = ", ".join(self.served)
            raise Problem(
                "not-found", f"No model '{name}' is served.{did_you_mean(name, self.served)} There is {known}."
            )
        return self.served[name]

    async def reload(self, name: str) -> bool:
        """Exchange a bundle for what now stands on disk: load, check, warm up, switch; False where it is the same.

        Raises:
            Problem: the old one goes on, and why.
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
        new = await asyncio.to_thread(self._read, served.source)
        try:
            if new.digest == served.digest:
                shutil.rmtree(new.folder, ignore_errors=True)
                return False
            if new.engine.name != served.engine.name:
                raise BundleError(f"the bundle is called '{new.engine.name}' now")
            await new.engine.start()
        except BaseException:
            shutil.rmtree(new.folder, ignore_errors=True)
            raise
        old, folder = served.engine, served.folder
        served.engine, served.folder, served.digest = new.engine, new.folder, new.digest

        async def leave() -> None:
            await old.stop(self.settings.drain_seconds)
            shutil.rmtree(folder, ignore_errors=True)

        self._keep(leave())
        return True

    def _read(self, source: str) -> Served:
        original = load_bundle(source).folder
        assert original is not None
        folder = Path(tempfile.mkdtemp(prefix="nameplate-served-"))
        try:
            for name in MAX_BYTES:  # a bundle's files and no others
                if (original / name).is_file():
                    shutil.copyfile(original / name, folder / name)
            settings = self.settings
            model = Model.load(folder, runtime="onnxruntime", threads=1, limits=settings.limits, tta=settings.tta)
            model.require_head()
            digest = sha256((folder / MANIFEST).read_bytes())
            return Served(source, Engine(model, settings, self.observer), folder, digest)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise BundleError(f"Cannot copy '{source}': {error.strerror or error}.") from None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    async def _watch(self) -> None:
        """Reload what changes on disk; what is refused is not tried again until it changes once more."""
        seen = {name: _stamp(served.source) for name, served in self.served.items()}
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for name, served in self.served.items():
                stamp = _stamp(served.source)
                if stamp is None or stamp == seen[name]:
                    continue
                seen[name] = stamp
                try:
                    await self.reload(name)
                except Problem:
                    continue  # the observer was told

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _stamp(source: str) -> tuple[int, ...] | None:
    """What changes when a bundle does; None while there is none, as for a moment when it is replaced."""
    for folder in (Path(source), Path(source) / IN_RUN):
        try:
            found = [(folder / name).stat() for name in (MANIFEST, BACKBONE)]
        except OSError:
            continue
        return tuple(number for each in found for number in (each.st_mtime_ns, each.st_size, each.st_ino))
    return None


# JOINED What happens in the engines, told to metrics and logs.


WARNINGS: frozenset[Event] = frozenset({"worker died", "worker killed", "worker failed", "reload refused"})
"""Events that an operator should look at."""


@dataclass(frozen=True, slots=True)
class Watch:
    """An `engine.Observer`."""

    metrics: Metrics

    def answered(self, model: str, done: WorkerResult) -> None:
        """Count a photo, and what its time went to."""
        metrics = self.metrics
        if done.prediction is not None:
            metrics.photo(model, done.prediction)
        if done.batch:
            metrics.batch_size.labels(model).observe(done.batch)
        for stage, seconds in done.seconds.items():
            metrics.stage_seconds.labels(model, stage).observe(seconds)

    def event(self, name: Event, **facts: object) -> None:
        """Log it, and count restarts and reloads."""
        model = str(facts.get("model"))
        if name == "worker died":
            self.metrics.worker_restarts.labels(model).inc()
        elif name == "reload refused":
            self.metrics.reloads.labels(model, "refused").inc()
        elif name == "reload":
            self.metrics.reloads.labels(model, "exchanged" if facts.get("changed") else "unchanged").inc()
        event(name, level="warning" if name in WARNINGS else "info", **facts)


def look(engines: Engines, budget: Budget) -> Iterator[Metric]:
    """What the queues, the workers and the bundles are like now."""
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
    """None where anybody may ask."""
    feedback: FeedbackStore | None = None
    """Where users' corrections are kept; None keeps none."""
    draining: bool = False
    """Whether it was told to stop: no longer ready, and nothing new is to come."""

    @classmethod
    def of(cls, settings: ServeSettings) -> Service:
        """A service whose bundles are read and checked, and whose workers are not started yet.

        Raises:
            NameplateError: a bundle cannot be served.
            UsageError: settings that do not go together.
        """
        check(settings)
        keys = None if settings.keys is None else Keys(settings.keys, failed=_keys_not_read)
        metrics, budget = Metrics(), Budget(settings.queue_bytes)
        engines = Engines(settings, Watch(metrics))
        engines.load()
        metrics.watch(lambda: look(engines, budget))
        return cls(settings, engines, budget, metrics, keys, _open_feedback(settings))

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
    """
    Raises:
        UsageError: settings that do not go together.
    """
    check_runtime(settings.runtime)
    if settings.queue_photos < settings.photos:
        raise UsageError(
            f"The queue takes {settings.queue_photos} photos and one request may bring {settings.photos}: "
            "it would be refused always."
        )
    if settings.rate is not None:
        parse_rate(settings.rate)
    if settings.queue_bytes < settings.body_bytes:
        raise UsageError(
            f"The queue takes {settings.queue_bytes:,} bytes and one request may bring {settings.body_bytes:,}: "
            "it would be refused always."
        )


def service_of(request: Request) -> Service:
    """The service that a request has reached."""
    service: Service = request.app.state.service
    return service


def json_response(value: object, status: int = 200) -> Response:
    """An answer as JSON, encoded as everywhere in Nameplate."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Gone(Exception):  # noqa: N818 - no error of ours
    """The client has hung up."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work, and drop it when the client hangs up. The request's body must have been read.

    Raises:
        Gone: it has.
    """
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
