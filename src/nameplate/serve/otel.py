"""`OtlpTracer`: spans by OpenTelemetry, sent as OTLP over HTTP. Needs the extra `otel`; nothing else imports it.

FastAPI can trace by itself, and sees neither what is refused before it nor what happens to a photo in its worker.

Spans wait in a queue with a cap and a thread sends them, so that a collector that is slow, or cannot be reached, costs
spans and not answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id
from starlette.types import Scope

from nameplate import __version__
from nameplate.serve.observability import GONE, METHODS, route_of
from nameplate.serve.tracing import Times, Trace

UNNAMED = "unknown_service"
"""How OpenTelemetry's names of services begin where no variable gives one."""


class OtlpTracer:
    """Begins the spans of requests, and sends them where OpenTelemetry's variables say; implements `Tracer`."""

    def __init__(self) -> None:
        """Read the variables, and start the thread that sends."""
        resource = Resource.create({SERVICE_VERSION: __version__})
        if str(resource.attributes[SERVICE_NAME]).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: "nameplate"}))
        # Not at exit: that would wait for a collector that cannot be reached. `close` bounds the wait.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("nameplate", __version__)

    def begin(self, scope: Scope) -> OtlpSpan:
        """Begin a request's span."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = propagate.extract(headers)
        method = _method(scope)
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, _attributes(scope, headers))
        return OtlpSpan(self._tracer, span, parent)

    def close(self, patience: float) -> None:
        """Send what waits, for up to so many seconds."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(patience)


class OtlpSpan:
    """A request's span; implements `RequestSpan`."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, parent: Context) -> None:
        self._tracer, self._span = tracer, span
        self._within = trace.set_span_in_context(span, parent)

    @property
    def trace(self) -> Trace:
        """Its ids, also if it is not recorded."""
        own = self._span.get_span_context()
        return {"trace_id": format_trace_id(own.trace_id), "span_id": format_span_id(own.span_id)}

    def photos(self, photos: Iterable[Times]) -> None:
        """Add a span for each photo's time in the queue, and for each of its stages."""
        if not self._span.is_recording():
            return
        for number, times in enumerate(photos, start=1):
            first = min((began for began, _ in times.stages.values()), default=time.time_ns())
            for stage, (began, ended) in {"queue": (times.queued, first), **times.stages}.items():
                named = {"nameplate.photo": number}
                self._tracer.start_span(stage, self._within, attributes=named, start_time=began).end(ended)

    def end(self, scope: Scope, status: int) -> None:
        """End it, with the attributes of OpenTelemetry's conventions for HTTP servers, and our own."""
        span, route = self._span, route_of(scope)
        if not span.is_recording():
            return
        if route != "other":
            span.update_name(f"{_method(scope)} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status or GONE)
        state = scope["state"]
        problem, facts = state.get("problem"), state.get("log", {})
        if problem is not None:
            span.set_attribute("nameplate.problem", problem)
        for name in ("model", "photos"):
            if name in facts:
                span.set_attribute(f"nameplate.{name}", facts[name])
        if status >= 500:  # by the conventions a server's span has not failed if the client was wrong
            span.set_attribute("error.type", problem or str(status))
            span.set_status(StatusCode.ERROR)
        span.end()


def _method(scope: Scope) -> str:
    """The method as the conventions have it: clients can invent any number of others."""
    method: str = scope["method"]
    return method if method in METHODS else "HTTP"


def _attributes(scope: Scope, headers: dict[str, str]) -> dict[str, Any]:
    """What is known of a request at its beginning. The query is left out, since clients put secrets there."""
    known = scope["method"] in METHODS
    found: dict[str, Any] = {
        "http.request.method": scope["method"] if known else "_OTHER",
        "url.path": scope["path"][:256],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    for name, address in (("client", scope.get("client")), ("server", scope.get("server"))):
        if address is not None:
            found |= {f"{name}.address": address[0]} | ({f"{name}.port": address[1]} if address[1] else {})
    if "user-agent" in headers:
        found["user_agent.original"] = headers["user-agent"][:256]
    return found
