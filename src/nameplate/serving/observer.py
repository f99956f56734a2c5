"""What happens in the engines, told to metrics and logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from nameplate.serving.budget import Budget
from nameplate.serving.engine import Event
from nameplate.serving.engines import Engines
from nameplate.serving.logs import event
from nameplate.serving.metrics import Metrics
from nameplate.serving.wire import Done

WARNINGS: frozenset[Event] = frozenset({"worker died", "worker killed", "worker failed", "reload refused"})
"""Events that an operator should look at."""


@dataclass(frozen=True, slots=True)
class Watch:
    """An `engine.Observer`."""

    metrics: Metrics

    def answered(self, model: str, done: Done) -> None:
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
