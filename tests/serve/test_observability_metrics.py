"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import FastAPI
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from nameplate.errors import Failure
from nameplate.serve.middleware import protect
from nameplate.serve.observability import Metrics
from nameplate.serve.routes import status as route
from nameplate.types import Prediction
from tests.serve.guarded import Service, client_of


def _values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Name and labels' values → the figure."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_status() -> None:
    service = Service()
    client = client_of(service)
    client.get("/v1/who/a")
    client.get("/v1/who/b")
    client.get("/v1/full")
    client.get("/v1/who/a", headers={"Host": "evil.example"})
    values = _values(service.metrics)
    assert values["nameplate_http_requests_total", "GET", "/v1/who/{name}", "200"] == 2
    assert values["nameplate_http_requests_total", "GET", "/v1/full", "503"] == 1
    assert values["nameplate_http_requests_total", "GET", "other", "403"] == 1
    assert values["nameplate_http_request_duration_seconds_count", "/v1/who/{name}"] == 2
    assert values["nameplate_refusals_total", "full"] == 1
    assert values["nameplate_refusals_total", "not-allowed"] == 1
    assert values["nameplate_http_requests_in_flight",] == 0


def test_clients_cannot_create_time_series() -> None:
    service = Service()
    client = client_of(service)
    before = len(_values(service.metrics))
    for number in range(50):
        client.get(f"/none/{number}")
        client.request(f"BREW{number}", f"/v1/who/{number}", headers={"X-Request-ID": str(number)})
    assert len(_values(service.metrics)) - before < 50


def test_photos_are_counted_by_verdict_and_reason() -> None:
    metrics = Metrics()
    metrics.photo("cars196", Prediction("a.jpg", "BMW M3", 0.9, verdict="answer"))
    metrics.photo("cars196", Prediction("b.jpg", failure=Failure("not a photo", "its bytes are of no format")))
    metrics.photo("cars196", Prediction("c.jpg", "BMW M3", 0.2, verdict="poor photo", flaws=("dark", "small")))
    values = _values(metrics)
    assert values["nameplate_photos_total", "cars196", "answer"] == 1
    assert values["nameplate_photos_total", "cars196", "poor photo"] == 1
    assert values["nameplate_photos_total", "cars196", "unreadable"] == 1
    assert values["nameplate_unreadable_photos_total", "not a photo"] == 1


def test_gauges_are_read_when_they_are_scraped() -> None:
    metrics, photos = Metrics(), [3.0]
    metrics.add_gauges(lambda: [GaugeMetricFamily("nameplate_queue_photos", "Under way.", value=photos[0])])
    assert _values(metrics)["nameplate_queue_photos",] == 3
    photos[0] = 5
    assert _values(metrics)["nameplate_queue_photos",] == 5


def test_the_route_gives_what_prometheus_reads() -> None:
    app = FastAPI()
    app.include_router(route.router)
    service = app.state.service = Service()
    service.metrics.batch_size.labels("cars196").observe(8)
    answer = TestClient(protect(app, service), base_url="http://localhost").get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'nameplate_batch_size_sum{model="cars196"} 8.0' in answer.text
    assert "process_resident_memory_bytes" in answer.text
    assert _values(service.metrics)["nameplate_http_requests_total", "GET", "/metrics", "200"] == 1
