"""`judge`: a model held against labelled photos, those that trained it left out."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.errors import BundleError, DataError
from nameplate.evaluation.metrics import evaluate
from nameplate.evaluation.same import same_picture
from nameplate.models.bundle import PHOTOS, Bundle
from nameplate.models.collection import Embedded, Progress, embed_photos
from nameplate.models.model import Model
from nameplate.photos.quality import Quality
from nameplate.storage import nfc
from nameplate.types import EXCLUDED, Evaluation, Photo


@dataclass(frozen=True, slots=True)
class Judged:
    """What `judge` found."""

    evaluation: Evaluation
    photos: tuple[Photo, ...]
    """The photos judged."""
    probabilities: NDArray[np.float32]
    """Of each photo judged, N×C."""
    trained: int
    """Photos left out because they trained this model."""
    strange: tuple[str, ...]
    """Nameplates of the data that the model does not know; their photos are left out."""
    unreadable: tuple[tuple[str, str], ...]
    runtime: str
    nameplates: tuple[str, ...]
    """Of the probabilities' columns."""
    truths: NDArray[np.int64]
    """The true column of each photo, int64 (N,)."""
    groups: NDArray[np.int64]
    """int64 (N,): photos of one group are copies of one picture, or of one advert."""
    embeddings: NDArray[np.float32]
    """N×D."""
    training: TrainingPhotos
    """Photos of the data that trained this model."""
    unknown: tuple[tuple[str, int], ...] = ()
    """`strange` with the number of their photos."""
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates that no photo judges, though the model knows them and the data has photos of them: how many."""
    excluded: int = 0
    """Photos left out because they were kept from its training by name (`--exclude`): their labels may be wrong."""
    leaked: int = 0
    """Photos left out because they are copies of photos in the data that trained it: they say nothing of it."""
    qualities: tuple[Quality, ...] = ()
    """Size, light and sharpness of each photo judged; empty where that was not measured."""

    @property
    def named(self) -> NDArray[np.int64]:
        """The most probable column of each photo, int64 (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of it, float32 (N,)."""
        return np.asarray(self.probabilities.max(1), np.float32)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the truth, bool (N,)."""
        return np.asarray(self.named == self.truths, np.bool_)


@dataclass(frozen=True, slots=True)
class TrainingPhotos:
    """Photos whose nameplate is known, to show beside others."""

    photos: tuple[Photo, ...]
    columns: NDArray[np.int64]
    """int64 (N,)."""
    embeddings: NDArray[np.float32]
    """N×D."""


def judge(
    model: Model, dataset: Dataset, *, include_trained: bool = False, progress: Progress = lambda *_: None
) -> Judged:
    """Evaluate a model on a data set.

    Args:
        model: what to judge.
        dataset: labelled photos; labels are matched to the model's nameplates, or to its class ids.
        include_trained: judge also the photos that trained it (by SHA-256) and copies of them: then the figures
            flatter; and those that were kept from its training by name.
        progress: see `Progress`.

    Raises:
        DataError: no photo is left to judge; says why.
    """
    model.require_head()
    manifest = model.bundle.manifest
    columns = {nfc(name): i for i, name in enumerate(manifest.ids)}
    columns |= {nfc(name): i for i, name in enumerate(manifest.nameplates)}
    embedded = embed_photos(dataset.photos, model, progress)
    places = np.array([columns.get(nfc(str(photo.label)), -1) for photo in embedded.photos])
    taught = trained_digests(model.bundle)
    trained = np.array([photo.sha256 in taught for photo in embedded.photos])
    spared = excluded_digests(model.bundle)
    excluded = np.array([photo.sha256 in spared for photo in embedded.photos]) & ~trained & (places >= 0)
    groups = same_picture(embedded, progress)
    leaked = np.isin(groups, groups[trained]) & ~trained & ~excluded & (places >= 0)
    kept = (places >= 0) & (~(trained | excluded | leaked) | include_trained)
    left = 0 if include_trained else int(trained.sum())
    strange = tuple(name for name in dataset.nameplates if nfc(name) not in columns)
    if not kept.any():
        raise DataError(
            f"No photo is left to judge: of {len(dataset.photos):,} photos {left:,} trained this model"
            f"{f', {int(leaked.sum()):,} are copies of those' * bool(leaked.any())}"
            f"{f' and {int(excluded.sum()):,} were kept from it by --exclude' * bool(excluded.any())} "
            f"(--include-trained judges them too), {len(embedded.unreadable):,} are unreadable, and "
            f"{len(strange):,} nameplates of the data are unknown to it{_few(strange)}."
        )
    photos, truths, embeddings = _those(embedded, places, kept)
    by_label, judged = Counter(str(photo.label) for photo in dataset.photos), {str(photo.label) for photo in photos}
    chances = model.probabilities(embeddings, embedded.runtime)
    return Judged(
        evaluate(chances, truths, manifest.nameplates, groups[kept]),
        photos,
        chances,
        left,
        strange,
        embedded.unreadable,
        embedded.runtime,
        manifest.nameplates,
        truths,
        groups[kept],
        embeddings,
        TrainingPhotos(*_those(embedded, places, (places >= 0) & trained)),
        tuple((name, by_label[name]) for name in strange),
        tuple((name, by_label[name]) for name in dataset.nameplates if nfc(name) in columns and name not in judged),
        0 if include_trained else int(excluded.sum()),
        0 if include_trained else int(leaked.sum()),
        tuple(quality for quality, there in zip(embedded.qualities, kept, strict=True) if there),
    )


def _those(
    embedded: Embedded, places: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[tuple[Photo, ...], NDArray[np.int64], NDArray[np.float32]]:
    photos = tuple(photo for photo, there in zip(embedded.photos, chosen, strict=True) if there)
    return photos, places[chosen], embedded.embeddings[chosen]


def trained_digests(bundle: Bundle) -> set[str]:
    """SHA-256 of the photos that a bundle was trained on, as it says itself.

    Raises:
        BundleError: its photos.csv is no such table: who trained on what cannot be told, so nothing may be judged.
    """
    if bundle.photos is None:
        return set()
    try:
        rows = csv.DictReader(io.StringIO(bundle.photos.decode()))
        return {row["sha256"] for row in rows if row["split"] == "train"}
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        why = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"The {PHOTOS} of '{bundle.manifest.name}' is damaged: {why}.") from None


def excluded_digests(bundle: Bundle) -> set[str]:
    """SHA-256 of the photos that the user kept from a bundle's training by name, as it says itself."""
    data = bundle.manifest.provenance.get("data")
    named = data.get(EXCLUDED) if isinstance(data, dict) else None
    return {str(each) for each in named} if isinstance(named, list) else set()


def _few(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', …' * (len(names) > 3)})" if names else ""
