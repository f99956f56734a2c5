"""Measurements of single photos, such as brightness and sharpness, through a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images.decode import decode_with_header, read_bytes, read_header
from nameplate.images.formats import MAGIC
from nameplate.images.parallel import ordered_map
from nameplate.images.phash import SIDE
from nameplate.images.transforms import scaled_luma, sharpness
from nameplate.model.cache import ArrayCache
from nameplate.storage import sha256
from nameplate.types import Photo

FORMATS = tuple(dict.fromkeys(name for _, _, name in MAGIC))
DECODED = (128, 128)
"""Size that decoding is asked for. It returns at least twice as much, if the photo is that large."""
SHAPES = {"numbers": (5,), "grey": (SIDE, SIDE)}


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of one photo."""

    format: str
    bytes: int
    """Size of the file."""
    orientation: int
    """EXIF orientation, 1–8; 1 is upright."""
    brightness: float
    """Mean luma, 0 (black) – 1 (white)."""
    sharpness: float
    """See `images.transforms.sharpness`; a blurred photo has a low value."""
    grey: NDArray[np.uint8]
    """uint8 64×64: the whole photo in grey, without its aspect ratio."""


def measure_photos(
    photos: Sequence[Photo], threads: int, progress: Callable[[int, int], None]
) -> list[Measurements | None]:
    """Measure photos whose digests are known; photos in the cache are not opened.

    Returns:
        The `Measurements` of each photo; None where it is no longer readable, or its content has changed.
    """
    # "1" is the version of the measurements; the decoders' versions are in the key because they decide on the pixels.
    cache = ArrayCache("looks", f"1 pillow {version('pillow')} simplejpeg {version('simplejpeg')}", SHAPES)
    found: list[Measurements | None] = []
    try:
        with closing(_rows(photos, cache, threads)) as rows:
            for row, photo in zip(rows, photos, strict=True):
                if row is not None:
                    cache.add(str(photo.sha256), row)
                found.append(None if row is None else _measurements(row))
                progress(len(found), len(photos))
    finally:
        cache.flush()  # an interrupted run continues from here
    return found


def measure_photo(data: bytes) -> Measurements:
    """Measure one photo from the bytes of its file.

    Raises:
        PhotoError: it cannot be read.
    """
    return _measurements(_measure(data))


CachedArrays = dict[str, NDArray[Any]]


def _rows(photos: Sequence[Photo], cache: ArrayCache, threads: int) -> Generator[CachedArrays | None, None, None]:
    def one(photo: Photo) -> CachedArrays | None:
        if str(photo.sha256) in cache:
            return cache[str(photo.sha256)]
        try:
            data = read_bytes(photo.path)
            # A file that has changed since its digest was taken must not be cached under the old one.
            return _measure(data) if sha256(data) == photo.sha256 else None
        except PhotoError:
            return None

    return ordered_map(one, photos, threads)


def _measure(data: bytes) -> CachedArrays:
    header = read_header(data)
    grey = Image.fromarray(decode_with_header(data, header, at_least=DECODED)).convert("L")
    luma = scaled_luma(grey)
    numbers = (FORMATS.index(header.format), len(data), header.orientation, luma.mean(), sharpness(luma))
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    return {"numbers": np.array(numbers, np.float64), "grey": np.asarray(small, np.uint8)}


def _measurements(row: CachedArrays) -> Measurements:
    kind, size, orientation, brightness, sharpness = row["numbers"].tolist()
    return Measurements(FORMATS[int(kind)], int(size), int(orientation), brightness, sharpness, row["grey"])
