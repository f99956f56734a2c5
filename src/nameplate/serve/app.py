"""The ASGI application (`create_app`) and the server that runs it (`serve`)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client.metrics_core import CounterMetricFamily
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from nameplate import __version__
from nameplate.errors import NameplateError
from nameplate.serve.access import describe_access, is_loopback
from nameplate.serve.connections import BoundedProtocol, connections_allowed
from nameplate.serve.credit import Credit
from nameplate.serve.errors import Problem, ProblemResponse, on_problem
from nameplate.serve.log_writer import LogWriter
from nameplate.serve.middleware import Room, protect
from nameplate.serve.observability import event, set_up_logging
from nameplate.serve.pages import mount_docs, mount_page
from nameplate.serve.routes import aliases, feedback, jobs, photos, protocol, status
from nameplate.serve.schema import components, problems
from nameplate.serve.server import QuietServer, listen
from nameplate.serve.service import Gone, Service
from nameplate.serve.settings import ServeSettings
from nameplate.serve.tracing import Traces

ROUTERS = (
    photos.router,
    jobs.router,
    feedback.router,
    status.router,
    aliases.router,
    protocol.router,
)
OF_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
"""HTTP status with which the framework itself refuses → kind of problem."""


def create_app(settings: ServeSettings) -> FastAPI:
    """Make the service's ASGI application. Its workers start with its lifespan.

    Raises:
        NameplateError: a bundle cannot be served.
        UsageError: some settings contradict each other.
    """
    service = Service.of(settings)
    app = routes_alone()
    if settings.page:
        mount_page(app)
    if settings.docs:
        mount_docs(app)
    app.state.service = service
    app.state.failure = None
    app.add_middleware(Room, service.engines, _routes_of_photos())
    app.add_middleware(protect, service)
    app.add_middleware(Traces, service.tracer)  # the last is the first that a request meets
    return app


def routes_alone() -> FastAPI:
    """Make an application with all routes and no service, which suffices for the OpenAPI document."""
    app = FastAPI(
        title="Nameplate",
        version=__version__,
        summary="Reads a car's make and model off a photo.",
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's pages load scripts from a CDN, which the content security policy forbids
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to whatever the Host header says
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


def _routes_of_photos() -> list[Route]:
    """The routes by which photos come into a model's queue."""
    every = [route for router in (photos.router, protocol.router) for route in router.routes]
    return [route for route in every if isinstance(route, Route) and "POST" in (route.methods or ())]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the workers in the background: until they are warm, the server answers that it is live and not ready."""
    service: Service = app.state.service
    starting = asyncio.create_task(_start(app))
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if service.runner is not None:
            await service.runner.stop()
        await service.engines.stop(0.0)
        if service.runner is not None:
            service.runner.store.close()
        if service.feedback is not None:
            service.feedback.close()


async def _start(app: FastAPI) -> None:
    try:
        await app.state.service.engines.start()
        if app.state.service.runner is not None:
            app.state.service.runner.start()
    except NameplateError as error:
        app.state.failure = error  # `serve` stops the server and raises it


def _describe_answers(app: FastAPI) -> None:
    """Extend the OpenAPI document by the schemas of all answers, and replace FastAPI's errors by our problems."""
    generate = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema:
            return app.openapi_schema
        document = generate()
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
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    detail = f"{place}: {first['msg']}, not {str(first.get('input'))[:80]!r}."
    return ProblemResponse(Problem("unprocessable", detail))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = OF_STATUS.get(error.status_code, "bad-request")
    headers = error.headers
    if error.status_code == 405:  # the framework names the methods of one route alone
        headers = {**(headers or {}), "Allow": ", ".join(sorted(_methods(request)))}
    return ProblemResponse(Problem(kind, f"{error.detail}."), headers)


def _methods(request: Request) -> set[str]:
    """The methods of all routes of a request's path."""
    every = (route for router in (request.app.router, *ROUTERS) for route in router.routes if isinstance(route, Route))
    found = [route.methods or set() for route in every if route.matches(request.scope)[0] != Match.NONE]
    return set().union(*found)


async def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # no client reads it, but the log shows it (the number is nginx's)


# The server. After SIGTERM or SIGINT it reports that it is not ready, answers the requests under way, and ends.

