"""Perceptual hashes of 256 bits."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

import nameplate
from nameplate.data.split import NEAR_BITS
from nameplate.images import decode
from nameplate.images.phash import MIRROR, WORDS, perceptual_hash

PHOTOS = Path(nameplate.__file__).parent / "demo" / "photos"


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """One embedded photo of each design and part."""
    return [Image.fromarray(decode(min(folder.iterdir()))) for folder in sorted(PHOTOS.glob("*/*/"))]


def _hash(photo: Image.Image) -> NDArray[np.uint64]:
    return perceptual_hash(np.asarray(photo))


def _apart(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count(one ^ other).sum())


def _recompressed(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=30)
    return Image.fromarray(decode(file.getvalue()))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "twice": lambda photo: photo.resize((photo.width * 2, photo.height * 2)),
    "recompressed": _recompressed,
    "brighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.15),
    "darker": lambda photo: ImageEnhance.Brightness(photo).enhance(0.8),
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_a_photo_are_near_it(copy: str, photos: list[Image.Image]) -> None:
    for photo in photos:
        assert _apart(_hash(photo), _hash(COPIES[copy](photo))) <= NEAR_BITS


def test_mirroring_flips_the_known_half_of_the_bits(photos: list[Image.Image]) -> None:
    for photo in photos:
        mirrored = _hash(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        assert _apart(_hash(photo) ^ MIRROR, mirrored) <= 2  # a value next to zero may round either way
        assert _apart(_hash(photo), mirrored) > NEAR_BITS


def test_different_photos_are_far_apart_also_mirrored(photos: list[Image.Image]) -> None:
    for one, other in combinations(map(_hash, photos), 2):
        assert min(_apart(one, other), _apart(one ^ MIRROR, other)) > NEAR_BITS


def test_a_hash_is_256_bits_and_repeats(photos: list[Image.Image]) -> None:
    first = _hash(photos[0])
    assert first.shape == (WORDS,)
    assert first.dtype == np.uint64
    assert WORDS * 64 == 256
    assert np.array_equal(first, _hash(photos[0]))


def test_brightness_alone_does_not_change_the_hash() -> None:
    """A ramp has few frequencies; all others are zero, and what rounding leaves there has no sign that counts."""
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(80, axis=1)
    assert _apart(perceptual_hash(ramp), perceptual_hash(ramp + np.uint8(100))) <= 2
    assert int(perceptual_hash(ramp)[0]) & 0x80 == 0  # the first bit is the mean's, and is left out
