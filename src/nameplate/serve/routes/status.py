"""Health, metrics, the models that are served and their reload, and the service's limits."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate import __version__
from nameplate.images.decode import pixel_limits
from nameplate.serve.access import only_admin
from nameplate.serve.engine import Engine
from nameplate.serve.errors import Problem
from nameplate.serve.observability import CONTENT_TYPE
from nameplate.serve.schema import (
    About,
    Bounds,
    Live,
    ModelName,
    Models,
    ReadyModels,
    Reloaded,
    ServedModel,
    answers,
    problems,
)
from nameplate.serve.served import Served
from nameplate.serve.service import Service, choice_key, json_response, service_of

router = APIRouter()


@router.get(
    "/health/live",
    tags=["health"],
    operation_id="live",
    summary="Whether the process answers",
    responses=answers(Live),
)
async def live() -> Response:
    """Restart the service where this fails."""
    return json_response(Live(live=True))


@router.get(
    "/health/ready",
    operation_id="ready",
    tags=["health"],
    summary="Whether photos are answered",
    responses={**answers(ReadyModels), **problems(503)},
)
async def ready(request: Request) -> Response:
    """Send no requests where this fails: it starts, stops, or has lost its workers."""
    service = service_of(request)
    if not service.ready:
        waiting = [name for name, is_ready in service.engines.ready.items() if not is_ready]
        why = "it is stopping" if service.draining else f"no worker answers for {', '.join(waiting)}"
        raise Problem("not-ready", f"Not ready: {why}.", retry_after=1, extra={"models": service.engines.ready})
    return json_response(ReadyModels(ready=True, models=service.engines.ready))


@router.get(
    "/metrics", operation_id="metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
)
async def metrics(request: Request) -> Response:
    """What Prometheus reads; needs a key where the service has keys."""
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE)


def model_name(served: Served) -> ModelName:
    """Return the name and digest of the bundle that answers."""
    return ModelName(served.engine.name, served.digest)


def said_by(model: ModelName) -> dict[str, str]:
    """Return the headers that say which model has answered."""
    return {"X-Model": model.name, "X-Model-Digest": model.digest}


@router.get(
    "/v1/models",
    tags=["models"],
    operation_id="models",
    summary="The models that are served",
    responses={**answers(Models), **problems(429)},
)
async def models(request: Request) -> Response:
    """Each with all nameplates that it knows."""
    engines = service_of(request).engines
    default = engines.find(None, choice_key(request.scope))
    found = [_model(served, service_of(request), default=served is default) for served in engines.served.values()]
    return json_response(Models(found))


@router.get(
    "/v1/service", tags=["models"], operation_id="service", summary="What the service takes", responses=answers(About)
)
async def about(request: Request) -> Response:
    """For a page or an app to know before it sends anything."""
    settings = service_of(request).settings
    of_photo = settings.limits
    limits = Bounds(settings.photos, of_photo.bytes, settings.body_bytes, of_photo.pixels, pixel_limits(of_photo))
    has_feedback, has_keys = settings.feedback is not None, settings.keys is not None
    return json_response(About(__version__, feedback=has_feedback, keys=has_keys, limits=limits))


@router.post(
    "/v1/models/{name}/reload",
    operation_id="reload",
    summary="Exchange a model for what now stands on disk",
    responses={**answers(Reloaded), **problems(401, 403, 404, 409, 429)},
)
async def reload(request: Request, name: str) -> Response:
    """Load, check, warm up, switch; no request fails meanwhile. Or the old one goes on, and `detail` says why."""
    only_admin(request.state.client)
    service = service_of(request)
    changed = await service.engines.reload(name)
    return json_response(Reloaded(model_name(service.engines.find(name)), changed))


def _locates(engine: Engine) -> bool:
    """Whether photos are named from the car that is located in them, unless a request says otherwise."""
    cars = engine.settings.cars
    return cars == "all" or (cars == "main" and engine.model.bundle.manifest.preprocess.locate != "none")


def _model(served: Served, service: Service, *, default: bool) -> ServedModel:
    engine, manifest = served.engine, served.engine.model.bundle.manifest
    return ServedModel(
        name=engine.name,
        digest=served.digest,
        default=default,
        nameplates=engine.model.nameplates,
        makes=engine.model.makes,
        embedding=manifest.embedding,
        height=manifest.preprocess.height,
        width=manifest.preprocess.width,
        runtime=engine.runtime,
        threads=engine.threads,
        tta=service.settings.tta,
        locates=_locates(engine),
        ready=engine.ready,
        since=datetime.fromtimestamp(engine.since, UTC).isoformat() if engine.since else None,
    )
