"""Spans of real requests, as a collector gets them; and that a collector which does not answer stops nothing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.testclient import TestClient

from nameplate.demo import photo
from nameplate.errors import RuntimeUnavailableError, UsageError
from nameplate.serve.tracing import Trace, Traces, open_tracer, trace_of
from tests.serve.guarded import Service, lines, small_app
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ["queue", "decode", "locate", "resize", "embed", "classify"]


@dataclass
class Collector:
    """What an OTLP collector got."""

    url: str = ""
    resources: list[dict[str, Any]] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            self.resources.append(attributes(each.resource))
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def of(self, trace_id: str, most: Callable[[list[Any]], bool]) -> list[Any]:
        """The spans of a trace, once they are so many as `most` wants."""
        end = time.monotonic() + 20
        while not most(found := [span for span in self.spans if span.trace_id.hex() == trace_id]):
            assert time.monotonic() < end, [span.name for span in found]
            time.sleep(0.02)
        return found


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    collector.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.answers.wait()
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield collector
        collector.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(collector: Collector) -> Iterator[Running]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "cars",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": "32",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
    }
    with serving("--threads", "1", environment=variables) as running:
        yield running


def traceparent(trace_id: str, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{CALLER}-{flags}"}


def request_line(server: Running, trace_id: str) -> dict[str, Any]:
    [line] = request_lines(server, trace_id, 1)
    return dict(line)


def request_lines(server: Running, trace_id: str, count: int) -> list[dict[str, Any]]:
    """Lines of the log, which come a moment after the answer."""
    end = time.monotonic() + 10
    while True:
        found = [line for line in map(json.loads, server.said) if line.get("trace_id") == trace_id]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_a_request_has_the_spans_of_its_photo(server: Running, collector: Collector) -> None:
    answer = server.post("/v1/identify?top=2", content=PHOTO, headers=traceparent(TRACE))
    assert answer.status_code == 200
    spans = collector.of(TRACE, lambda found: len(found) >= 7)
    [root] = [span for span in spans if span.kind == span.SPAN_KIND_SERVER]
    assert (root.name, root.parent_span_id.hex()) == ("POST /v1/identify", CALLER)
    stages = sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == STAGES
    assert {span.parent_span_id for span in stages} == {root.span_id}
    times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in stages]
    assert all(began <= ended for began, ended in times)
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))
    assert root.start_time_unix_nano <= times[0][0]
    assert times[-1][1] <= root.end_time_unix_nano
    named = attributes(root)
    assert {name: named[name] for name in ("http.request.method", "http.route", "http.response.status_code")} == {
        "http.request.method": "POST",
        "http.route": "/v1/identify",
        "http.response.status_code": 200,
    }
    assert (named["nameplate.model"], named["nameplate.photos"]) == ("cars196", 1)
    assert "top" not in str(named)  # the query
    assert {each["service.name"] for each in collector.resources} == {"cars"}
    assert collector.resources[0]["deployment.environment.name"] == "test"
    assert request_line(server, TRACE)["span_id"] == root.span_id.hex()


def test_each_photo_has_its_stages_and_one_that_is_unreadable_those_that_it_reached(
    server: Running, collector: Collector
) -> None:
    trace_id = "a" * 32
    files = [("photos", ("a.jpg", PHOTO)), ("photos", ("b.jpg", PHOTO[:900]))]
    assert server.post("/v1/identify", files=files, headers=traceparent(trace_id)).status_code == 200
    spans = collector.of(trace_id, lambda found: any(span.kind == span.SPAN_KIND_SERVER for span in found))
    by_photo = {
        number: {span.name for span in spans if attributes(span).get("nameplate.photo") == number} for number in (1, 2)
    }
    assert by_photo == {1: set(STAGES), 2: {"queue", "decode"}}


def test_a_refusal_says_why_and_only_those_of_the_service_are_errors(server: Running, collector: Collector) -> None:
    trace_id = "b" * 32
    server.post("/v1/identify?model=none", content=PHOTO, headers=traceparent(trace_id))
    [span] = collector.of(trace_id, bool)
    assert (attributes(span)["nameplate.problem"], span.status.code) == ("not-found", span.status.STATUS_CODE_UNSET)


def test_a_caller_that_does_not_sample_gets_ids_in_the_log_alone(server: Running, collector: Collector) -> None:
    trace_id, later = "c" * 32, "d" * 32
    server.post("/v1/identify", content=PHOTO, headers=traceparent(trace_id, "00"))
    server.get("/health/ready", headers=traceparent(trace_id, "01"))  # a probe
    server.get("/v1/models", headers=traceparent(later))
    collector.of(later, bool)
    assert [span for span in collector.spans if span.trace_id.hex() == trace_id] == []
    assert len(request_lines(server, trace_id, 2)) == 2


def test_a_collector_that_does_not_answer_stops_nothing(server: Running, collector: Collector) -> None:
    """The last test: it ends the server."""
    collector.answers.clear()
    for _ in range(12):  # 84 spans, and 32 may wait
        assert server.identify(PHOTO).status_code == 200
    assert server.stop() == 0
    collector.answers.set()


@pytest.mark.parametrize(
    ("header", "ids"),
    [
        (f"00-{TRACE}-{CALLER}-01", (TRACE, CALLER)),
        (f" 00-{TRACE}-{CALLER}-00 ", (TRACE, CALLER)),
        (f"cc-{TRACE}-{CALLER}-01-what-the-future-brings", (TRACE, CALLER)),
        (f"00-{TRACE}-{CALLER}-01-more", None),
        (f"ff-{TRACE}-{CALLER}-01", None),
        (f"00-{'0' * 32}-{CALLER}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{CALLER}-01", None),
        (f"00-{TRACE}-{CALLER}", None),
        ("", None),
    ],
)
def test_ids_are_read_as_the_recommendation_says(header: str, ids: tuple[str, str] | None) -> None:
    expected: Trace = {} if ids is None else {"trace_id": ids[0], "span_id": ids[1]}
    assert trace_of(header.encode()) == expected


def test_without_a_tracer_logs_have_the_ids_of_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    client = TestClient(Traces(small_app(Service())), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    client.get("/v1/full", headers=traceparent(TRACE))
    client.get("/v1/full", headers={"traceparent": "nonsense"})
    first, second = lines(capsys.readouterr().err)
    assert (first["trace_id"], first["span_id"]) == (TRACE, CALLER)
    assert "trace_id" not in second


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nameplate.serve.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_who_asks_is_told_and_who_has_only_the_variable_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'nameplate\[otel\]'"):
        open_tracer(True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert open_tracer(None) is None
    [line] = lines(capsys.readouterr().err)
    assert (line["event"], line["level"]) == ("no traces", "warning")


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_EXPORTER", "zipkin")]
)
def test_what_cannot_be_sent_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=value):
        open_tracer(True)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_sent_unless_it_is_wanted(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert open_tracer(None) is None
    assert open_tracer(False) is None


def test_a_service_without_traces_imports_no_sdk() -> None:
    """FastAPI imports OpenTelemetry's interface where it is there; the extra's packages are imported here alone."""
    code = "import sys, nameplate.serve.app, nameplate.serve.worker; print('opentelemetry.sdk' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
