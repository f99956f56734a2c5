"""Answers as JSON shows them: on the command line, in tables and over HTTP alike."""

from __future__ import annotations

from nameplate.models.claim import Verified
from nameplate.types import Prediction


def prediction_json(prediction: Prediction) -> dict[str, object]:
    """A prediction as JSON shows it everywhere: every field of a prediction, `flaws` and `error` only where there
    are any.
    """
    shown: dict[str, object] = {
        "photo": prediction.photo,
        "nameplate": prediction.nameplate,
        "confidence": prediction.confidence,
        "verdict": prediction.verdict,
        "candidates": prediction.candidates,
        "make": prediction.make,
        "make_confidence": prediction.make_confidence,
        "top": [{"nameplate": name, "confidence": chance} for name, chance in prediction.top],
    }
    if prediction.flaws:
        shown["flaws"] = prediction.flaws
    return shown if prediction.error is None else {**shown, "error": prediction.error}


def verified_json(found: Verified) -> dict[str, object]:
    """A verified claim as JSON shows it everywhere: claim, verdict, and each photo's prediction and score."""
    return {
        "claimed": found.claimed,
        "nameplates": found.nameplates,
        "verdict": found.verdict,
        "code": found.code,
        "score": found.score,
        "accept_above": found.accept_above,
        "reject_below": found.reject_below,
        "false_accepts": found.false_accepts,
        "reason": found.reason,
        "photos": [{**prediction_json(prediction), "score": score} for prediction, score in found.photos],
    }
