"""Answers as structs, from which the JSON and the OpenAPI document are made; and the bodies of requests for the latter.

The structs' fields are the JSON's keys, so they may not be renamed.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from nameplate.model.verification import Row, VerifiedAdvert
from nameplate.serve.errors import MEDIA_TYPE

REFERENCE = "#/components/schemas/{name}"
"""The reference to one of the OpenAPI document's `components`."""

# What the bundle that ships answers for the page's third example, with ?top=2; a test compares it.
EXAMPLE_TOP = [{"nameplate": "GMC Savana Van 2012", "confidence": 0.748},
               {"nameplate": "Chevrolet Express Van 2007", "confidence": 0.059}]  # fmt: skip
EXAMPLE_ROW = {
    "photo": "example-3.jpg",
    "nameplate": "GMC Savana Van 2012",
    "confidence": 0.748,
    "verdict": "answer",
    "candidates": ["GMC Savana Van 2012"],
    "make": "GMC",
    "make_confidence": 0.749,
    "model": "Savana",
    "model_confidence": 0.748,
    "body": "Van",
    "years": "2012",
    "top": EXAMPLE_TOP,
    "box": {"left": 47, "top": 49, "right": 251, "bottom": 198},
}
EXAMPLE_MODEL = {"name": "cars196", "digest": "276c…"}
EXAMPLE_JOB = {
    "id": "5f0c1f6c0a7b4e0f9b3a6a2d8f1e4c7b",
    "state": "done",
    "model": EXAMPLE_MODEL,
    "photos": 1200,
    "done": 1200,
    "unreadable": 3,
    "created": "2026-11-28T12:00:00.000+00:00",
    "finished": "2026-11-28T12:00:21.512+00:00",
    "expires": "2026-11-29T12:00:21.512+00:00",
    "results": "/v1/jobs/5f0c1f6c0a7b4e0f9b3a6a2d8f1e4c7b/results",
    "error": None,
}


class ModelName(msgspec.Struct, frozen=True):
    """The bundle that has answered."""

    name: str
    digest: str


class Identified(msgspec.Struct, frozen=True):
    """The answer of /v1/identify."""

    model: ModelName
    results: list[Row]


class VerifiedClaim(VerifiedAdvert, frozen=True):
    """The answer of /v1/verify."""

    model: ModelName  # first in the JSON, although declared last: the inherited fields are keyword-only


class ServedModel(msgspec.Struct, frozen=True):
    """One bundle that is served."""

    name: str
    digest: str
    default: bool
    """Whether it answers this client's requests that name no model."""
    nameplates: tuple[str, ...]
    makes: tuple[str, ...]
    embedding: int
    height: int
    width: int
    runtime: str
    threads: int
    tta: str
    locates: bool
    ready: bool
    since: str | None


class Models(msgspec.Struct, frozen=True):
    """The answer of /v1/models."""

    models: list[ServedModel]


class ServedAliases(msgspec.Struct, frozen=True):
    """The answer of /v1/aliases."""

    aliases: dict[str, dict[str, float]]
    """Alias → model → weight."""
    kept: bool


class NewWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change of an alias."""

    weights: dict[str, float]


class Reloaded(msgspec.Struct, frozen=True):
    """The answer to a reload."""

    model: ModelName
    changed: bool


class Bounds(msgspec.Struct, frozen=True):
    """Limits on one request."""

    photos: int
    photo_bytes: int
    body_bytes: int
    pixels: int
    """Of a JPEG; of the others see `pixels_of`."""
    pixels_of: dict[str, int]
    """Format → the pixels up to which its photos are read."""


class About(msgspec.Struct, frozen=True):
    """The answer of /v1/service."""

    version: str
    feedback: bool
    keys: bool
    limits: Bounds


class Live(msgspec.Struct, frozen=True):
    """The answer of /health/live."""

    live: bool


class ReadyModels(msgspec.Struct, frozen=True):
    """The answer of /health/ready."""

    ready: bool
    models: dict[str, bool]


class Kept(msgspec.Struct, frozen=True):
    """The answer of /v1/feedback."""

    id: str


class JobState(msgspec.Struct, frozen=True):
    """How far a job is."""

    id: str
    state: str
    """`queued`, `running`, `done` or `failed`."""
    model: ModelName
    photos: int
    done: int
    """How many photos are answered, unreadable ones too."""
    unreadable: int
    created: str | None
    """UTC, ISO 8601, as all times."""
    finished: str | None
    expires: str | None
    """Until when it is kept."""
    results: str | None
    """The address of its results; null until it has ended."""
    error: str | None
    """Why it has failed."""


class Jobs(msgspec.Struct, frozen=True):
    """The answer of /v1/jobs."""

    jobs: list[JobState]
    """The client's own, the newest first."""


