"""`serve`: the application on a port, until SIGTERM or SIGINT: not ready, drain, end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from nameplate.errors import NameplateError
from nameplate.serving.app import create_app
from nameplate.serving.logs import event, take_over
from nameplate.serving.service import Service
from nameplate.serving.settings import ServeSettings

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
    take_over()
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
