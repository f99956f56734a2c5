"""Invented answers on embedded photos, so that reports are tested without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nameplate.demo import photos_folder
from nameplate.evaluate import evaluate
from nameplate.evaluate.evaluator import EvaluationResult, TrainingPhotos
from nameplate.types import Photo

NAMES = tuple(sorted(folder.name for folder in photos_folder("test").iterdir()))


def photos(part: str, each: int) -> list[Photo]:
    """Embedded photos of every nameplate, `each` of each."""
    return [
        Photo(str(path), name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for name in NAMES
        for path in sorted((Path(photos_folder(part)) / name).iterdir())[:each]
    ]


def judged(
    seed: int = 0, skill: float = 3.0, nameplates: Sequence[str] = NAMES, *, taught: bool = True
) -> EvaluationResult:
    """Answers that are right more often than not; embeddings are noise about the class's own direction."""
    random = np.random.default_rng(seed)
    shown, known = photos("test", 6), photos("train", 2) if taught else []
    shown = [photo for photo in shown if photo.label in nameplates]
    y_true = np.array([nameplates.index(str(photo.label)) for photo in shown], np.int64)
    logits = random.normal(size=(len(shown), len(nameplates)))
    logits[np.arange(len(shown)), y_true] += skill
    probs = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    columns = np.array([nameplates.index(str(photo.label)) for photo in known], np.int64)
    groups = np.arange(len(shown))
    return EvaluationResult(
        evaluate(probs, y_true, nameplates, groups),
        tuple(shown),
        probs,
        0,
        (),
        (),
        "onnxruntime",
        tuple(nameplates),
        y_true,
        groups,
        random.normal(size=(len(shown), 8)).astype(np.float32),
        TrainingPhotos(tuple(known), columns, random.normal(size=(len(known), 8)).astype(np.float32)),
    )
