"""`POST /v1/feedback`: a user says what a photo shows."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from nameplate.errors import DatabaseError, PhotoError, UsageError
from nameplate.photos.decode import read_header
from nameplate.serving.body import read_form  # type: ignore[import-not-found,import-untyped,unused-ignore]
from nameplate.serving.feedback.store import Correction, StoreFullError
from nameplate.serving.feedback.text import clean_comment, clean_nameplate, known_spelling
from nameplate.serving.problems import OF_REASON, Problem
from nameplate.types import Prediction

router = APIRouter()
log = logging.getLogger("nameplate.serving")
NOBODY = "anonymous"
"""Who speaks where the service asks for no keys: addresses are never kept."""
PHOTO = "photo"
RETRY_SECONDS = 10.0


@router.post("/v1/feedback", status_code=201)
async def feedback(request: Request) -> Response:
    """Keep a correction: multipart/form-data with one file `photo` and a field `nameplate`, perhaps `predicted`,
    `model` and `comment`.
    """
    service = request.app.state.service
    if service.feedback is None:
        raise Problem("not-found", "This service keeps no corrections; whoever runs it may turn that on: --feedback.")
    form = await read_form(request, service)
    data = _only_photo(form.files)
    served = service.engines.find(form.fields.get("model") or None)
    header = _header(data, service.settings.limits)
    said = _clean(form.fields, served.engine.model.nameplates)
    [answer] = await served.engine.answer([data], [PHOTO])  # decoded whole there, where it can do no harm
    if answer.prediction.error is not None:
        reason, _, detail = answer.prediction.error.partition(": ")
        raise _unreadable(PhotoError(reason, detail))
    client = NOBODY if service.keys is None else request.scope["state"]["client"].name
    correction = _correction(said, client, answer.prediction, served)
    try:
        id_ = await asyncio.to_thread(service.feedback.add, correction, data, header)
    except StoreFullError as error:
        log.error("%s Raise the setting feedback_bytes, or delete some: 'nameplate feedback delete'.", error)
        raise Problem("full", "There is no room for more corrections.") from None
    except DatabaseError as error:
        log.error("%s", error)  # what it says of the database is no business of the client's
        raise Problem("not-ready", "Corrections cannot be kept just now; try again.", RETRY_SECONDS) from None
    return Response(msgspec.json.encode({"id": id_}), 201, media_type="application/json")


def _only_photo(files: Any) -> bytes:
    if [file.field for file in files] != [PHOTO]:
        raise Problem("unprocessable", f"Send one file, in the field '{PHOTO}'; {len(files)} came.")
    return bytes(files[0].data)


def _header(data: bytes, limits: Any) -> Any:
    try:
        return read_header(data, limits)
    except PhotoError as error:
        raise _unreadable(error) from None


def _unreadable(error: PhotoError) -> Problem:
    return Problem(OF_REASON[error.reason], f"{PHOTO}: {error}", extra={"reason": error.reason})


def _clean(fields: dict[str, str], nameplates: tuple[str, ...]) -> dict[str, str]:
    """`nameplate`, `predicted` (may be empty) and `comment`, as they are kept."""
    try:
        return {
            "nameplate": known_spelling(clean_nameplate(fields.get("nameplate", "")), nameplates),
            "predicted": known_spelling(clean_nameplate(predicted, "predicted"), nameplates)
            if (predicted := fields.get("predicted", "").strip())
            else "",
            "comment": clean_comment(fields.get("comment", "")),
        }
    except UsageError as error:
        raise Problem("unprocessable", str(error)) from None


def _correction(said: dict[str, str], client: str, now: Prediction, served: Any) -> Correction:
    """What the client was told counts; confidence and verdict are known where it is what the model says now."""
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
