"""Evaluate a model on labelled photos (`evaluate_model`), without the photos that trained it and copies of them.

`same_picture` finds the copies. `surest_mistakes` and `worst_pairs` select the wrong answers that a report shows.
"""

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


def same_picture(embedded: DatasetEmbeddings, progress: Progress = lambda *_: None) -> NDArray[np.int64]:
    """Number the groups of photos that must count as one: copies of one photo, and the groups of the data set.

    The split, the folds of cross-validation and the intervals of the evaluation all use this one definition. Copies
    are files of the same bytes, photos of similar perceptual hashes, and those that `audit` finds: photos that are
    similar by hash or embedding and correlate after the best crop, plain or mirrored.

    Args:
        embedded: The readable photos.
        progress: See `Progress`.

    Returns:
        The group of each photo, int64 (N,).
    """
    digests = [str(photo.sha256) for photo in embedded.photos]
    pairs = candidate_pairs(digests, embedded.hashes, embedded.embeddings)
    indices, rows = np.unique(pairs, return_inverse=True)  # only photos of candidate pairs are opened
    photos = [embedded.photos[i] for i in indices]
    measured = measure_photos(photos, available_cpus(), lambda done, of: progress("look for copies", done, of))
    flat = np.zeros((SIDE, SIDE), np.uint8)  # correlates with nothing; stands for a photo that vanished meanwhile
    greys = np.stack([flat, *(each.grey if each else flat for each in measured)])
    # Row 0 is the flat one, so that the stack is never empty; hence the + 1.
    likeness = likenesses(rows.reshape(-1, 2) + 1, greys, lambda done, of: progress("compare copies", done, of))
    given = [photo.group for photo in embedded.photos]
    return groups(digests, embedded.hashes, given, pairs[likeness >= SAME])


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The probabilities of each evaluated photo, the metrics, and what was left out."""

    evaluation: Evaluation
    photos: tuple[Photo, ...]
    """The N evaluated photos."""
    probabilities: Floats
    """float32 N×C."""
    trained: int
    """The number of photos left out because they trained this model."""
    unknown_nameplates: tuple[str, ...]
    """Nameplates of the data that the model does not know; their photos are left out."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that cannot be read."""
    runtime: str
    nameplates: tuple[str, ...]
    """The C nameplates, in the order of the columns."""
    y_true: NDArray[np.int64]
    """The true column of each photo, int64 (N,)."""
    groups: NDArray[np.int64]
    """int64 (N,); photos of one group are copies of one photo, or belong to one advert."""
    embeddings: Floats
    """float32 N×D."""
    training: TrainingPhotos
    """Photos of the data that trained this model; they are shown beside mistakes."""
    unknown: tuple[tuple[str, int], ...] = ()
    """`unknown_nameplates`, each with its number of photos."""
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates that the model knows but of which no photo was evaluated, each with its number of photos."""
    excluded: int = 0
    """The number of photos left out because `--exclude` kept them out of training: their labels may be wrong."""
    leaked: int = 0
    """The number of photos left out because they are copies of training photos in the data: they would flatter."""
    qualities: tuple[Quality, ...] = ()
    """Size, light and sharpness of each evaluated photo; empty where that was not measured."""

    def _repr_html_(self) -> str:
        return self.evaluation._repr_html_()

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """The most probable column of each photo, int64 (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def confidence(self) -> Floats:
        """The probability of `y_pred`, float32 (N,)."""
        return np.asarray(self.probabilities.max(1), np.float32)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether `y_pred` is the true column, bool (N,)."""
        return np.asarray(self.y_pred == self.y_true, np.bool_)


@dataclass(frozen=True, slots=True)
class TrainingPhotos:
    """Training photos, to show beside mistakes."""

    photos: tuple[Photo, ...]
    columns: NDArray[np.int64]
    """Their true columns, int64 (N,)."""
    embeddings: Floats
    """float32 N×D."""


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which of the N readable photos of a data set are evaluated, and which are left out and why."""

    columns: NDArray[np.int64]
    """The true column of each photo, int64 (N,); -1 where the model does not know the label."""
    groups: NDArray[np.int64]
    """int64 (N,); photos of one group are copies of one photo, or belong to one advert."""
    trained: NDArray[np.bool_]
    """The photo trained the model."""
    excluded: NDArray[np.bool_]
    """The photo was kept out of training by `--exclude`."""
    leaked: NDArray[np.bool_]
    """The photo is a copy of one that trained the model."""
    kept: NDArray[np.bool_]
    """The photo is evaluated."""


def evaluate_model(
    model: Model, dataset: Dataset, *, include_trained: bool = False, progress: Progress = lambda *_: None
) -> EvaluationResult:
    """Evaluate a model on a data set.

    Args:
        model: The model to evaluate.
        dataset: Labelled photos. A label matches one of the model's nameplates or class ids.
        include_trained: Evaluate also the photos that trained the model (found by SHA-256), copies of them, and the
            photos that were kept out of its training by name. The figures are then too good.
        progress: See `Progress`.

    Raises:
        DataError: No photo is left to evaluate; the text says why.
    """
    model.require_head()
    manifest = model.bundle.manifest
    columns = _label_columns(model.bundle)
    embedded = embed_photos(dataset.photos, model, progress)
    chosen = _select(model.bundle, embedded, columns, progress, include_trained=include_trained)
    unknown = tuple(name for name in dataset.nameplates if nfc(name) not in columns)
    if not chosen.kept.any():
        raise DataError(_nothing_left(dataset, embedded, chosen, unknown, include_trained=include_trained))
    photos, y_true, embeddings = _those(embedded, chosen.columns, chosen.kept)
    probs = model.probabilities(embeddings, embedded.runtime)
    # A training photo may have a label that the model does not know, where the data were relabelled since.
    known_and_trained = (chosen.columns >= 0) & chosen.trained
    counts, evaluated = Counter(str(photo.label) for photo in dataset.photos), {str(photo.label) for photo in photos}
    known = [name for name in dataset.nameplates if nfc(name) in columns]
    return EvaluationResult(
        evaluation=evaluate(probs, y_true, manifest.nameplates, chosen.groups[chosen.kept]),
        photos=photos,
        probabilities=probs,
        trained=0 if include_trained else int(chosen.trained.sum()),
        unknown_nameplates=unknown,
        unreadable=embedded.unreadable,
        runtime=embedded.runtime,
        nameplates=manifest.nameplates,
        y_true=y_true,
        groups=chosen.groups[chosen.kept],
        embeddings=embeddings,
        training=TrainingPhotos(*_those(embedded, chosen.columns, known_and_trained)),
        unknown=tuple((name, counts[name]) for name in unknown),
        lost=tuple((name, counts[name]) for name in known if name not in evaluated),
        excluded=0 if include_trained else int(chosen.excluded.sum()),
        leaked=0 if include_trained else int(chosen.leaked.sum()),
        qualities=tuple(quality for quality, kept in zip(embedded.qualities, chosen.kept, strict=True) if kept),
    )


def _label_columns(bundle: Bundle) -> dict[str, int]:
    """The column of each label that the model knows: its class ids and its nameplates, in Unicode's form NFC."""
    columns = {nfc(name): i for i, name in enumerate(bundle.manifest.ids)}
    return columns | {nfc(name): i for i, name in enumerate(bundle.manifest.nameplates)}


def _select(
    bundle: Bundle, embedded: DatasetEmbeddings, columns: dict[str, int], progress: Progress, *, include_trained: bool
) -> _Selection:
    indices = np.array([columns.get(nfc(str(photo.label)), -1) for photo in embedded.photos])
    trained_sha256, excluded_sha256 = trained_digests(bundle), excluded_digests(bundle)
    trained = np.array([photo.sha256 in trained_sha256 for photo in embedded.photos])
    # Each photo has one reason to be left out, so that the counts of the report add up.
    excluded = np.array([photo.sha256 in excluded_sha256 for photo in embedded.photos]) & ~trained & (indices >= 0)
    groups = same_picture(embedded, progress)
    leaked = np.isin(groups, groups[trained]) & ~trained & ~excluded & (indices >= 0)
    kept = (indices >= 0) & (~(trained | excluded | leaked) | include_trained)
    return _Selection(indices, groups, trained, excluded, leaked, kept)


def _nothing_left(
    dataset: Dataset,
    embedded: DatasetEmbeddings,
    chosen: _Selection,
    unknown: tuple[str, ...],
    *,
    include_trained: bool,
) -> str:
    """The error text that says why no photo can be evaluated."""
    trained = 0 if include_trained else int(chosen.trained.sum())
    leaked, excluded = int(chosen.leaked.sum()), int(chosen.excluded.sum())
    return (
        f"No photo is left to judge: of {len(dataset.photos):,} photos {trained:,} trained this model"
        f"{f', {leaked:,} are copies of those' * bool(leaked)}"
        f"{f' and {excluded:,} were kept from it by --exclude' * bool(excluded)} "
        f"(--include-trained judges them too), {len(embedded.unreadable):,} are unreadable, and "
        f"{len(unknown):,} nameplates of the data are unknown to it{_few(unknown)}."
    )


def _those(
    embedded: DatasetEmbeddings, indices: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> tuple[tuple[Photo, ...], NDArray[np.int64], Floats]:
    photos = tuple(photo for photo, there in zip(embedded.photos, chosen, strict=True) if there)
    return photos, indices[chosen], embedded.embeddings[chosen]


def trained_digests(bundle: Bundle) -> set[str]:
    """SHA-256 of the photos that trained a bundle, read from its photos.csv; empty where it has none.

    Raises:
        BundleError: The photos.csv is damaged. Training photos cannot be told from others then, so nothing may be
            evaluated.
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
    """SHA-256 of the photos that `--exclude` kept out of a bundle's training, read from its provenance."""
    data = bundle.manifest.provenance.get("data")
    named = data.get(EXCLUDED) if isinstance(data, dict) else None
    return {str(each) for each in named} if isinstance(named, list) else set()


def _few(names: tuple[str, ...]) -> str:
    return f" ({', '.join(names[:3])}{', …' * (len(names) > 3)})" if names else ""


# Wrong answers, each with the nearest training photos.


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer."""

    photo: str
    """The photo's path."""
    truth: str
    named: str
    confidence: float
    like_truth: str | None
    """The nearest training photo of the true nameplate; None where the data has none."""
    like_named: str | None
    """The nearest training photo of the predicted nameplate; None where the data has none."""


@dataclass(frozen=True, slots=True)
class MutualConfusion:
    """Two nameplates that are confused, in both directions."""

    first: str
    second: str
    first_as_second: int
    """Photos of the first nameplate that were named as the second."""
    second_as_first: int
    example: Mistake
    """The most confident of these mistakes."""

    @property
    def photos(self) -> int:
        """The number of confused photos, in both directions."""
        return self.first_as_second + self.second_as_first


def surest_mistakes(result: EvaluationResult, count: int) -> tuple[Mistake, ...]:
    """The `count` most confident wrong answers, or fewer, in descending order of confidence."""
    wrong = np.flatnonzero(~result.right)
    order = wrong[np.argsort(-result.confidence[wrong], kind="stable")]
    return tuple(_mistake(result, int(i)) for i in order[:count])


def worst_pairs(result: EvaluationResult, count: int) -> tuple[MutualConfusion, ...]:
    """The `count` pairs of nameplates with the most confusions, or fewer."""
    by_pair: dict[tuple[int, int], list[int]] = {}
    y_true, named = result.y_true.tolist(), result.y_pred.tolist()
    for i in np.flatnonzero(~result.right).tolist():
        by_pair.setdefault((min(y_true[i], named[i]), max(y_true[i], named[i])), []).append(i)
    worst = sorted(by_pair.items(), key=lambda found: -len(found[1]))[:count]
    return tuple(_pair(result, one, two, np.array(found)) for (one, two), found in worst)


def _pair(result: EvaluationResult, one: int, two: int, indices: NDArray[np.int64]) -> MutualConfusion:
    there = int((result.y_true[indices] == one).sum())
    surest = indices[result.confidence[indices].argmax()]
    names = result.nameplates
    return MutualConfusion(names[one], names[two], there, len(indices) - there, _mistake(result, int(surest)))


def _mistake(result: EvaluationResult, index: int) -> Mistake:
    truth, named = int(result.y_true[index]), int(result.y_pred[index])
    return Mistake(
        result.photos[index].path,
        result.nameplates[truth],
        result.nameplates[named],
        float(result.confidence[index]),
        _nearest(result, index, truth),
        _nearest(result, index, named),
    )


def _nearest(result: EvaluationResult, index: int, column: int) -> str | None:
    """The training photo of a class with the largest cosine to a photo's embedding; the photo itself is left out."""
    known = result.training
    own = result.photos[index].sha256
    rows = [row for row in np.flatnonzero(known.columns == column) if known.photos[row].sha256 != own]
    if not rows:
        return None
    embeddings = known.embeddings[rows]
    cosines = embeddings @ result.embeddings[index] / np.maximum(np.linalg.norm(embeddings, axis=1), 1e-12)
    return known.photos[rows[int(cosines.argmax())]].path
