"""`Service`: what all routes share; `EngineObserver` passes on what happens in the engines to metrics and logs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from nameplate.errors import UsageError
from nameplate.runtime.select import check_runtime
from nameplate.serve.access import Client
from nameplate.serve.budget import Arrival, Budget
from nameplate.serve.engine import Event
from nameplate.serve.feedback.store import FeedbackStore
from nameplate.serve.ipc import WorkerResult
from nameplate.serve.jobs.runner import JobRunner
from nameplate.serve.jobs.store import JobStore, current_jobs
from nameplate.serve.keys import Keys
from nameplate.serve.observability import Metrics, event
from nameplate.serve.rates import parse_rate
from nameplate.serve.served import Engines, Served
from nameplate.serve.settings import ServeSettings
from nameplate.serve.tracing import Tracer, open_tracer

CLIENT_ID = b"x-client-id"
"""The header in which a client may say for whom it asks; any text."""


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
    shares = GaugeMetricFamily("nameplate_alias_share", "A model's share of an alias.", labels=["alias", "model"])
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
    for alias, weights in engines.aliases.items():
        for name, weight in weights.items():
            shares.add_metric([alias, name], weight / sum(weights.values()))
    yield from (photos, memory, ready, info, shares)
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
    runner: JobRunner | None = None
    """None if jobs are not taken."""
    tracer: Tracer | None = None
    """None if no traces are sent."""
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
        tracer = open_tracer(settings.traces)
        keys = None if settings.keys is None else Keys(settings.keys, failed=_keys_not_read)
        metrics, budget = Metrics(), Budget(settings.queue_bytes)
        engines = Engines(settings, EngineObserver(metrics))
        engines.load()
        metrics.add_gauges(lambda: current_state(engines, budget))
        return cls(
            settings, engines, budget, metrics, keys, _open_feedback(settings), _open_jobs(engines, metrics), tracer
        )

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


def _open_jobs(engines: Engines, metrics: Metrics) -> JobRunner | None:
    settings = engines.settings
    if settings.jobs is None:
        return None
    store = JobStore.open(settings.jobs, settings.job_limits)
    metrics.add_gauges(lambda: current_jobs(store))
    return JobRunner(store, engines, settings)


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


def choice_key(scope: Scope) -> str:
    """Return what an alias chooses the model by: the client's id if it sends one, or else the request's.

    An address or a key would be no good: all users of a site may have the same, and would all get the same model.
    """
    sent: bytes | None = next((value for name, value in scope["headers"] if name == CLIENT_ID), None)
    return str(scope["state"]["request_id"]) if sent is None else sent.decode("latin-1")


def model_for(request: Request, name: str | None) -> Served:
    """Return the bundle that answers a request for photos; log it, and count it where an alias has chosen.

    Raises:
        Problem: nothing has that name (`not-found`).
    """
    service = service_of(request)
    served = service.engines.find(name, choice_key(request.scope))
    request.state.log.update(model=served.engine.name)
    if (alias := service.engines.alias(name)) is not None:
        request.state.log.update(alias=alias)
        service.metrics.alias_requests.labels(alias, served.engine.name).inc()
    return served


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make a JSON response, encoded by msgspec as all of Nameplate's JSON."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


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
