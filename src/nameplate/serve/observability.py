"""Logs and metrics: a line for each request and each event on stderr, and what Prometheus reads.

A line is JSON, or plain text on a terminal. Requests are logged and counted by the middleware `Logs`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nameplate import __version__
from nameplate.serve.errors import Problem, ProblemResponse
from nameplate.types import Prediction

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
"""A client's X-Request-ID must match this, or else it is replaced by a random one."""
LONGEST_PATH = 256
"""The most bytes of a request's path that are logged."""
GONE = 499
"""The logged status if the client closed the connection before an answer began; the number is nginx's."""

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Facts = dict[str, object]


LOG = logging.getLogger("nameplate.serve")
"""The logger of all the service's lines. A program that embeds the service may add handlers or set a level."""


def event(name: str, /, *, level: str = "info", **facts: object) -> None:
    """Log an event with its facts: `event("worker died", level="warning", bundle="cars196")`."""
    _log(level, {"event": name, **facts})


def _log(level: str, facts: Facts) -> None:
    LOG.log(LEVELS[level], "%s", facts.get("event", "request"), extra={"facts": facts})


class LineFormatter(logging.Formatter):
    r"""Formats a record as one line: JSON, or plain text on a terminal.

    No value can forge a line. JSON is written in ASCII with escapes, because some readers end a line at U+2028 too; on
    a terminal, characters that cannot be printed are shown as `\x1b`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record: our own have `facts`; those of other libraries, such as uvicorn, get the same form."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: Facts = {"time": when, "level": record.levelname.lower()}
        if (facts := getattr(record, "facts", None)) is not None:
            line |= facts
        else:
            line |= {"event": record.getMessage(), "logger": record.name}
            if record.exc_info and record.exc_info[1] is not None:
                line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return _readable(line) if sys.stderr.isatty() else json.dumps(line, default=str, separators=(",", ":"))


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes lines to the current `sys.stderr`. If that is closed, lines are lost but requests go on."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(LineFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: logging would print a traceback to the very stderr that cannot be written to."""


LOG.addHandler(StderrHandler())
LOG.setLevel(logging.INFO)
LOG.propagate = False  # otherwise the root logger's handler would write each line a second time


