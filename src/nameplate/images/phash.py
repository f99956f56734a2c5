"""Finding copies of an image: `perceptual_hash` (256 bits) and `alignment` (correlation under the best crop).

The hash is pHash (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) with two
changes. It keeps 16×16 frequencies instead of 8×8, so that different cars on similar backgrounds get different hashes.
It keeps the sign of each frequency instead of comparing it with the median, so that mirroring the image flips a known
half of the bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.types import Floats

HASH_SIDE, FREQUENCIES = 64, 16
WORDS = FREQUENCIES * FREQUENCIES // 64
"""Number of uint64 words in a hash."""
COSINES = np.cos(np.pi / HASH_SIDE * np.outer(np.arange(FREQUENCIES), np.arange(HASH_SIDE) + 0.5)).astype(np.float32)
"""The lowest rows of the DCT-II, float32 16×64. The scaling is left out, since only signs are kept."""
ROUNDING = 0.1
"""Frequencies below this count as zero. Their sign would depend on rounding, which differs between processors (by up to
0.01). In photos one frequency in 75,000 lies below it."""
MIRROR = np.packbits(np.tile(np.arange(FREQUENCIES) % 2 == 1, (FREQUENCIES, 1))).view(np.uint64)
"""`hash ^ MIRROR` is the hash of the mirrored image: mirroring negates the odd horizontal frequencies."""


def perceptual_hash(photo: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash an image.

    Args:
        photo: uint8 H×W×3, RGB.

    Returns:
        uint64 of shape (4,): 256 signs of the image's lowest frequencies.
    """
    grey = Image.fromarray(photo).convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR)
    spectrum = COSINES @ np.asarray(grey, np.float32) @ COSINES.T
    spectrum[0, 0] = 0  # The mean brightness does not tell images apart.
    return np.packbits(spectrum > ROUNDING).view(np.uint64)


# Alignment. The crop is found by Gauss–Newton steps on the correlation of small grey images (B. Lucas and T. Kanade,
# 1981; normalised as in G. Evangelidis and E. Psarakis, "Parametric image alignment", 2008), for many pairs at once.
# Only scale and shift along the two axes are estimated, because a crop followed by a resize does nothing else.

SIDE = 64
"""Side of the grey images that are compared, in pixels."""
COARSE, FINE_STEPS = 32, 4
"""Side of the reduced images that the search begins with, in pixels, and number of steps at the full side."""
COARSE_STEPS = ((2, 0.45), (2, 0.6), (6, 0.75))
"""Pairs of (number of steps on the reduced images, correlation below which the search of a pair then stops). Of 209
true copies the least similar had correlations of 0.53, 0.70 and 0.95 there. Of pairs of different photos of similar
cars two thirds stop at the first value."""
MIN_SCALE, MAX_SHIFT = 0.7, 0.3
"""The search stops at these limits: an image of which less is left is not called a copy. Shifts are in halves of the
side."""
PAIRS_AT_ONCE = 256


