"""A small application behind all guards of the real one, and its log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from nameplate.serve.errors import Problem, on_problem
from nameplate.serve.keys import Keys
from nameplate.serve.middleware import protect
from nameplate.serve.observability import Metrics
from nameplate.serve.settings import ServeSettings


@dataclass
class Service:
    settings: ServeSettings = field(default_factory=ServeSettings)
    keys: Keys | None = None
    metrics: Metrics = field(default_factory=Metrics)


async def _who(request: Request) -> Response:
    request.state.log["photos"] = len(await request.body())
    client = request.state.client
    return JSONResponse({"name": client.name, "admin": client.admin}, headers={"X-Frame-Options": "ALLOWALL"})


async def _refuse(_: Request) -> Response:
    raise Problem("full", "No room.", retry_after=2)


async def _break(_: Request) -> Response:
    raise ZeroDivisionError("secret detail")


async def _stay_open(_: Request) -> Response:
    return Response("open")


def small_app(service: Service) -> Starlette:
    routes = [
        Route("/v1/who/{name}", _who, methods=["GET", "POST"]),
        Route("/v1/full", _refuse),
        Route("/v1/break", _break),
        *(Route(path, _stay_open) for path in ("/", "/health/live", "/page/app.js", "/v1/service", "/openapi.json")),
    ]
    app = Starlette(routes=routes, exception_handlers={Problem: on_problem})
    app.add_middleware(protect, service)
    return app


def client_of(
    service: Service, address: str = "127.0.0.1", host: str = "127.0.0.1:8000", app: ASGIApp | None = None
) -> TestClient:
    guarded = protect(app, service) if app else small_app(service)
    return TestClient(guarded, base_url=f"http://{host}", client=(address, 1))


def lines(text: str) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
