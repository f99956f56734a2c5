"""What Prometheus reads of a service: requests, photos, queues, workers and models."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from nameplate import __version__
from nameplate.types import Prediction

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of `Metrics.text`: the one format that every Prometheus reads."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other is counted as `other`: a client makes up methods as it likes, and each would be a series for ever."""
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds."""
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds."""
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
"""Pictures."""


class Metrics:
    """All of one service's, in a registry of its own: two services in one process do not mix.

    Labels hold what the operator or this program names, never what a client writes: no request makes a series.
    """

    def __init__(self) -> None:
        self.registry = to = CollectorRegistry()
        self.requests = Counter(
            "nameplate_http_requests", "Requests answered.", ["method", "route", "status"], registry=to
        )
        self.request_seconds = Histogram(
            "nameplate_http_request_duration_seconds",
            "From a request's headers to its answer's end.",
            ["route"],
            buckets=REQUEST_BUCKETS,
            registry=to,
        )
        self.in_flight = Gauge("nameplate_http_requests_in_flight", "Requests under way.", registry=to)
        self.refusals = Counter("nameplate_refusals", "Requests refused, by kind of problem.", ["kind"], registry=to)
        self.photos = Counter("nameplate_photos", "Photos answered, by verdict.", ["model", "verdict"], registry=to)
        self.unreadable = Counter("nameplate_unreadable_photos", "Photos not read, by reason.", ["reason"], registry=to)
        self.batch_size = Histogram(
            "nameplate_batch_size",
            "Pictures in the batch that a photo was in.",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=to,
        )
        self.stage_seconds = Histogram(
            "nameplate_stage_seconds",
            "A photo's time in its worker: decode, wait for the runtime, embed with its batch.",
            ["model", "stage"],
            buckets=STAGE_BUCKETS,
            registry=to,
        )
        self.worker_restarts = Counter("nameplate_worker_restarts", "Workers started anew.", ["model"], registry=to)
        self.reloads = Counter("nameplate_reloads", "Bundles exchanged, or not.", ["model", "outcome"], registry=to)
        Gauge("nameplate_build_info", "1; the version is its label.", ["version"], registry=to).labels(__version__).set(
            1
        )
        ProcessCollector(registry=to)
        PlatformCollector(registry=to)
        GCCollector(registry=to)

    def begun(self) -> None:
        """A request came."""
        self.in_flight.inc()

    def done(self, method: str, route: str, status: int, seconds: float, problem: str | None) -> None:
        """A request was answered, or given up: what `logs.Logs` tells."""
        self.in_flight.dec()
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)
        if problem is not None:
            self.refusals.labels(problem).inc()

    def photo(self, model: str, prediction: Prediction) -> None:
        """A photo was answered."""
        self.photos.labels(model, prediction.verdict).inc()
        if prediction.failure is not None:
            self.unreadable.labels(prediction.failure.reason).inc()

    def watch(self, look: Callable[[], Iterable[Metric]]) -> None:
        """Ask `look` for more whenever Prometheus asks: what is as it is now, and needs no counting."""
        self.registry.register(_Look(look))

    def text(self) -> bytes:
        """All of it, in the format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class _Look(Collector):
    """A function as prometheus_client wants it."""

    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        return self._look()

    def describe(self) -> Iterable[Metric]:
        """Nothing yet: the service that is looked at may not be there when this is registered."""
        return ()
