"""The forms of answers and bodies, for the OpenAPI document alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nameplate.models.claim import ClaimCode, ClaimVerdict
from nameplate.types import Flaw, Verdict

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


@dataclass
class ModelName:
    """Which bundle has answered."""

    name: str
    digest: str


@dataclass
class Ranked:
    """A nameplate and its calibrated probability."""

    nameplate: str
    confidence: float


@dataclass
class Region:
    """A box in pixels of the upright photo."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass
class HeatMap:
    """What in the photo speaks for the nameplate."""

    nameplate: str
    region: Region | None
    width: int
    height: int
    evidence: list[list[float]]
    png: str


@dataclass
class Row:
    """One photo, as `nameplate identify --json` prints it."""

    photo: str
    nameplate: str | None
    confidence: float | None
    verdict: Verdict
    candidates: list[str]
    make: str | None
    make_confidence: float | None
    top: list[Ranked]
    flaws: list[Flaw] | None = None
    error: str | None = None
    heatmap: HeatMap | None = None


@dataclass
class Identified:
    """The answer of /v1/identify."""

    model: ModelName
    results: list[Row]


@dataclass
class VerifiedRow(Row):
    """One photo of an advert; `score` is null where it was left out."""

    score: float | None = None


@dataclass
class VerifiedClaim:
    """The answer of /v1/verify."""

    model: ModelName
    claimed: str
    nameplates: list[str]
    verdict: ClaimVerdict
    code: ClaimCode
    score: float | None
    accept_above: float | None
    reject_below: float | None
    false_accepts: dict[str, float]
    reason: str
    photos: list[VerifiedRow]


@dataclass
class ServedModel:
    """One bundle that is served."""

    name: str
    digest: str
    default: bool
    nameplates: list[str]
    makes: list[str]
    embedding: int
    height: int
    width: int
    runtime: str
    tta: str
    ready: bool
    since: str | None


@dataclass
class Models:
    """The answer of /v1/models."""

    models: list[ServedModel]


@dataclass
class Reloaded:
    """The answer to a reload."""

    model: ModelName
    changed: bool


@dataclass
class Bounds:
    """What one request may bring."""

    photos: int
    photo_bytes: int
    body_bytes: int
    pixels: int


@dataclass
class About:
    """The answer of /v1/service."""

    version: str
    feedback: bool
    keys: bool
    limits: Bounds


@dataclass
class Live:
    """The answer of /health/live."""

    live: bool


@dataclass
class ReadyModels:
    """The answer of /health/ready."""

    ready: bool
    models: dict[str, bool]


@dataclass
class Kept:
    """The answer of /v1/feedback."""

    id: str


@dataclass
class ProblemDetails:
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    reason: str | None = None
    results: list[Row] | None = None
    retry_after: int | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: the refusals that it may answer with."""
    return {
        status: {
            "description": "Refused; `detail` says why",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in statuses
    }


def answers(model: type, example: object = None) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what it answers with when all is well."""
    content = {} if example is None else {"content": {"application/json": {"example": example}}}
    return {200: {"model": model, "description": "Done", **content}}


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
