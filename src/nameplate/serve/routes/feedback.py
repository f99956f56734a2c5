"""POST /v1/feedback: a user corrects an answer by saying what a photo shows."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate.errors import DatabaseError, Failure, PhotoError, UsageError
from nameplate.images.decode import read_header
from nameplate.images.header import Header
from nameplate.images.metadata import without_metadata
from nameplate.serve.access import Client
from nameplate.serve.errors import Problem, kind_of
from nameplate.serve.feedback.store import (
    Correction,
    FeedbackStore,
    StoreFullError,
    clean_comment,
    clean_nameplate,
    known_spelling,
)
from nameplate.serve.observability import event
from nameplate.serve.requests import Form, read_form
from nameplate.serve.schema import Kept, answers, feedback_body, problems
from nameplate.serve.served import Served
from nameplate.serve.service import choice_key, json_response, service_of, share_of, unless_gone
from nameplate.types import Prediction

router = APIRouter(tags=["photos"])

PHOTO = "photo"
NOBODY = "anonymous"
"""The client's name in a service without keys. Addresses are never stored."""
RETRY_SECONDS = 10.0
"""When a client may try again after the database failed."""


@router.post(
    "/v1/feedback",
    operation_id="correct",
    summary="Say what a photo shows",
    status_code=201,
    responses={
        **answers(Kept, status=201, description="Kept, or there already"),
        **problems(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=feedback_body(),
)
async def feedback(request: Request) -> Response:
    """One file `photo` and the right `nameplate`; perhaps what was `predicted`, by which `model`, and a `comment`."""
    service = service_of(request)
    if service.feedback is None:
        raise Problem(
            "not-found",
            "This service stores no corrections. Its operator can start it with --feedback DATABASE to allow them.",
        )
    async with read_form(request) as form:
        photo = _only_photo(form)
        served = service.engines.find(form.fields.get("model") or None, choice_key(request.scope))
        said = _clean(form.fields, served.engine.model.nameplates)
        # A worker decodes the photo first, where hostile bytes do no harm. This process reads only the header, and only
        # of a photo that the worker could decode.
        [answer] = await unless_gone(request, served.engine.answer([photo], [PHOTO], client=share_of(request)))
        if answer.prediction.failure is not None:
            raise _unreadable(answer.prediction.failure)
        try:
            header = await asyncio.to_thread(read_header, photo, service.settings.limits)
            if not service.settings.keep_metadata:
                photo = await asyncio.to_thread(without_metadata, photo, header, service.settings.limits)
                header = await asyncio.to_thread(read_header, photo, service.settings.limits)
        except PhotoError as error:
            raise _unreadable(error.failure) from None
        client: Client = request.scope["state"]["client"]
        correction = _correction(said, client.name if client.by_key else NOBODY, answer.prediction, served)
        id_ = await _keep(service.feedback, correction, photo, header)
    return json_response(Kept(id_), 201)


def _only_photo(form: Form) -> bytes:
    if [file.field for file in form.files] != [PHOTO]:
        raise Problem("unprocessable", f"Send one file, in field '{PHOTO}' of a form; {len(form.files)} came.")
    return form.files[0].data


def _unreadable(failure: Failure) -> Problem:
    return Problem(kind_of(failure.reason), f"{PHOTO}: {failure}", extra={"reason": failure.reason})


def _clean(fields: dict[str, str], nameplates: tuple[str, ...]) -> dict[str, str]:
    """Return the fields `nameplate`, `predicted` (may be empty) and `comment` as they are stored.

    Raises:
        Problem: a field is empty, too long, or holds characters that cannot be seen.
    """
    predicted = fields.get("predicted", "").strip()
    try:
        return {
            "nameplate": known_spelling(clean_nameplate(fields.get("nameplate", "")), nameplates),
            "predicted": predicted and known_spelling(clean_nameplate(predicted, "predicted"), nameplates),
            "comment": clean_comment(fields.get("comment", "")),
        }
    except UsageError as error:
        raise Problem("unprocessable", str(error)) from None


def _correction(said: dict[str, str], client: str, now: Prediction, served: Served) -> Correction:
    """Make the correction of the answer that the client has seen.

    The client may have been answered by an earlier bundle, so its `predicted` counts; confidence and verdict are known
    only if the current model predicts the same.
    """
    predicted = said["predicted"] or now.nameplate
    same = predicted == now.nameplate
    return Correction(
        nameplate=said["nameplate"],
        client=client,
        predicted=predicted,
        confidence=now.confidence if same else None,
        verdict=now.verdict if same else None,
        model=served.engine.name,
        digest=served.digest,
        comment=said["comment"],
    )


async def _keep(store: FeedbackStore, correction: Correction, photo: bytes, header: Header) -> str:
    """Store a correction, in a thread because the store blocks, and return its id.

    Raises:
        Problem: the store is full, or the database fails.
    """
    try:
        return await asyncio.to_thread(store.add, correction, photo, header)
    except StoreFullError as error:
        event("correction refused", level="error", reason=f"{error} Delete some: 'nameplate feedback delete'.")
        raise Problem("full", "There is no room for more corrections.") from None
    except DatabaseError as error:
        event("correction lost", level="error", reason=str(error))  # the client is not told: it may hold a host name
        raise Problem(
            "not-ready", "Corrections cannot be stored at the moment. Try again later.", RETRY_SECONDS
        ) from None
