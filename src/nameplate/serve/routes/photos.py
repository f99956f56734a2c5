"""POST /v1/identify and POST /v1/verify."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from msgspec import UNSET
from msgspec.structs import asdict
from starlette.requests import Request
from starlette.responses import Response

from nameplate.defaults import TOP
from nameplate.errors import UsageError
from nameplate.model.detector import MOST_CARS
from nameplate.model.model import Model
from nameplate.model.verification import (
    DEFAULT_LIES,
    DEFAULT_RATE,
    RATES,
    Lies,
    Row,
    UnknownClaimError,
    prediction_json,
    verified_json,
)
from nameplate.serve.errors import Problem, kind_of
from nameplate.serve.ipc import JobOptions, ServedAnswer
from nameplate.serve.requests import photos_of, read_form
from nameplate.serve.routes.status import model_name, said_by
from nameplate.serve.schema import EXAMPLE_MODEL, EXAMPLE_ROW, Identified, VerifiedClaim, answers, photos_body, problems
from nameplate.serve.service import json_response, model_for, service_of, share_of, unless_gone
from nameplate.types import Cars

router = APIRouter(tags=["photos"])

MOST_TOP = 1000
"""The most nameplates that a request may ask for."""
Asked = Annotated[
    str | None,
    Query(description="A model that /v1/models lists, or an alias of several; none: alias `default`, or the first."),
]
Whole = Annotated[
    bool, Query(description="Whether to name the whole photo, also where the model locates the car in it.")
]


@router.post(
    "/v1/identify",
    operation_id="identify",
    summary="Name the car in each photo",
    responses={
        **answers(Identified, {"model": EXAMPLE_MODEL, "results": [EXAMPLE_ROW]}),
        **problems(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=photos_body(raw=True),
)
async def identify(
    request: Request,
    model: Asked = None,
    top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many nameplates to give for each.")] = TOP,
    heatmap: Annotated[bool, Query(description="Whether to draw what speaks for the answer.")] = False,
    car: Annotated[
        int, Query(ge=1, le=MOST_CARS, description="Which of `cars` the heat map is of; 1 is the main one.")
    ] = 1,
    all_: Annotated[
        bool, Query(alias="all", description="Whether to name every car that is located; not with `whole`.")
    ] = False,
    whole: Whole = False,
) -> Response:
    """Photos in field `photos` of a form, or one as the body; the answers are those of `nameplate identify --json`."""
    service, cars = service_of(request), which_cars(every=all_, whole=whole)
    served = model_for(request, model)  # one that is not served is refused before the body is read
    async with read_form(request) as form:
        photos, names = await photos_of(form, service)
        named = model_name(served)  # read now: a reload may exchange the bundle during the wait
        request.state.log.update(photos=len(photos))
        drawn = car - 1 if heatmap else None
        options = JobOptions(top=top, heatmap=drawn, cars=cars)
        asked = served.engine.answer(photos, names, options, client=share_of(request))
        found = await unless_gone(request, asked)
    rows = [prediction_json(answer.prediction, answer.heatmap if heatmap else UNSET) for answer in found]
    refuse_if_none_readable(found, rows)
    return json_response(Identified(named, rows), headers=said_by(named))


def which_cars(*, every: bool, whole: bool) -> Cars | None:
    """Which cars of the photos a request asks for; None: as the service's settings say.

    Raises:
        Problem: it asks for both.
    """
    if every and whole:
        raise Problem(
            "unprocessable",
            "'all' names every car and 'whole' the photo without locating any: ask for one of them.",
        )
    return "all" if every else "whole" if whole else None


def refuse_if_none_readable(found: list[ServedAnswer], rows: list[Row]) -> None:
    """Refuse a request if none of its photos can be read.

    Raises:
        Problem: no photo can be read. Its kind is that of the first photo, and it holds all rows.
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


EXAMPLE = {
    "model": EXAMPLE_MODEL,
    "claimed": "GMC Savana",
    "nameplates": ["GMC Savana Van 2012"],
    "verdict": "accept",
    "code": "score",
    "score": 0.748,
    "accept_above": 0.149,
    "reject_below": 0.0017,
    "false_accepts": {"mixed": 0.01, "random": 0.001, "same-make": 0.021, "alike": 0.15},
    "reason": "0.748 on 1 of 1 photos; accepted above 0.149, rejected below 0.0017",
    "photos": [{**EXAMPLE_ROW, "score": 0.748}],
}


@router.post(
    "/v1/verify",
    operation_id="verify",
    summary="Say whether an advert's photos show the car that it names",
    responses={**answers(VerifiedClaim, EXAMPLE), **problems(400, 404, 408, 413, 415, 422, 429, 503)},
    openapi_extra=photos_body({"claimed": {"type": "string", "example": "GMC Savana"}}, raw=False),
)
async def verify(
    request: Request,
    model: Asked = None,
    false_accepts: Annotated[
        float,
        Query(ge=RATES[0], le=RATES[-1], description="Share of wrong claims that may be accepted, true ones rejected."),
    ] = DEFAULT_RATE,
    false_accepts_of: Annotated[
        Lies,
        Query(
            description="The wrong claims that this share is of: mixed, half of them of the same make; random; "
            "same-make; alike, the nameplate that the model takes such photos for most often."
        ),
    ] = DEFAULT_LIES,
    whole: Whole = False,
) -> Response:
    """A nameplate, words of one, or a make in field `claimed`, and all photos of the advert in field `photos`."""
    service = service_of(request)
    served = model_for(request, model)  # one that is not served is refused before the body is read
    async with read_form(request) as form:
        photos, names = await photos_of(form, service)
        known, named = served.engine.model, model_name(served)  # read now: a reload may exchange the bundle meanwhile
        request.state.log.update(photos=len(photos))
        claimed = form.fields.get("claimed", "").strip()
        _refuse_what_cannot_be_judged(known, claimed, false_accepts, false_accepts_of)
        cars: Cars = "whole" if whole else known.all_cars().settings.cars
        asked = served.engine.answer(photos, names, JobOptions(cars=cars), client=share_of(request))
        found = await unless_gone(request, asked)
    refuse_if_none_readable(found, [prediction_json(answer.prediction) for answer in found])
    verified = known.judge_claim(
        claimed, [(a.prediction, a.probs) for a in found], rate=false_accepts, lies=false_accepts_of
    )
    return json_response(VerifiedClaim(named, **asdict(verified_json(verified))), headers=said_by(named))


def _refuse_what_cannot_be_judged(model: Model, claimed: str, rate: float, lies: Lies) -> None:
    """Refuse claims that the model cannot decide.

    Raises:
        Problem: the claim is empty or unknown to the model, or the model has no thresholds for such lies.
    """
    if not claimed:
        raise Problem("unprocessable", "Say in field 'claimed' what is claimed.")
    try:
        model.check_claim(claimed, rate, lies)
    except UnknownClaimError as error:
        raise Problem("unprocessable", str(error), extra={"code": "unknown claim"}) from None
    except UsageError as error:
        raise Problem("unprocessable", str(error)) from None
