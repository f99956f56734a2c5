"""`examples`: some photos of a data set and pictures made of them, to look at before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import PhotoError
from nameplate.photos import decode
from nameplate.photos.augment import augment
from nameplate.photos.augmentation import Augmentation
from nameplate.types import Photo


def augmented_rows(
    photos: Sequence[NDArray[np.uint8]], height: int, width: int, settings: Augmentation, seed: int, count: int
) -> list[list[NDArray[np.uint8]]]:
    """Rows to look at (`reports.sheet`): each photo as it is, then `count` pictures made of it.

    Args:
        photos: uint8 H×W×3 each; the next one serves as a photo's scenery.
        height: of the pictures.
        width: of the pictures.
        settings: the amounts.
        seed: the same seed draws the same pictures.
        count: pictures a row.
    """
    others = [*photos[1:], photos[0]] if len(photos) > 1 else [None] * len(photos)
    draws = [np.random.default_rng([seed, row]) for row in range(len(photos))]
    return [
        [photo, *(augment(photo, height, width, settings, draw, other) for _ in range(count))]
        for photo, other, draw in zip(photos, others, draws, strict=True)
    ]


def examples(
    photos: Sequence[Photo], count: int, at_least: tuple[int, int]
) -> tuple[list[tuple[Photo, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Decode up to `count` photos of different nameplates, spread evenly over those that there are.

    Args:
        photos: labelled; those of a validation or test part are passed over.
        count: nameplates wanted.
        at_least: see `photos.decode`.

    Returns:
        The photos with their pixels, uint8 H×W×3, and (path, reason) of those that could not be read; the
        nameplate's next photo takes the place of such a one.
    """
    of: dict[str | None, list[Photo]] = {}
    for photo in photos:
        if photo.split in (None, "train"):
            of.setdefault(photo.label, []).append(photo)
    spread = np.linspace(0, len(of) - 1, min(count, len(of))).round().astype(int)
    found: list[tuple[Photo, NDArray[np.uint8]]] = []
    unreadable: list[tuple[str, str]] = []
    for nameplate in [list(of)[place] for place in spread]:
        for photo in of[nameplate]:
            try:
                found.append((photo, decode(photo.path, at_least=at_least)))
                break
            except PhotoError as error:
                unreadable.append((photo.path, str(error)))
    return found, unreadable
