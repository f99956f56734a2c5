"""`Service`: what all routes share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from nameplate.errors import UsageError
from nameplate.models.runtime import check_runtime
from nameplate.serving.budget import Budget
from nameplate.serving.engines import Engines
from nameplate.serving.feedback.store import FeedbackStore
from nameplate.serving.keys import Keys
from nameplate.serving.logs import event
from nameplate.serving.metrics import Metrics
from nameplate.serving.observer import Watch, look
from nameplate.serving.rates import parse_rate
from nameplate.serving.settings import ServeSettings

T = TypeVar("T")


@dataclass(slots=True)
class Service:
    """A running service."""

    settings: ServeSettings
    engines: Engines
    budget: Budget
    metrics: Metrics = field(default_factory=Metrics)
    keys: Keys | None = None
    """None where anybody may ask."""
    feedback: FeedbackStore | None = None
    """Where users' corrections are kept; None keeps none."""
    draining: bool = False
    """Whether it was told to stop: no longer ready, and nothing new is to come."""

    @classmethod
    def of(cls, settings: ServeSettings) -> Service:
        """A service whose bundles are read and checked, and whose workers are not started yet.

        Raises:
            NameplateError: a bundle cannot be served.
            UsageError: settings that do not go together.
        """
        check(settings)
        keys = None if settings.keys is None else Keys(settings.keys, failed=_keys_not_read)
        metrics, budget = Metrics(), Budget(settings.queue_bytes)
        engines = Engines(settings, Watch(metrics))
        engines.load()
        metrics.watch(lambda: look(engines, budget))
        return cls(settings, engines, budget, metrics, keys, _open_feedback(settings))

    @property
    def ready(self) -> bool:
        """Whether every bundle answers."""
        return not self.draining and all(self.engines.ready.values())


def _keys_not_read(why: str) -> None:
    event("keys not read", level="error", reason=why)


def _open_feedback(settings: ServeSettings) -> FeedbackStore | None:
    if settings.feedback is None:
        return None
    return FeedbackStore.open(settings.feedback, cap=settings.feedback_bytes)


def check(settings: ServeSettings) -> None:
    """
    Raises:
        UsageError: settings that do not go together.
    """
    check_runtime(settings.runtime)
    if settings.queue_photos < settings.photos:
        raise UsageError(
            f"The queue takes {settings.queue_photos} photos and one request may bring {settings.photos}: "
            "it would be refused always."
        )
    if settings.rate is not None:
        parse_rate(settings.rate)
    if settings.queue_bytes < settings.body_bytes:
        raise UsageError(
            f"The queue takes {settings.queue_bytes:,} bytes and one request may bring {settings.body_bytes:,}: "
            "it would be refused always."
        )


def service_of(request: Request) -> Service:
    """The service that a request has reached."""
    service: Service = request.app.state.service
    return service


def json_response(value: object, status: int = 200) -> Response:
    """An answer as JSON, encoded as everywhere in Nameplate."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


class Gone(Exception):  # noqa: N818 - no error of ours
    """The client has hung up."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do some work, and drop it when the client hangs up. The request's body must have been read.

    Raises:
        Gone: it has.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
