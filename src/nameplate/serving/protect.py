"""Everything that stands between the network and the routes, in its order."""

from __future__ import annotations

from typing import Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from nameplate.serving.access import Authentication, Rate
from nameplate.serving.headers import SecurityHeaders
from nameplate.serving.hosts import Hosts, names_allowed
from nameplate.serving.keys import Keys
from nameplate.serving.logs import Logs
from nameplate.serving.metrics import Metrics
from nameplate.serving.rates import Window, parse_rate
from nameplate.serving.settings import ServeSettings


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
