"""GET /health/live, GET /health/ready."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate.serving.problems import Problem
from nameplate.serving.schema import Live, ReadyModels, answers, problems
from nameplate.serving.service import json_response, service_of

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Whether the process answers", responses=answers(Live))
async def live() -> Response:
    """Restart the service where this fails."""
    return json_response(Live(live=True))


@router.get("/health/ready", summary="Whether photos are answered", responses={**answers(ReadyModels), **problems(503)})
async def ready(request: Request) -> Response:
    """Send no requests where this fails: it starts, stops, or has lost its workers."""
    service = service_of(request)
    if not service.ready:
        waiting = [name for name, is_ready in service.engines.ready.items() if not is_ready]
        why = "it is stopping" if service.draining else f"no worker answers for {', '.join(waiting)}"
        raise Problem("not-ready", f"Not ready: {why}.", retry_after=1, extra={"models": service.engines.ready})
    return json_response(ReadyModels(ready=True, models=service.engines.ready))
