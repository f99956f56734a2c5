"""Which photos calibrate an int8 backbone, and which judge it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.sources import Dataset
from nameplate.errors import DataError, PhotoError
from nameplate.evaluation.judge import trained_digests
from nameplate.models.bundle import Bundle
from nameplate.models.collection import Progress
from nameplate.models.pipeline import PreparedPhoto, Settings, prepare_photo
from nameplate.photos.decode import read_bytes
from nameplate.photos.parallel import ordered_map
from nameplate.storage import sha256
from nameplate.types import Photo

CALIBRATION = 300
"""Training photos that calibrate, at most, spread over the nameplates: NNCF takes as many by default."""


def training_and_held(
    dataset: Dataset, bundle: Bundle, settings: Settings, progress: Progress
) -> tuple[list[Photo], tuple[Photo, ...], tuple[tuple[str, str], ...]]:
    """Photos that trained the bundle, those that may judge it, and what cannot be read.

    A bundle that does not say what trained it is taken at the data's word: its train part calibrates.
    """
    taught = trained_digests(bundle)
    known = {*bundle.manifest.nameplates, *bundle.manifest.ids}
    train, held, unreadable = [], [], []
    for number, photo in enumerate(dataset.photos, start=1):
        try:
            photo = photo.with_(sha256=sha256(read_bytes(photo.path, settings.limits)))
        except PhotoError as error:
            unreadable.append((photo.path, str(error)))
            continue
        if photo.sha256 in taught or (not taught and photo.split == "train"):
            train.append(photo)
        elif photo.label in known:
            held.append(photo)
        progress("read", number, len(dataset.photos))
    if not train:
        raise DataError(
            "No photo to calibrate on: none of the data trained this model. Give the data that it was trained on, "
            "with the photos that were held out."
        )
    return train, tuple(held), tuple(unreadable)


def calibration_pictures(
    train: Sequence[Photo], bundle: Bundle, settings: Settings
) -> tuple[NDArray[np.uint8], tuple[Photo, ...]]:
    """Prepared photos to calibrate on, uint8 N×H×W×3, and which they are; every nameplate has its share."""
    ordered = sorted(train, key=lambda photo: (str(photo.label), str(photo.sha256)))
    places = np.unique(np.linspace(0, len(ordered) - 1, min(CALIBRATION, len(ordered))).round().astype(int))
    chosen, pictures = [], []
    spread = [ordered[place] for place in places]
    size = bundle.manifest.preprocess
    prepared = ordered_map(lambda photo: prepare_photo(photo.path, size, settings), spread, settings.threads)
    for photo, found in zip(spread, prepared, strict=True):
        if isinstance(found, PreparedPhoto):
            chosen.append(photo)
            pictures.append(found.inputs[0])
    if not pictures:
        raise DataError(f"None of {len(places):,} photos to calibrate on can be read.")
    return np.stack(pictures), tuple(chosen)
