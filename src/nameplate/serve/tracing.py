"""Traces of requests: the ids by which logs name them (W3C Trace Context), and the times of each photo's stages.

The spans themselves are made by `otel.py`, which alone imports OpenTelemetry, and only where traces are wanted.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nameplate.errors import RuntimeUnavailableError, UsageError
from nameplate.serve.observability import event

TRACEPARENT = re.compile(rb"(?:00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}|"
                         rb"(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?)")  # fmt: skip
"""The header (https://www.w3.org/TR/trace-context/): version, trace id, the caller's span id, flags. Later versions may
have more fields."""
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables that say where traces are sent; with one of them they are wanted."""
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
UNTRACED = ("/health/", "/v2/health/", "/metrics")
"""Paths of probes and scrapes, which come every few seconds."""
STAGES = ("decode", "locate", "resize", "embed", "classify")
"""What a worker does with a photo and measures, in this order."""

Trace = dict[str, str]
"""`trace_id` and `span_id`, hexadecimal, as log lines have them; empty where there is no trace."""


def trace_of(traceparent: bytes) -> Trace:
    """The ids in a `traceparent` header; empty if it is malformed.

    >>> trace_of(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")["span_id"]
    '00f067aa0ba902b7'
    """
    found = TRACEPARENT.fullmatch(traceparent.strip())
    ids = [] if found is None else [each.decode() for each in found.groups() if each]
    if not ids or not any(ids[0].strip("0")) or not any(ids[1].strip("0")):
        return {}
    return {"trace_id": ids[0], "span_id": ids[1]}


@dataclass(slots=True)
class Times:
    """When a photo was queued, and when each stage of its answer began and ended. Nanoseconds since 1970."""

    queued: int = field(default_factory=time.time_ns)
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)

    def answered(self, spans: Mapping[str, tuple[float, float]]) -> None:
        """Take over a worker's times (`ipc.WorkerResult.spans`): its clock may differ from ours, so they count back
        from now.
        """
        now = time.time_ns()
        for stage in STAGES:
            if stage in spans:
                began, ended = spans[stage]
                self.stages[stage] = (now - int(1e9 * began), now - int(1e9 * ended))


class RequestSpan(Protocol):
    """The span of a request that is under way."""

    @property
    def trace(self) -> Trace:
        """Its ids."""
        ...

    def photos(self, photos: Iterable[Times]) -> None:
        """Add the spans of photos, those that are not answered too."""
        ...

    def end(self, scope: Scope, status: int) -> None:
        """End it.

        Args:
            scope: of the request, with what routes have added to it.
            status: of the answer; 0 if none began.
        """
        ...


class Tracer(Protocol):
    """Makes spans and sends them away."""

    def begin(self, scope: Scope) -> RequestSpan:
        """Begin a request's span, as a child of that which its `traceparent` names."""
        ...

    def close(self, patience: float) -> None:
        """Send what waits, for up to so many seconds."""
        ...


_CURRENT: ContextVar[RequestSpan | None] = ContextVar("request_span", default=None)


def add_photos(photos: Iterable[Times]) -> None:
    """Add photos to the span of the request that is being answered, if there is one."""
    if (span := _CURRENT.get()) is not None:
        span.photos(photos)


class Traces:
    """ASGI middleware: begins a span for each request and ends it; leaves its ids in `scope["state"]["trace"]`.

    Without a tracer the ids are those that the caller sent, so that logs can be found by them all the same.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer | None = None) -> None:
        self.app, self.tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if self.tracer is None or scope["path"].startswith(UNTRACED):
            state["trace"] = trace_of(dict(scope["headers"]).get(b"traceparent", b""))
            await self.app(scope, receive, send)
            return
        span, status = self.tracer.begin(scope), 0
        state["trace"] = span.trace

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = _CURRENT.set(span)
        try:
            await self.app(scope, receive, sending)
        finally:
            _CURRENT.reset(token)
            span.end(scope, status)


def open_tracer(wanted: bool | None) -> Tracer | None:
    """Make a tracer, which OpenTelemetry's environment variables set up (OTEL_EXPORTER_OTLP_ENDPOINT and others).

    Args:
        wanted: whether there are to be traces; None: if a variable says where they are sent.

    Raises:
        RuntimeUnavailableError: they are wanted, and the extra is missing.
        UsageError: they are wanted, and a variable asks for what this service cannot do.
    """
    by_variables = any(os.environ.get(name) for name in ENDPOINTS)
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if wanted is False or (wanted is None and (off or not by_variables or _exporter() == "none")):
        return None
    try:
        _check_variables()
        # Only here, since the packages are an extra's.
        from nameplate.serve.otel import OtlpTracer

        return OtlpTracer()
    except ModuleNotFoundError as error:
        reason: Exception = RuntimeUnavailableError(
            f"Traces need more packages ('{error.name}' is missing): pip install 'nameplate[otel]'."
        )
    except UsageError as error:
        reason = error
    if wanted:
        raise reason from None
    # A platform may set the variables for everything that it runs. Who asked for nothing gets a service all the same.
    event("no traces", level="warning", reason=str(reason))
    return None


def _exporter() -> str:
    return os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"


def _check_variables() -> None:
    protocol = next((os.environ[name].strip() for name in PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise UsageError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is '{protocol}', and traces are sent as http/protobuf alone (port 4318 of "
            "most collectors). Set it so."
        )
    if _exporter() != "otlp":
        raise UsageError(f"OTEL_TRACES_EXPORTER is '{_exporter()}', and traces are sent by OTLP alone. Set 'otlp'.")
