"""Everything between the network and the routes, in its order (`protect`), and the security headers of every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import parse_qs

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nameplate.serve.access import Authentication, Hosts, Rate, names_allowed
from nameplate.serve.errors import Problem, ProblemResponse
from nameplate.serve.keys import Keys
from nameplate.serve.observability import Logs, Metrics
from nameplate.serve.rates import Window, parse_rate
from nameplate.serve.served import Engines
from nameplate.serve.service import choice_key
from nameplate.serve.settings import ServeSettings

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
PERMISSIONS_POLICY = ", ".join(
    ["camera=(self)"]
    + [f"{name}=()" for name in ("microphone", "geolocation", "display-capture", "payment", "usb", "serial", "midi")]
)
PRIVATE = ("/v1/", "/v2/")
"""No cache may keep answers below these paths: they are about somebody's photo, or were asked for with a key."""

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": PERMISSIONS_POLICY,
    "x-frame-options": "DENY",
}
"""Security headers, after OWASP's "HTTP Security Response Headers Cheat Sheet".

Strict-Transport-Security is missing: the proxy that terminates TLS must set it."""


class SecurityHeaders:
    """ASGI middleware: sets `HEADERS` on every answer, in place of headers of these names that it already has."""

    def __init__(self, app: ASGIApp, *, cross_origin: bool = False) -> None:
        self.app = app
        chosen = HEADERS | ({"cross-origin-resource-policy": "cross-origin"} if cross_origin else {})
        self.open = [(name.encode(), value.encode()) for name, value in chosen.items()]
        self.private = [*self.open, (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and set the headers of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = self.private if scope["path"].startswith(PRIVATE) else self.open
        names = {name for name, _ in ours}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A route or library must not weaken a header, so ours replace theirs.
                kept = [header for header in message.get("headers", ()) if header[0].lower() not in names]
                message = {**message, "headers": kept + ours}
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Protected(Protocol):
    """What `protect` needs of a service."""

    @property
    def settings(self) -> ServeSettings: ...
    @property
    def keys(self) -> Keys | None: ...
    @property
    def metrics(self) -> Metrics: ...


def protect(app: ASGIApp, service: Protected) -> ASGIApp:
    """Wrap an application in its guards.

    A request passes them in this order: security headers (they are set on the answers of all that follow, failures
    included), logs and metrics (which count refusals too), hosts and origins, CORS (before keys, because preflight
    requests bring no key), keys, rate.

    Raises:
        UsageError: `settings.rate` is no rate.
    """
    settings = service.settings
    app = _head_as_get(app)
    # Each wrapper goes around the one before, so the last one here is the first that a request meets.
    if settings.rate is not None or service.keys is not None:  # a key may have a rate of its own
        app = Rate(app, window=None if settings.rate is None else Window(*parse_rate(settings.rate)))
    # Without keys this still sets the request's client, which rate limits, routes and logs need.
    app = Authentication(app, keys=service.keys)
    if settings.cors:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "X-API-Key", "X-Client-ID", "X-Request-ID"),
            expose_headers=("X-Model", "X-Model-Digest", "X-Request-ID", "Retry-After", "Location"),
        )
    app = Hosts(app, names=names_allowed(settings.host, settings.allowed_hosts), origins=settings.cors)
    app = Logs(_http_alone(app), begun=service.metrics.begun, done=service.metrics.done)
    return SecurityHeaders(app, cross_origin=bool(settings.cors))


class Room:
    """ASGI middleware: refuses photos while their model's queue is full, before their request is parsed or read.

    A service that is asked ten times what it can do must spend its time on the answers, and routing and reading a
    request costs more than this.
    """

    def __init__(self, app: ASGIApp, engines: Engines, routes: Sequence[Route]) -> None:
        """Wrap an application.

        Args:
            app: the application.
            engines: the models that are served.
            routes: those that take photos by POST; a model is named by `name` in their path, or else by the query.
        """
        self.app, self.engines, self.routes = app, engines, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST":
            try:
                self._require_room(scope)
            except Problem as problem:
                await ProblemResponse(problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _require_room(self, scope: Scope) -> None:
        """Refuse a request that brings photos.

        Raises:
            Problem: the queue is full, or the service is not ready.
        """
        for route in self.routes:
            if found := route.path_regex.fullmatch(scope["path"]):
                break
        else:
            return
        model = found.groupdict().get("name") or _named_by(scope["query_string"])
        try:
            engine = self.engines.find(model, choice_key(scope)).engine
        except Problem:
            return  # its route says so
        try:
            engine.require_room(1, scope["state"]["client"].share)
        except Problem:
            scope["route"] = route
            raise


def _named_by(query: bytes) -> str | None:
    """The model that a query names; None if it names none."""
    return parse_qs(query.decode("latin-1")).get("model", [None])[-1] if query else None


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """Answer HEAD as GET (RFC 9110, section 9.3.2); the server leaves out the body, and the routes need not know."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}  # the server still sees HEAD
        try:
            await app(inner, receive, send)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for metrics

    return answered


def _http_alone(app: ASGIApp) -> ASGIApp:
    """Close WebSockets: the service has none, and the guards look at HTTP requests only."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await app(scope, receive, send)

    return guarded
