"""/v1/aliases: names that stand for several models by weight, and how an operator changes them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate.serve.access import only_admin
from nameplate.serve.errors import Problem
from nameplate.serve.requests import read_body
from nameplate.serve.schema import NewWeights, ServedAliases, answers, problems, weights_body
from nameplate.serve.service import Service, json_response, service_of

router = APIRouter(tags=["models"])

WEIGHTS = {"stable": 95.0, "next": 5.0}
EXAMPLE = {"aliases": {"cars": WEIGHTS}, "kept": True}


@router.get(
    "/v1/aliases",
    operation_id="aliases",
    summary="Names that stand for several models",
    responses=answers(ServedAliases, EXAMPLE),
)
async def aliases(request: Request) -> Response:
    """Each with its models' weights; `kept` says whether they outlive the service."""
    return _all(service_of(request))


@router.put(
    "/v1/aliases/{name}",
    operation_id="switch_alias",
    summary="Make an alias, or change its weights",
    responses={**answers(ServedAliases, EXAMPLE), **problems(400, 401, 403, 404, 408, 413, 415, 422, 429, 503)},
    openapi_extra=weights_body(WEIGHTS),
)
async def switch_alias(request: Request, name: str) -> Response:
    """All weights at once, for every request that comes after; those under way are answered by the model they have."""
    only_admin(request.state.client)
    async with read_body(request) as body:
        try:
            weights = msgspec.json.decode(body, type=NewWeights).weights
        except msgspec.ValidationError as error:
            raise Problem("unprocessable", f'{error}. Send {{"weights": {{MODEL: WEIGHT, …}}}}.') from None
        except msgspec.DecodeError as error:
            raise Problem("bad-request", f"The body is no JSON: {error}.") from None
    await service_of(request).engines.switch(name, weights)
    return _all(service_of(request))


@router.delete(
    "/v1/aliases/{name}",
    operation_id="remove_alias",
    summary="Remove an alias",
    responses={**answers(ServedAliases, {"aliases": {}, "kept": True}), **problems(401, 403, 404, 429, 503)},
)
async def remove_alias(request: Request, name: str) -> Response:
    """Its models go on; requests that name it are refused."""
    only_admin(request.state.client)
    await service_of(request).engines.switch(name, None)
    return _all(service_of(request))


def _all(service: Service) -> Response:
    engines = service.engines
    found = {name: dict(weights) for name, weights in engines.aliases.items()}
    return json_response(ServedAliases(found, kept=engines.settings.aliases_file is not None))