class ProblemDetails(msgspec.Struct, frozen=True):
    """A refusal, in the form of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | UnsetType = UNSET
    results: list[Row] | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET


def components() -> dict[str, Any]:
    """The JSON schemas of all answers, by name, for the OpenAPI document's `components`."""
    answers = [Identified, VerifiedClaim, Models, Reloaded, About, Live, ReadyModels, Kept, JobState, ProblemDetails]
    return msgspec.json.schema_components([*answers, Jobs, ServedAliases, NewWeights], ref_template=REFERENCE)[1]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals that a route may answer with, for its `responses`."""
    return {
        status: {
            "description": "Refused; `detail` says why",
            "content": {MEDIA_TYPE: {"schema": _schema_of(ProblemDetails)}},
        }
        for status in statuses
    }


def answers(
    model: type, example: object = None, *, status: int = 200, description: str = "Done"
) -> dict[int | str, dict[str, Any]]:
    """Describe a route's answer, for its `responses`.

    Args:
        model: the answer's struct, one of `components`.
        example: an example of the JSON, if any.
        status: the HTTP status.
        description: what the status means.
    """
    shown = {} if example is None else {"example": example}
    content = {"application/json": {"schema": _schema_of(model), **shown}}
    return {status: {"description": description, "content": content}}


def _schema_of(model: type) -> dict[str, str]:
    return {"$ref": REFERENCE.format(name=model.__name__)}


def photos_body(fields: dict[str, Any] | None = None, *, raw: bool) -> dict[str, Any]:
    """Describe a request's body, for a route's `openapi_extra`: a form with photos or, if `raw`, also a bare photo.

    Args:
        fields: JSON schemas of the form's required text fields.
        raw: whether the body may also be one photo.
    """
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    properties = {**(fields or {}), "photos": {"type": "array", "items": file, "minItems": 1}}
    form = {"schema": {"type": "object", "properties": properties, "required": list(properties)}}
    content: dict[str, Any] = {"multipart/form-data": form}
    if raw:
        content |= {kind: {"schema": file} for kind in ("image/jpeg", "image/png", "image/webp", "image/avif")}
    return {"requestBody": {"required": True, "content": content}}


def weights_body(example: object) -> dict[str, Any]:
    """Describe the body of a change of an alias, for a route's `openapi_extra`."""
    content = {"schema": _schema_of(NewWeights), "example": {"weights": example}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def job_body() -> dict[str, Any]:
    """Describe the body of a job, for a route's `openapi_extra`: a zip, or a form with one or with photos."""
    body = photos_body(raw=False)
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    body["requestBody"]["content"]["application/zip"] = {"schema": file}
    return body


def json_lines(example: object) -> dict[int | str, dict[str, Any]]:
    """Describe an answer in JSON Lines of `Row`, for a route's `responses`."""
    line = msgspec.json.encode(example).decode()
    content = {"application/jsonl": {"schema": {"type": "string"}, "example": line}}
    return {200: {"description": "A row for each photo, as in `results` of /v1/identify", "content": content}}


def feedback_body() -> dict[str, Any]:
    """Describe the body of a correction, for a route's `openapi_extra`: a form with one photo and what it shows."""
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    name = {"type": "string", "maxLength": 200, "example": "Jeep Wrangler SUV 2012"}
    comment = {"type": "string", "maxLength": 2000}
    texts = {"nameplate": name, "predicted": name, "model": {"type": "string", "example": "cars196"}}
    properties = {"photo": file, **texts, "comment": comment}
    form = {"schema": {"type": "object", "properties": properties, "required": ["photo", "nameplate"]}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}