def _readable(line: Mapping[str, object]) -> str:
    """Format a line for a terminal: `14:03:11 info    POST /v1/identify 200 34.1 ms …`. Rare values have names."""
    rest = dict(line)
    clock, level = str(rest.pop("time", ""))[11:19], str(rest.pop("level", ""))
    head = [rest.pop(name) for name in ("event", "method", "path", "status") if name in rest]
    took = [f"{rest.pop('ms')} ms"] if "ms" in rest else []
    end = str(rest.pop("traceback", ""))
    named = [f"{name}={value}" for name, value in rest.items() if value is not None]
    shown = " ".join(_printable(str(word)) for word in [f"{clock} {level:7}", *head, *took, *named])
    return "\n".join([shown, *(_printable(row) for row in end.splitlines())])


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def set_up_logging(handler: logging.Handler | None = None, level: int = logging.WARNING) -> None:
    """Write what other libraries log in the same format; start uvicorn with `log_config=None`.

    Args:
        handler: writes all lines, the service's own too; None writes the others' at once.
        level: of the other libraries' lines.
    """
    root = logging.getLogger()
    if handler is not None:
        LOG.handlers = [handler]
    root.handlers = [handler or StderrHandler()]  # replaces handlers that a library has installed while it was imported
    root.setLevel(level)
    # The parser of forms warns of every malformed body. The client gets a 400 and the request is logged anyway, so
    # the warning tells nothing, and a client could fill the log with it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Logs:
    """ASGI middleware: gives each request an id, logs and counts it, and answers it if the application raises.

    Routes add facts (`photos`, `model`) through `scope["state"]["log"]`. `begun` is called before each request; `done`
    is called after it with the method, the route's template, the status, the seconds and the kind of problem.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        begun: Callable[[], None] = lambda: None,
        done: Callable[[str, str, int, float, str | None], None] = lambda *_: None,
    ) -> None:
        self.app, self.begun, self.done = app, begun, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(scope, receive, send)
        # Called before the application, so that requests in flight are counted even if it never returns.
        self.begun()
        try:
            await self.app(scope, request.receive, request.send)
        except Exception as error:  # a bug: the traceback is logged, and the client gets a problem like any other
            request.facts["traceback"] = "".join(traceback.format_exception(error))
            if request.status and not request.finished:  # half sent: only a broken connection can tell the client
                raise
            # Nothing was sent yet, so the client can still get a proper answer.
            if not request.status:
                await _fail(scope, request)
        finally:
            seconds = request.log()
            self.done(scope["method"], route_of(scope), request.status or GONE, seconds, request.problem)


async def _fail(scope: Scope, request: _Request) -> None:
    problem = Problem("internal", "The service failed; its log says how, under this answer's X-Request-ID.")
    await ProblemResponse(problem)(scope, request.receive, request.send)


class _Request:
    """What is known of a request while it is answered: its id, status, and bytes received and sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.start = time.perf_counter()
        self.id = next((v for k, v in scope["headers"] if k == b"x-request-id" and REQUEST_ID.fullmatch(v)), b"")
        self.id = self.id or secrets.token_hex(16).encode()
        self.status = self.received = self.sent = 0
        self.finished = False
        self.facts: Facts = {}
        scope.setdefault("state", {}).update(log=self.facts, request_id=self.id.decode())

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # A route's own id, or that of an inner proxy, would contradict the log.
            headers = [(name, value) for name, value in message.get("headers", ()) if name != b"x-request-id"]
            message = {**message, "headers": [*headers, (b"x-request-id", self.id)]}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        await self._send(message)

    @property
    def problem(self) -> str | None:
        """The kind of problem that it was answered with (see `errors.ProblemResponse`); None if it was not refused."""
        kind: str | None = self.scope["state"].get("problem")
        return kind

    def log(self) -> float:
        """Log the request and return the seconds that it took."""
        seconds = time.perf_counter() - self.start
        client = self.scope["state"].get("client")
        status = self.status or GONE
        # The path as it was sent, still percent-encoded. The query is left out, since clients put secrets there.
        path: bytes = self.scope.get("raw_path") or self.scope["path"].encode()
        line = {
            "request": self.id.decode(),
            "method": self.scope["method"],
            "path": path.split(b"?")[0][:LONGEST_PATH].decode("ascii", "backslashreplace"),
            "status": status,
            "ms": round(1000 * seconds, 1),
            "client": client.name if client else (self.scope.get("client") or ("unknown",))[0],
            "received": self.received,
            "sent": self.sent,
            **({"problem": self.problem} if self.problem else {}),
            **self.scope["state"].get("trace", {}),
            **self.facts,
        }
        # 503 is the service protecting itself, which an operator may want to see; other 5xx are failures.
        _log("info" if status < 500 else "warning" if status == 503 else "error", line)
        return seconds


def route_of(scope: Scope) -> str:
    """Return the template of the route that answered (`/v1/models/{name}/reload`), or `other`.

    The path itself is not used: clients could then create any number of time series.
    """
    return getattr(scope.get("route"), "path", None) or "other"


# Metrics for Prometheus.

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""The media type of `Metrics.text`: the format that every version of Prometheus reads."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other method is counted as `other`: clients can invent methods, and each would be a time series for ever."""
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds, for whole requests."""
STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds, for one stage of one photo."""
BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
"""Upper bounds in photos, for the size of a batch."""


class Metrics:
    """All metrics of one service, in a registry of its own, so that two services in one process do not mix.

    Label values come from the operator or from this program, never from a client: no request can create a time series.
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
            "A photo's time in its worker: decode, locate cars, wait for the runtime, embed with its batch, classify.",
            ["model", "stage"],
            buckets=STAGE_BUCKETS,
            registry=to,
        )
        self.alias_requests = Counter(
            "nameplate_alias_requests", "Requests for an alias, by the model.", ["alias", "model"], registry=to
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
        """Count a request that has arrived."""
        self.in_flight.inc()

    def done(self, method: str, route: str, status: int, seconds: float, problem: str | None) -> None:
        """Count a request that was answered or given up; `Logs` calls this."""
        self.in_flight.dec()
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)
        if problem is not None:
            self.refusals.labels(problem).inc()

    def photo(self, model: str, prediction: Prediction) -> None:
        """Count a photo that was answered."""
        self.photos.labels(model, prediction.verdict).inc()
        if prediction.failure is not None:
            self.unreadable.labels(prediction.failure.reason).inc()

    def add_gauges(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Call `collect` for further metrics at each scrape: for state that need not be counted, such as queues."""
        self.registry.register(_Gauges(collect))

    def text(self) -> bytes:
        """Return all metrics in the format of `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """A function in the form that prometheus_client expects."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: otherwise the registry would collect now, when the service may not be complete yet."""
        return ()
