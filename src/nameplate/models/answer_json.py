"""Answers as JSON shows them: on the command line, in tables and over HTTP alike.

The structs are both what is encoded and what the service's OpenAPI document describes. A field that is `UNSET` is left
out of the JSON; the fields stand in the JSON's order.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from nameplate.models.claim import ClaimCode, ClaimVerdict, Verified
from nameplate.types import Flaw, Prediction, Verdict


class Ranked(msgspec.Struct, frozen=True):
    """A nameplate and its calibrated probability."""

    nameplate: str
    confidence: float


class Region(msgspec.Struct, frozen=True):
    """A box in pixels of the upright photo."""

    left: int
    top: int
    right: int
    bottom: int


class HeatMap(msgspec.Struct, frozen=True):
    """What in the photo speaks for the nameplate."""

    nameplate: str
    region: Region | None
    width: int
    height: int
    evidence: list[list[float]]
    png: bytes


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One photo, as `nameplate identify --json` prints it."""

    photo: str
    nameplate: str | None
    confidence: float | None
    verdict: Verdict
    candidates: tuple[str, ...]
    make: str | None
    make_confidence: float | None
    top: tuple[Ranked, ...]
    flaws: tuple[Flaw, ...] | UnsetType = UNSET
    error: str | UnsetType = UNSET
    heatmap: HeatMap | UnsetType | None = UNSET


class VerifiedRow(Row, frozen=True, kw_only=True):
    """One photo of an advert; `score` is null where it was left out."""

    score: float | None


class VerifiedAdvert(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that was verified, as `nameplate verify --json` prints it."""

    claimed: str
    nameplates: tuple[str, ...]
    verdict: ClaimVerdict
    code: ClaimCode
    score: float | None
    accept_above: float | None
    reject_below: float | None
    false_accepts: dict[str, float]
    reason: str
    photos: tuple[VerifiedRow, ...]


def prediction_json(prediction: Prediction, heatmap: HeatMap | UnsetType | None = UNSET) -> Row:
    """A prediction as JSON shows it everywhere; with a `heatmap`, which may be null, only where one was asked for."""
    return Row(
        photo=prediction.photo,
        nameplate=prediction.nameplate,
        confidence=prediction.confidence,
        verdict=prediction.verdict,
        candidates=prediction.candidates,
        make=prediction.make,
        make_confidence=prediction.make_confidence,
        top=tuple(Ranked(name, chance) for name, chance in prediction.top),
        flaws=prediction.flaws or UNSET,
        error=prediction.error or UNSET,
        heatmap=heatmap,
    )


def verified_json(found: Verified) -> VerifiedAdvert:
    """A verified claim as JSON shows it everywhere: claim, verdict, and each photo's prediction and score."""
    return VerifiedAdvert(
        claimed=found.claimed,
        nameplates=found.nameplates,
        verdict=found.verdict,
        code=found.code,
        score=found.score,
        accept_above=found.accept_above,
        reject_below=found.reject_below,
        false_accepts=found.false_accepts,
        reason=found.reason,
        photos=tuple(_scored(prediction, score) for prediction, score in found.photos),
    )


def _scored(prediction: Prediction, score: float | None) -> VerifiedRow:
    return VerifiedRow(**msgspec.structs.asdict(prediction_json(prediction)), score=score)
