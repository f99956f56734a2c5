"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate.serving.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """What Prometheus reads; needs a key where the service has keys."""
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE)
