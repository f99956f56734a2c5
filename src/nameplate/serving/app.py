"""`create_app`: the routes over a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from nameplate import __version__
from nameplate.errors import NameplateError
from nameplate.serving.access import describe_access
from nameplate.serving.page import mount_page
from nameplate.serving.problems import Problem, ProblemResponse, on_problem
from nameplate.serving.protect import protect
from nameplate.serving.routes import feedback, health, identify, metrics, models, protocol, verify
from nameplate.serving.schema import components, problems
from nameplate.serving.service import Gone, Service
from nameplate.serving.settings import ServeSettings

ROUTERS = (
    identify.router,
    verify.router,
    feedback.router,
    models.router,
    health.router,
    metrics.router,
    protocol.router,
)
OF_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
"""Statuses that the framework itself answers with → the kind of problem."""


def create_app(settings: ServeSettings) -> FastAPI:
    """The service's ASGI application; its workers start with its lifespan.

    Raises:
        NameplateError: a bundle cannot be served.
        UsageError: settings that do not go together.
    """
    service = Service.of(settings)
    app = routes_alone()
    if settings.page:
        mount_page(app)
    app.state.service = service
    app.state.failure = None
    app.add_middleware(protect, service)
    return app


def routes_alone() -> FastAPI:
    """All routes, over no service: for the OpenAPI document."""
    app = FastAPI(
        title="Nameplate",
        version=__version__,
        summary="Reads a car's make and model off a photo.",
        lifespan=_lifespan,
        docs_url=None,  # their pages come from a CDN
        redoc_url=None,
        exception_handlers={
            Problem: on_problem,
            RequestValidationError: _on_invalid,
            HTTPException: _on_http,
            Gone: _on_gone,
        },
    )
    for router in ROUTERS:
        app.include_router(router)
    _describe_answers(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Workers start beside the server, which says meanwhile that it is live and not ready."""
    service: Service = app.state.service
    starting = asyncio.create_task(_start(app))
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await service.engines.stop(0.0)
        if service.feedback is not None:
            service.feedback.close()


async def _start(app: FastAPI) -> None:
    try:
        await app.state.service.engines.start()
    except NameplateError as error:
        app.state.failure = error  # server.py ends with it


def _describe_answers(app: FastAPI) -> None:
    """Put the forms of answers into the OpenAPI document, and refusals in the place of FastAPI's own."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema:
            return app.openapi_schema
        document = made()
        parts = document.setdefault("components", {}).setdefault("schemas", {})
        parts |= components()
        for name in ("HTTPValidationError", "ValidationError"):
            parts.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                refused = operation["responses"].get("422")
                if refused and "HTTPValidationError" in str(refused.get("content")):
                    refused["content"] = problems(422)[422]["content"]
        describe_access(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    place = ".".join(str(part) for part in wrong["loc"])
    said = f"{place}: {wrong['msg']}, not {str(wrong.get('input'))[:80]!r}."
    return ProblemResponse(Problem("unprocessable", said))


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = OF_STATUS.get(error.status_code, "bad-request")
    return ProblemResponse(Problem(kind, f"{error.detail}."), error.headers)


async def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; logs do (nginx's number for it)
