"""Everything that stands between the network and the routes, in its order."""

from __future__ import annotations

from typing import Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nameplate.serve.access import Authentication, Hosts, Rate, Window, names_allowed, parse_rate
from nameplate.serve.keys import Keys
from nameplate.serve.observability import Logs, Metrics
from nameplate.serve.settings import ServeSettings

# JOINED What every answer tells browsers not to do.


CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
PERMISSIONS_POLICY = ", ".join(
    ["camera=(self)"]
    + [f"{name}=()" for name in ("microphone", "geolocation", "display-capture", "payment", "usb", "serial", "midi")]
)
PRIVATE = ("/v1/", "/v2/")
"""Answers below these are kept by no cache: they are about somebody's photo, or asked for with somebody's key."""

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": PERMISSIONS_POLICY,
    "x-frame-options": "DENY",
}
"""After OWASP's "HTTP Security Response Headers Cheat Sheet". Strict-Transport-Security is for who ends TLS."""


class SecurityHeaders:
    """ASGI middleware: puts `HEADERS` on every answer, in place of any that the application gave."""

    def __init__(self, app: ASGIApp, *, cross_origin: bool = False) -> None:
        self.app = app
        chosen = HEADERS | ({"cross-origin-resource-policy": "cross-origin"} if cross_origin else {})
        self.open = [(name.encode(), value.encode()) for name, value in chosen.items()]
        self.private = [*self.open, (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and mend its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = self.private if scope["path"].startswith(PRIVATE) else self.open
        names = {name for name, _ in ours}

        async def mend(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message.get("headers", ()) if header[0].lower() not in names]
                message = {**message, "headers": kept + ours}
            await send(message)

        await self.app(scope, receive, mend)


class Protected(Protocol):
    """What `protect` needs of a service."""

    @property
    def settings(self) -> ServeSettings: ...
    @property
    def keys(self) -> Keys | None: ...
    @property
    def metrics(self) -> Metrics: ...


def protect(app: ASGIApp, service: Protected) -> ASGIApp:
    """An application behind its guards.

    A request meets them in this order: security headers (on all that follow's answers, failures too), logs and metrics
    (of refusals too), hosts and origins, CORS (whose preflights bring no key), keys, rate.

    Raises:
        UsageError: `settings.rate` is no rate.
    """
    settings = service.settings
    if settings.rate is not None:
        app = Rate(app, window=Window(*parse_rate(settings.rate)))
    app = Authentication(app, keys=service.keys)
    if settings.cors:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=("X-Request-ID", "Retry-After"),
        )
    app = Hosts(app, names=names_allowed(settings.host, settings.allowed_hosts), origins=settings.cors)
    app = Logs(_http_alone(app), begun=service.metrics.begun, done=service.metrics.done)
    return SecurityHeaders(app, cross_origin=bool(settings.cors))


def _http_alone(app: ASGIApp) -> ASGIApp:
    """Nothing here is a WebSocket, and none of the guards looks at one: it is closed."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await app(scope, receive, send)

    return guarded
