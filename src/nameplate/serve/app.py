"""`create_app`: the routes over a service."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from nameplate import __version__
from nameplate.errors import NameplateError
from nameplate.serve.access import describe_access
from nameplate.serve.errors import Problem, ProblemResponse, on_problem
from nameplate.serve.middleware import protect
from nameplate.serve.observability import event, set_up_logging
from nameplate.serve.routes import feedback, photos, protocol, status
from nameplate.serve.schema import components, problems
from nameplate.serve.service import Gone, Service
from nameplate.serve.settings import ServeSettings

# JOINED The page at `/`: plain files of the package, read once when the service starts.
#
# JOINED Only their names are looked up, so no address leads out of the folder.


INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str
    """Of its bytes, in quotes."""


def read_page() -> dict[str, PageFile]:
    """All files of the page by name."""
    folder = resources.files("nameplate.serve") / "page"
    bodies = {each.name: each.read_bytes() for each in folder.iterdir() if PurePath(each.name).suffix in TYPES}
    return {
        name: PageFile(body, TYPES[PurePath(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        for name, body in bodies.items()
    }


def mount_page(app: FastAPI) -> None:
    """Serve the page at `/`, and its files below `/page/`.

    A browser asks each time whether a file has changed (`no-cache`), and gets 304 where it has not.
    """
    files = read_page()

    async def index(request: Request) -> Response:
        return _answer(request, files[INDEX])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name == INDEX or name not in files:
            raise Problem("not-found", f"The page has no file '{name}'.")
        return _answer(request, files[name])

    app.add_route("/", index, ["GET"], include_in_schema=False)
    app.add_route("/page/{name}", file, ["GET"], include_in_schema=False)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    asked = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    if file.etag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)


ROUTERS = (
    photos.router,
    feedback.router,
    status.router,
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


# JOINED `serve`: the application on a port, until SIGTERM or SIGINT: not ready, drain, end.


CONNECTIONS = 1000
"""Connections beyond these are refused at once."""
KEEP_ALIVE_SECONDS = 20
"""An idle connection is closed after so long."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal and not with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: ServeSettings, started: Callable[[str], None]) -> None:
    """Serve until told to stop.

    Args:
        settings: see there.
        started: called with the address once it answers.

    Raises:
        NameplateError: a bundle cannot be served, or the address cannot be listened on.
        UsageError: settings that do not go together.
    """
    set_up_logging()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ws="none",
        lifespan="on",
    )
    listener = _listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    server = _Server(config)

    async def run() -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, _stop, server, app.state.service)
        announcing = asyncio.create_task(_announce(server, app, lambda: _ready(address, started)))
        await server.serve(sockets=[listener])
        announcing.cancel()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())
    if app.state.failure is not None:
        raise app.state.failure


def _ready(address: str, started: Callable[[str], None]) -> None:
    event("ready", url=address)
    started(address)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise NameplateError(f"Cannot listen on {host}:{port}: {error}. Choose another --port or --host.") from None
    return listener


def _stop(server: uvicorn.Server, service: Service) -> None:
    """First not ready, then no new connections; a second signal waits for nothing."""
    if service.draining:
        service.engines.remove_copies()
        os._exit(1)  # workers end when their sockets close
    event("stopping", photos=sum(served.engine.photos for served in service.engines.served.values()))
    service.draining = True
    asyncio.get_running_loop().call_later(service.settings.stop_delay, setattr, server, "should_exit", True)


async def _announce(server: uvicorn.Server, app: FastAPI, started: Callable[[], None]) -> None:
    """Say that it answers, or end it where it cannot."""
    while not app.state.service.ready:
        if app.state.failure is not None:
            server.should_exit = True
            return
        await asyncio.sleep(0.02)
    started()