def alignment(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    """Compute the correlation of pairs of grey images under the best crop of the second to the first.

    Args:
        first: uint8 P×64×64.
        second: uint8 P×64×64.

    Returns:
        float32 (P,), at most 1. Copies of one image have about 1, two photos of similar cars seldom more than 0.9.
    """
    parts = [
        _align(first[i : i + PAIRS_AT_ONCE], second[i : i + PAIRS_AT_ONCE]) for i in range(0, len(first), PAIRS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _align(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Floats:
    one, two = (each.astype(np.float32) for each in (first, second))
    half = np.asarray(np.repeat(np.eye(COARSE), SIDE // COARSE, 0) * COARSE / SIDE, np.float32)
    small = [np.asarray(half.T @ each @ half, np.float32) for each in (one, two)]  # Means of 2×2 pixels.
    crops = np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1))
    found, closer = np.zeros(len(one), np.float32), np.arange(len(one))
    # Most pairs are different photos: they are given up after two cheap steps.
    for steps, promising in COARSE_STEPS:
        if not len(closer):
            return found
        crops[closer], found[closer] = _search(small[0][closer], small[1][closer], crops[closer], steps)
        closer = closer[found[closer] > promising]
    if len(closer):
        found[closer] = _search(one[closer], two[closer], crops[closer], FINE_STEPS)[1]
    return found


def _search(fixed: Floats, moved: Floats, crops: Floats, steps: int) -> tuple[Floats, Floats]:
    """Find the crops (scale and shift in y, then in x) under which `moved` is most like `fixed`.

    Returns:
        The crops, float32 P×4, and the correlation under each, float32 (P,).
    """
    side, best, found = moved.shape[1], crops.copy(), np.full(len(fixed), -1, np.float32)
    slopes = [np.asarray(s, np.float32) for s in np.gradient(moved, 2 / moved.shape[1], axis=(1, 2))]
    for step in range(steps + 1):  # The last round only measures the correlation that the last step reached.
        (rows, row_in), (columns, column_in) = (
            _weights(crops[:, i : i + 1], crops[:, i + 1 : i + 2], side) for i in (0, 2)
        )
        inside = np.asarray(row_in[:, :, None] * column_in[:, None, :], np.float32)
        sampled = _sample(moved, rows, columns)
        target, warped, norm = _normalised(fixed, inside), *_with_norm(sampled, inside)
        now = (target * warped).sum((1, 2))
        better = now > found
        best[better], found[better] = crops[better], now[better]
        if step < steps:
            # The gradient is computed once on the whole image, and sampled under each crop like the image itself.
            turned = [np.asarray(_sample(slope, rows, columns) * inside / norm, np.float32) for slope in slopes]
            low, high = _limits()
            crops = np.asarray(np.clip(crops + _step(target - warped, turned), low, high), np.float32)
    return best, found


def _limits() -> tuple[Floats, Floats]:
    low = np.array([MIN_SCALE, -MAX_SHIFT, MIN_SCALE, -MAX_SHIFT], np.float32)
    high = np.array([1 / MIN_SCALE, MAX_SHIFT, 1 / MIN_SCALE, MAX_SHIFT], np.float32)
    return low, high


def _grid(side: int) -> Floats:
    """Centres of the pixels of a side, from -1 to 1."""
    return ((np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1).astype(np.float32)


def _sample(images: Floats, rows: Floats, columns: Floats) -> Floats:
    """Sample images, float32 P×S×S, by linear interpolation with the weights of `_weights`."""
    return np.asarray(rows @ images @ columns.transpose(0, 2, 1), np.float32)


def _weights(scale: Floats, shift: Floats, side: int) -> tuple[Floats, Floats]:
    """The weight of each source pixel in each sampled pixel, P×S×S, and 1 where that lies inside the image, P×S."""
    at = scale * _grid(side) + shift
    inside = np.asarray(np.abs(at) <= 1, np.float32)
    pixel = np.clip((at + 1) * side / 2 - 0.5, 0, side - 1)
    distance = np.abs(pixel[:, :, None] - np.arange(side, dtype=np.float32))
    return np.asarray(np.maximum(0, 1 - distance), np.float32), inside


def _with_norm(images: Floats, inside: Floats) -> tuple[Floats, Floats]:
    """Images with mean 0 and norm 1 over the pixels inside, float32 P×S×S, and the norm that they had, P×1×1."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    centred = (images - (images * inside).sum((1, 2), keepdims=True) / count) * inside
    norm = np.asarray(np.maximum(np.sqrt((centred**2).sum((1, 2), keepdims=True)), 1e-3), np.float32)
    return np.asarray(centred / norm, np.float32), norm


def _normalised(images: Floats, inside: Floats) -> Floats:
    return _with_norm(images, inside)[0]


def _step(error: Floats, slopes: list[Floats]) -> Floats:
    """The Gauss–Newton step: the change of the crops, float32 P×4, that lowers the error most to first order."""
    y, x = slopes
    grid = _grid(error.shape[1])
    columns = np.stack([y * grid[:, None], y, x * grid, x], -1).reshape(len(error), -1, 4)
    # The correlation ignores the mean, so steps that change only the mean are removed.
    columns -= columns.mean(1, keepdims=True)
    square = columns.transpose(0, 2, 1) @ columns
    # A little of the diagonal is added, so that a flat image, whose matrix is singular, can be solved too.
    square += 1e-3 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(4, dtype=np.float32) + 1e-12 * np.eye(4)
    right = columns.transpose(0, 2, 1) @ error.reshape(len(error), -1, 1)
    return np.linalg.solve(square, right)[..., 0].astype(np.float32)
