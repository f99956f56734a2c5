"""`judge`: a model held against labelled photos, those that trained it left out."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.errors import DataError
from nameplate.evaluation.metrics import evaluate
from nameplate.models.bundle import Bundle
from nameplate.models.collection import Progress, embed_photos
from nameplate.models.model import Model
from nameplate.types import Evaluation, Photo


@dataclass(frozen=True, slots=True)
class Judged:
    """What `judge` found."""

    evaluation: Evaluation
    photos: tuple[Photo, ...]
    """The photos judged."""
    probabilities: NDArray[np.float32]
    """Of each photo judged, N×C."""
    truths: NDArray[np.int64]
    """The true column of each photo, int64 (N,)."""
    trained: int
    """Photos left out because they trained this model."""
    strange: tuple[str, ...]
    """Nameplates of the data that the model does not know; their photos are left out."""
    unreadable: tuple[tuple[str, str], ...]
    runtime: str


def judge(
    model: Model, dataset: Dataset, *, include_trained: bool = False, progress: Progress = lambda *_: None
) -> Judged:
    """Evaluate a model on a data set.

    Args:
        model: what to judge.
        dataset: labelled photos; labels are matched to the model's nameplates, or to its class ids.
        include_trained: judge also the photos that trained it (by SHA-256): then the figures flatter.
        progress: see `Progress`.

    Raises:
        DataError: no photo is left to judge; says why.
    """
    model.require_head()
    manifest = model.bundle.manifest
    columns = {name: i for i, name in enumerate(manifest.ids)} | {n: i for i, n in enumerate(manifest.nameplates)}
    embedded = embed_photos(dataset.photos, model, progress)
    trained = set() if include_trained else trained_digests(model.bundle)
    kept = np.array([p.label in columns and p.sha256 not in trained for p in embedded.photos])
    strange = tuple(name for name in dataset.nameplates if name not in columns)
    known = sum(p.sha256 in trained for p in embedded.photos)
    if not kept.any():
        raise DataError(
            f"No photo is left to judge: of {len(dataset.photos):,} photos {known:,} trained this model "
            f"(--include-trained judges them too), {len(embedded.unreadable):,} are unreadable, and "
            f"{len(strange):,} nameplates of the data are unknown to it{_few(strange)}."
        )
    photos = tuple(photo for photo, there in zip(embedded.photos, kept, strict=True) if there)
    chances = model.probabilities(embedded.embeddings[kept])
    truths = np.array([columns[str(photo.label)] for photo in photos])
    found = evaluate(chances, truths, manifest.nameplates)
    return Judged(found, photos, chances, truths, known, strange, embedded.unreadable, embedded.runtime)


def trained_digests(bundle: Bundle) -> set[str]:
    """SHA-256 of the photos that a bundle was trained on, as it says itself."""
    if bundle.photos is None:
        return set()
    rows = csv.DictReader(io.StringIO(bundle.photos.decode()))
    return {row["sha256"] for row in rows if row["split"] == "train"}


def _few(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', …' * (len(names) > 3)})" if names else ""
