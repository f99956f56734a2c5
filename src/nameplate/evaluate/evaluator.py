"""`evaluate_model`: a model held against labelled photos, those that trained it left out."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.data.dataset import Dataset
from nameplate.data.split import SAME, candidate_pairs, groups, likenesses
from nameplate.errors import BundleError, DataError
from nameplate.evaluate.metrics import evaluate
from nameplate.images.phash import SIDE
from nameplate.images.quality import Quality
from nameplate.model.bundle import EXCLUDED, PHOTOS, Bundle
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.measurements import measure_photos
from nameplate.model.model import Model
from nameplate.runtime.select import available_cpus
from nameplate.storage import nfc
from nameplate.types import Evaluation, Floats, Photo

# JOINED `same_picture`: which photos are copies of one picture: the one answer for split, folds and figures.


def same_picture(embedded: DatasetEmbeddings, progress: Progress = lambda *_: None) -> NDArray[np.int64]:
    """The number of each photo's group: copies of one picture, and groups that the data gives.

    Copies are files of the same bytes, photos whose perceptual hashes are near, and those that `audit` would call so:
    alike by hash or embedding, and one picture under the best crop, straight or mirrored.

    Args:
        embedded: the photos, read.
        progress: see `Progress`.

    Returns:
        int64 of shape (N,).
    """
    digests = [str(photo.sha256) for photo in embedded.photos]
    pairs = candidate_pairs(digests, embedded.hashes, embedded.embeddings)
    places, rows = np.unique(pairs, return_inverse=True)  # what has no candidate is not opened
    photos = [embedded.photos[place] for place in places]
    looks = measure_photos(photos, available_cpus(), lambda done, of: progress("look for copies", done, of))
    flat = np.zeros((SIDE, SIDE), np.uint8)  # like nothing: of a photo that vanished meanwhile
    greys = np.stack([flat, *(look.grey if look else flat for look in looks)])
    likeness = likenesses(rows.reshape(-1, 2) + 1, greys, lambda done, of: progress("compare copies", done, of))
    given = [photo.group for photo in embedded.photos]
    return groups(digests, embedded.hashes, given, pairs[likeness >= SAME])


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What `evaluate_model` found."""

    evaluation: Evaluation
    photos: tuple[Photo, ...]
    """The photos judged."""
    probabilities: Floats
    """Of each photo judged, N×C."""
    trained: int
    """Photos left out because they trained this model."""
    strange: tuple[str, ...]
    """Nameplates of the data that the model does not know; their photos are left out."""
    unreadable: tuple[tuple[str, str], ...]
    runtime: str
    nameplates: tuple[str, ...]
    """Of the probabilities' columns."""
    y_true: NDArray[np.int64]
    """The true column of each photo, int64 (N,)."""
    groups: NDArray[np.int64]
    """int64 (N,): photos of one group are copies of one picture, or of one advert."""
    embeddings: Floats
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
    def confidence(self) -> Floats:
        """The probability of it, float32 (N,)."""
        return np.asarray(self.probabilities.max(1), np.float32)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the truth, bool (N,)."""
        return np.asarray(self.named == self.y_true, np.bool_)


@dataclass(frozen=True, slots=True)
class TrainingPhotos:
    """Photos whose nameplate is known, to show beside others."""

    photos: tuple[Photo, ...]
    columns: NDArray[np.int64]
    """int64 (N,)."""
    embeddings: Floats
    """N×D."""


def evaluate_model(
    model: Model, dataset: Dataset, *, include_trained: bool = False, progress: Progress = lambda *_: None
) -> EvaluationResult:
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
    photos, y_true, embeddings = _those(embedded, places, kept)
    by_label, judged = Counter(str(photo.label) for photo in dataset.photos), {str(photo.label) for photo in photos}
    probs = model.probabilities(embeddings, embedded.runtime)
    return EvaluationResult(
        evaluate(probs, y_true, manifest.nameplates, groups[kept]),
        photos,
        probs,
        left,
        strange,
        embedded.unreadable,
        embedded.runtime,
        manifest.nameplates,
        y_true,
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
    embedded: DatasetEmbeddings, places: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[tuple[Photo, ...], NDArray[np.int64], Floats]:
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


# JOINED Wrong answers, each with the training photos that it was near to.


@dataclass(frozen=True, slots=True)
class Mistake:
    """A photo that was named wrongly."""

    photo: str
    """Its path."""
    truth: str
    named: str
    confidence: float
    like_truth: str | None
    """The training photo of the true nameplate nearest to it; None where none is at hand."""
    like_named: str | None
    """The training photo of the nameplate that it was given nearest to it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nameplates that are taken for each other."""

    first: str
    second: str
    first_as_second: int
    """Photos of the first that were named the second."""
    second_as_first: int
    example: Mistake
    """The surest of them."""

    @property
    def photos(self) -> int:
        """Taken one for the other, both ways."""
        return self.first_as_second + self.second_as_first


def surest_mistakes(judged: EvaluationResult, count: int) -> tuple[Mistake, ...]:
    """The most confident wrong answers, at most `count` of them, the surest first."""
    wrong = np.flatnonzero(~judged.right)
    order = wrong[np.argsort(-judged.confidence[wrong], kind="stable")]
    return tuple(_mistake(judged, int(place)) for place in order[:count])


def worst_pairs(judged: EvaluationResult, count: int) -> tuple[Pair, ...]:
    """The pairs of nameplates with the most photos of one named as the other, at most `count` of them."""
    places: dict[tuple[int, int], list[int]] = {}
    y_true, named = judged.y_true.tolist(), judged.named.tolist()
    for place in np.flatnonzero(~judged.right).tolist():
        places.setdefault((min(y_true[place], named[place]), max(y_true[place], named[place])), []).append(place)
    worst = sorted(places.items(), key=lambda found: -len(found[1]))[:count]
    return tuple(_pair(judged, one, two, np.array(found)) for (one, two), found in worst)


def _pair(judged: EvaluationResult, one: int, two: int, places: NDArray[np.int64]) -> Pair:
    there = int((judged.y_true[places] == one).sum())
    surest = places[judged.confidence[places].argmax()]
    names = judged.nameplates
    return Pair(names[one], names[two], there, len(places) - there, _mistake(judged, int(surest)))


def _mistake(judged: EvaluationResult, place: int) -> Mistake:
    truth, named = int(judged.y_true[place]), int(judged.named[place])
    return Mistake(
        judged.photos[place].path,
        judged.nameplates[truth],
        judged.nameplates[named],
        float(judged.confidence[place]),
        _nearest(judged, place, truth),
        _nearest(judged, place, named),
    )


def _nearest(judged: EvaluationResult, place: int, column: int) -> str | None:
    """The training photo of a class whose embedding has the largest cosine with a photo's, but not the photo itself."""
    known = judged.training
    own = judged.photos[place].sha256
    rows = [row for row in np.flatnonzero(known.columns == column) if known.photos[row].sha256 != own]
    if not rows:
        return None
    embeddings = known.embeddings[rows]
    cosines = embeddings @ judged.embeddings[place] / np.maximum(np.linalg.norm(embeddings, axis=1), 1e-12)
    return known.photos[rows[int(cosines.argmax())]].path