LOST_SECONDS = 300.0
"""A service whose bundle has had no worker for this time ends with exit code 1, so that it is started anew."""
KEEP_ALIVE_SECONDS = 20
"""An idle connection is closed after this time."""
LAST_LINES_SECONDS = 1.0
"""The most time that is taken at the end to write log lines that wait."""
LAST_SPANS_SECONDS = 2.0
"""The same to send spans."""


def serve(settings: ServeSettings, started: Callable[[str], None]) -> None:
    """Serve until a signal stops the process.

    Args:
        settings: what is served, and how.
        started: called with the service's address once all bundles answer.

    Raises:
        NameplateError: a bundle cannot be served, or the address cannot be listened on.
        UsageError: some settings contradict each other.
    """
    log = LogWriter()
    set_up_logging(log)
    try:
        _serve(settings, started, log)
    finally:
        log.end(LAST_LINES_SECONDS)


def _serve(settings: ServeSettings, started: Callable[[str], None], log: LogWriter) -> None:
    app = create_app(settings)
    lost = "nameplate_log_lines_dropped", "Log lines lost, because who reads them stalls."
    app.state.service.metrics.add_gauges(lambda: [CounterMetricFamily(*lost, value=log.dropped)])
    BoundedProtocol.cap = connections_allowed()
    # uvicorn's own reading of the addresses, as it decides whose X-Forwarded-For holds.
    proxies = ProxyHeadersMiddleware(app, settings.trusted_proxies).trusted_hosts  # type: ignore[arg-type]
    credit = BoundedProtocol.credit = Credit(settings.connections_per_address, proxies.__contains__)
    closed = "nameplate_connections_refused", "Connections of addresses that left too many without an answer."
    app.state.service.metrics.add_gauges(lambda: [CounterMetricFamily(*closed, value=credit.refused)])
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        ws="none",
        lifespan="on",
    )
    listener = listen(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    if settings.keys is None and not is_loopback(settings.host):
        event("no keys", level="warning", host=settings.host, reason="anybody who reaches the port may use it: --keys")
    server = QuietServer(config)

    async def run() -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, _stop, server, app.state.service)
        announcing = asyncio.create_task(_announce(server, app, lambda: _ready(address, started)))
        reporting = asyncio.create_task(_report_refused(credit))
        await server.serve(sockets=[listener])
        announcing.cancel()
        reporting.cancel()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(run())
    finally:
        if app.state.service.tracer is not None:
            app.state.service.tracer.close(LAST_SPANS_SECONDS)
    if app.state.failure is not None:
        raise app.state.failure


def _ready(address: str, started: Callable[[str], None]) -> None:
    event("ready", url=address)
    started(address)


def _stop(server: uvicorn.Server, service: Service) -> None:
    """Report not ready at once, and stop the server after `stop_delay`; a second signal ends the process at once."""
    if service.draining:
        service.engines.remove_copies()
        os._exit(1)  # the workers end by themselves when their sockets close
    event("stopping", photos=sum(served.engine.photos for served in service.engines.served.values()))
    service.draining = True
    asyncio.get_running_loop().call_later(service.settings.stop_delay, _end, server, service)


def _end(server: uvicorn.Server, service: Service) -> None:
    service.hurry()
    server.should_exit = True


async def _report_refused(credit: Credit) -> None:
    """Log once a minute how many connections were refused, and the last one's address."""
    told = 0
    while True:
        if credit.refused > told:
            event("connections refused", level="warning", connections=credit.refused - told, address=credit.last)
            told = credit.refused
            await asyncio.sleep(60)
        await asyncio.sleep(1)


async def _announce(server: uvicorn.Server, app: FastAPI, started: Callable[[], None]) -> None:
    """Call `started` when all bundles answer; stop the server if one cannot be started, or cannot be started again."""
    while not app.state.service.ready:
        if app.state.failure is not None:
            server.should_exit = True
            return
        await asyncio.sleep(0.02)
    started()
    while not server.should_exit:
        await asyncio.sleep(1)
        for name, served in app.state.service.engines.served.items():
            if served.engine.lost_seconds > LOST_SECONDS:
                app.state.failure = NameplateError(
                    f"'{name}' has had no worker for {LOST_SECONDS:g} s; the log says why. The service ends, so that "
                    "it can be started anew."
                )
                server.should_exit = True
