"""Answers as structs, encoded and described by the OpenAPI document; and bodies, for the document alone."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from nameplate.model.verification import Row, VerifiedAdvert
from nameplate.serve.errors import MEDIA_TYPE

REFERENCE = "#/components/schemas/{name}"
"""How a part of the OpenAPI document refers to one of `components`."""

EXAMPLE_TOP = [{"nameplate": "Jeep Liberty SUV 2012", "confidence": 0.966},
               {"nameplate": "Jeep Wrangler SUV 2012", "confidence": 0.030}]  # fmt: skip
EXAMPLE_ROW = {
    "photo": "front.jpg",
    "nameplate": "Jeep Liberty SUV 2012",
    "confidence": 0.966,
    "verdict": "answer",
    "candidates": ["Jeep Liberty SUV 2012"],
    "make": "Jeep",
    "make_confidence": 0.997,
    "top": EXAMPLE_TOP,
}
EXAMPLE_MODEL = {"name": "cars196", "digest": "9f2c…"}


class ModelName(msgspec.Struct, frozen=True):
    """Which bundle has answered."""

    name: str
    digest: str


class Identified(msgspec.Struct, frozen=True):
    """The answer of /v1/identify."""

    model: ModelName
    results: list[Row]


class VerifiedClaim(VerifiedAdvert, frozen=True):
    """The answer of /v1/verify."""

    model: ModelName  # comes first in the JSON: its other fields are for keywords alone


class ServedModel(msgspec.Struct, frozen=True):
    """One bundle that is served."""

    name: str
    digest: str
    default: bool
    nameplates: tuple[str, ...]
    makes: tuple[str, ...]
    embedding: int
    height: int
    width: int
    runtime: str
    tta: str
    ready: bool
    since: str | None


class Models(msgspec.Struct, frozen=True):
    """The answer of /v1/models."""

    models: list[ServedModel]


class Reloaded(msgspec.Struct, frozen=True):
    """The answer to a reload."""

    model: ModelName
    changed: bool


class Bounds(msgspec.Struct, frozen=True):
    """What one request may bring."""

    photos: int
    photo_bytes: int
    body_bytes: int
    pixels: int


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


class ProblemDetails(msgspec.Struct, frozen=True):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | UnsetType = UNSET
    results: list[Row] | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET


def components() -> dict[str, Any]:
    """The JSON schemas of all answers, by name, for the OpenAPI document's `components`."""
    answers = [Identified, VerifiedClaim, Models, Reloaded, About, Live, ReadyModels, Kept, ProblemDetails]
    return msgspec.json.schema_components(answers, ref_template=REFERENCE)[1]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the refusals that it may answer with."""
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
    """For a route's `responses`: what it answers with when all is well."""
    shown = {} if example is None else {"example": example}
    content = {"application/json": {"schema": _schema_of(model), **shown}}
    return {status: {"description": description, "content": content}}


def _schema_of(model: type) -> dict[str, str]:
    return {"$ref": REFERENCE.format(name=model.__name__)}


def photos_body(fields: dict[str, Any] | None = None, *, raw: bool) -> dict[str, Any]:
    """For a route's `openapi_extra`: a form with photos, or where `raw` one photo as the body."""
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    properties = {**(fields or {}), "photos": {"type": "array", "items": file, "minItems": 1}}
    form = {"schema": {"type": "object", "properties": properties, "required": list(properties)}}
    content: dict[str, Any] = {"multipart/form-data": form}
    if raw:
        content |= {kind: {"schema": file} for kind in ("image/jpeg", "image/png", "image/webp", "image/avif")}
    return {"requestBody": {"required": True, "content": content}}


def feedback_body() -> dict[str, Any]:
    """For a route's `openapi_extra`: a form with one photo and what it shows."""
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    name = {"type": "string", "maxLength": 200, "example": "Jeep Wrangler SUV 2012"}
    comment = {"type": "string", "maxLength": 2000}
    texts = {"nameplate": name, "predicted": name, "model": {"type": "string", "example": "cars196"}}
    properties = {"photo": file, **texts, "comment": comment}
    form = {"schema": {"type": "object", "properties": properties, "required": ["photo", "nameplate"]}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}
