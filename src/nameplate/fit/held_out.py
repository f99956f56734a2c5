"""What a model says of photos that did not train it: its logits and distances (`HeldOutPredictions`).

Folds and ensembles are calibrated, weighted and evaluated on such predictions alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nameplate.data.split import connected
from nameplate.errors import BundleError, DataError, NameplateError
from nameplate.evaluate.calibration import fit_temperatures
from nameplate.model.bundle import PHOTOS, Bundle
from nameplate.model.classifier import probabilities
from nameplate.model.embeddings import Progress, embed_photos, still_readable
from nameplate.model.model import Model
from nameplate.storage import whole_file
from nameplate.types import Floats, Photo

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPredictions:
    """Predictions of N photos by models that these photos did not train."""

    photos: tuple[Photo, ...]
    """With their digests."""
    classes: Ints
    """int64 (N,): the true classes."""
    groups: Ints
    """int64 (N,): photos of one group are copies of one photo, or belong to one advert."""
    logits: Floats
    """float32 N×C."""
    distances: tuple[Floats, Floats] | None = None
    """`MahalanobisDetector.distances`, float32 (N,) each; None where the model has no detector."""
    odds: Floats | None = None
    """`MahalanobisDetector.non_car_log_odds`, float32 (N,); None where the model has no gate."""
    folds: Ints | None = None
    """int64 (N,): the fold of each photo, which its model did not see; None where one model predicts all photos."""
    temperature: float = 1.0
    """What the logits must be divided by to be calibrated; 1 where they already are."""

    @property
    def probabilities(self) -> Floats:
        """Calibrated probabilities, float32 N×C."""
        return probabilities(self.logits, self.temperature)

    @property
    def calibrated(self) -> HeldOutPredictions:
        """The same with logits that are divided by the temperature."""
        return replace(self, logits=self.logits / np.float32(self.temperature), temperature=1.0)

    def rows(self, chosen: Ints) -> HeldOutPredictions:
        """The predictions of some of the photos, by their indices, int64 (M,)."""
        return HeldOutPredictions(
            tuple(self.photos[i] for i in chosen),
            self.classes[chosen],
            self.groups[chosen],
            self.logits[chosen],
            None if self.distances is None else (self.distances[0][chosen], self.distances[1][chosen]),
            None if self.odds is None else self.odds[chosen],
            None if self.folds is None else self.folds[chosen],
            self.temperature,
        )


def predict_held_out(
    model: Model, photos: Sequence[Photo], classes: Ints, groups: Ints, progress: Progress = lambda *_: None
) -> HeldOutPredictions:
    """Predict photos that did not train a model; photos that can no longer be read are left out.

    Args:
        model: has a head.
        photos: at least one.
        classes: int64 (N,): their true classes.
        groups: int64 (N,): see `HeldOutPredictions`.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos can be read.
    """
    embedded = embed_photos(photos, model, progress)
    there = still_readable(photos, embedded)
    detector = model.bundle.ood_detector
    return HeldOutPredictions(
        embedded.photos,
        classes[there],
        groups[there],
        model.logits(embedded.embeddings),
        None if detector is None else detector.distances(embedded.embeddings),
        None if detector is None else detector.non_car_log_odds(embedded.embeddings),
        temperature=model.bundle.manifest.temperature_of(embedded.runtime),
    )


def save_predictions(target: Path, found: HeldOutPredictions, indices: Ints) -> None:
    """Write predictions to a safetensors file.

    Args:
        target: the file.
        found: the predictions.
        indices: int64 (N,): what stands for each photo in the file, its index in a list that the reader has.

    Raises:
        WriteError: the file cannot be written.
    """
    tensors: dict[str, NDArray[Any]] = {"indices": indices, "logits": found.logits}
    tensors["temperature"] = np.array([found.temperature], np.float64)
    if found.distances is not None:
        tensors |= {"near": found.distances[0], "cars": found.distances[1]}
    if found.odds is not None:
        tensors["odds"] = found.odds
    with whole_file(target) as temporary:
        temporary.write_bytes(save_tensors({name: np.ascontiguousarray(each) for name, each in tensors.items()}))


def load_predictions(source: Path, photos: Sequence[Photo], classes: Ints, groups: Ints) -> HeldOutPredictions:
    """Read what `save_predictions` wrote.

    Args:
        source: the file.
        photos: the list that the indices belong to.
        classes: int64: the class of each photo of the list.
        groups: int64: the group of each photo of the list.

    Raises:
        NameplateError: the file is missing or damaged.
    """
    try:
        tensors = load_tensors(source.read_bytes())
        indices = tensors["indices"]
        return HeldOutPredictions(
            tuple(photos[i] for i in indices),
            classes[indices],
            groups[indices],
            tensors["logits"],
            (tensors["near"], tensors["cars"]) if "near" in tensors else None,
            tensors.get("odds"),
            temperature=float(tensors["temperature"][0]),
        )
    except (OSError, SafetensorError, KeyError, IndexError, ValueError) as error:
        raise NameplateError(f"Cannot read '{source}': {error}. Delete it, and resume the run.") from None


def cross_calibrated(folds: Sequence[HeldOutPredictions]) -> list[HeldOutPredictions]:
    """The predictions of folds, each with a temperature that was fitted on the other folds.

    A temperature that is fitted on the photos that it is judged on makes their log-loss slightly too good. Where the
    others show too few mistakes to fit one, or there are none, a fold keeps its own.
    """
    if len(folds) == 1:
        return list(folds)
    found = []
    for number, fold in enumerate(folds):
        others = [each for place, each in enumerate(folds) if place != number]
        logits = np.concatenate([each.logits for each in others])
        classes = np.concatenate([each.classes for each in others])
        temperature = fit_temperatures({"": (logits, classes)}).get("", fold.temperature)
        found.append(replace(fold, temperature=temperature))
    return found


def joined(folds: Sequence[HeldOutPredictions]) -> HeldOutPredictions:
    """The calibrated predictions of all folds, one after the other."""
    distances = [each.distances for each in folds if each.distances is not None]
    odds = [each.odds for each in folds if each.odds is not None]
    return HeldOutPredictions(
        tuple(photo for each in folds for photo in each.photos),
        np.concatenate([each.classes for each in folds]),
        np.concatenate([each.groups for each in folds]),
        np.concatenate([each.calibrated.logits for each in folds]),
        (np.concatenate([near for near, _ in distances]), np.concatenate([cars for _, cars in distances]))
        if len(distances) == len(folds)
        else None,
        np.concatenate(odds) if len(odds) == len(folds) else None,
        np.repeat(np.arange(1, len(folds) + 1), [len(each.classes) for each in folds]),
    )


# The photos that a bundle records in its photos.csv.


def recorded_photos(bundle: Bundle) -> tuple[Photo, ...]:
    """The photos of a bundle with split, group and digest; empty where it records none.

    Raises:
        BundleError: its photos.csv is damaged.
    """
    if bundle.photos is None:
        return ()
    try:
        rows = csv.DictReader(io.StringIO(bundle.photos.decode()))
        return tuple(
            Photo(
                row["path"],
                row["label"],
                row["split"] or None,  # type: ignore[arg-type]
                row["source"],
                row["group"],
                row["sha256"],
                int(row["width"] or 0),
                int(row["height"] or 0),
            )
            for row in rows
        )
    except (UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise BundleError(f"The {PHOTOS} of '{bundle.manifest.name}' is damaged: {error!r}.") from None


def held_out_photos(bundle: Bundle) -> tuple[Photo, ...]:
    """The photos of a bundle that did not train it and are no copies of photos that did."""
    photos = recorded_photos(bundle)
    trained = {photo.group for photo in photos if photo.split == "train"}
    known = set(bundle.manifest.nameplates)
    return tuple(
        photo for photo in photos if photo.split != "train" and photo.group not in trained and photo.label in known
    )


def merged_photos(bundles: Sequence[Bundle]) -> tuple[tuple[Photo, ...], Ints]:
    """The photos of several bundles, each once: a training photo where it trained any of them.

    Returns:
        The photos, and the number of each one's group, int64 (N,): groups that share a photo are one.
    """
    found: dict[str, Photo] = {}
    place: dict[str, int] = {}
    first: dict[tuple[int, str | None], int] = {}
    pairs = [np.zeros((0, 2), np.int64)]
    for number, bundle in enumerate(bundles):
        for photo in recorded_photos(bundle):
            digest = f"{photo.sha256} {photo.label}"
            known = found.setdefault(digest, photo)
            if photo.split == "train" and known.split != "train":
                found[digest] = replace(known, split="train")
            here = place.setdefault(digest, len(place))
            pairs.append(np.array([[first.setdefault((number, photo.group), here), here]]))
    if not found:
        return (), np.zeros(0, np.int64)
    return tuple(found.values()), connected(np.concatenate(pairs), len(found))


def aligned(members: Sequence[HeldOutPredictions]) -> list[HeldOutPredictions]:
    """The predictions of the photos that all members have, in the same order for each.

    Raises:
        DataError: a photo has different classes in two members.
    """
    places = [{str(photo.sha256): row for row, photo in enumerate(each.photos)} for each in members]
    common = [digest for digest in places[0] if all(digest in each for each in places)]
    found = [
        each.rows(np.array([place[digest] for digest in common], np.int64))
        for each, place in zip(members, places, strict=True)
    ]
    for each in found[1:]:
        differ = np.flatnonzero(each.classes != found[0].classes)
        if len(differ):
            raise DataError(f"'{found[0].photos[differ[0]].path}' has different labels in two of the members.")
    return found
