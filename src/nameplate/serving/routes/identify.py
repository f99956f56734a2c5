"""POST /v1/identify."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from nameplate.models.answer_json import Row, prediction_json
from nameplate.serving.answer import Answer
from nameplate.serving.body import photos_of, read_form
from nameplate.serving.problems import Problem, kind_of
from nameplate.serving.routes.models import model_name
from nameplate.serving.schema import EXAMPLE_MODEL, EXAMPLE_ROW, Identified, answers, photos_body, problems
from nameplate.serving.service import json_response, service_of, unless_gone
from nameplate.types import TOP

router = APIRouter(tags=["photos"])

MOST_TOP = 1000
"""Nameplates that may be asked for."""


@router.post(
    "/v1/identify",
    summary="Name the car in each photo",
    responses={
        **answers(Identified, {"model": EXAMPLE_MODEL, "results": [EXAMPLE_ROW]}),
        **problems(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=photos_body(raw=True),
)
async def identify(
    request: Request,
    model: Annotated[str | None, Query(description="A model that /v1/models lists; none: the first.")] = None,
    top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many nameplates to give for each.")] = TOP,
    heatmap: Annotated[bool, Query(description="Whether to draw what speaks for the answer.")] = False,
) -> Response:
    """Photos in field `photos` of a form, or one as the body; the answers are those of `nameplate identify --json`."""
    service = service_of(request)
    service.engines.get(model).require_room(1)  # before the body is read
    async with read_form(request) as form:
        photos, names = await photos_of(form, service)
        served = service.engines.find(model)
        named = model_name(served)  # before the wait: it may be exchanged meanwhile
        request.state.log.update(model=served.engine.name, photos=len(photos))
        found = await unless_gone(request, served.engine.answer(photos, names, top=top, heatmap=heatmap))
    rows = [prediction_json(answer.prediction, answer.heatmap if heatmap else UNSET) for answer in found]
    refuse_if_none_readable(found, rows)
    return json_response(Identified(named, rows))


def refuse_if_none_readable(found: list[Answer], rows: list[Row]) -> None:
    """
    Raises:
        Problem: no photo could be read: of the first one's kind, with all rows.
    """
    first = found[0].prediction
    failure = first.failure
    if failure is None or any(answer.prediction.failure is None for answer in found):
        return
    several = f" None of {len(found)} photos can be read." if len(found) > 1 else ""
    raise Problem(
        kind_of(failure.reason),
        f"{first.photo}: {failure}.{several}",
        extra={"reason": failure.reason, "results": rows},
    )
