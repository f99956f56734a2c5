"""GET /v1/models, GET /v1/service, POST /v1/models/{name}/reload."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate import __version__
from nameplate.serving.access import only_admin
from nameplate.serving.engines import Served
from nameplate.serving.schema import About, Bounds, ModelName, Models, Reloaded, ServedModel, answers, problems
from nameplate.serving.service import Service, json_response, service_of

router = APIRouter(tags=["models"])


def model_name(served: Served) -> ModelName:
    """Which bundle has answered."""
    return ModelName(served.engine.name, served.digest)


@router.get("/v1/models", summary="The models that are served", responses={**answers(Models), **problems(429)})
async def models(request: Request) -> Response:
    """Each with all nameplates that it knows."""
    return json_response(Models([_model(served, service_of(request)) for served in _all(request)]))


@router.get("/v1/service", summary="What the service takes", responses=answers(About))
async def about(request: Request) -> Response:
    """For a page or an app to know before it sends anything."""
    settings = service_of(request).settings
    limits = Bounds(settings.photos, settings.limits.bytes, settings.body_bytes, settings.limits.pixels)
    has_feedback, has_keys = settings.feedback is not None, settings.keys is not None
    return json_response(About(__version__, feedback=has_feedback, keys=has_keys, limits=limits))


@router.post(
    "/v1/models/{name}/reload",
    summary="Exchange a model for what now stands on disk",
    responses={**answers(Reloaded), **problems(401, 403, 404, 409, 429)},
)
async def reload(request: Request, name: str) -> Response:
    """Load, check, warm up, switch; no request fails meanwhile. Or the old one goes on, and `detail` says why."""
    only_admin(request.state.client)
    service = service_of(request)
    changed = await service.engines.reload(name)
    return json_response(Reloaded(model_name(service.engines.find(name)), changed))


def _all(request: Request) -> list[Served]:
    return list(service_of(request).engines.served.values())


def _model(served: Served, service: Service) -> ServedModel:
    engine, manifest = served.engine, served.engine.model.bundle.manifest
    return ServedModel(
        name=engine.name,
        digest=served.digest,
        default=service.engines.find() is served,
        nameplates=engine.model.nameplates,
        makes=engine.model.makes,
        embedding=manifest.embedding,
        height=manifest.preprocess.height,
        width=manifest.preprocess.width,
        runtime=engine.runtime,
        tta=service.settings.tta,
        ready=engine.ready,
        since=datetime.fromtimestamp(engine.since, UTC).isoformat() if engine.since else None,
    )
