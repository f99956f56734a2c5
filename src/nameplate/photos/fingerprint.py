"""`perceptual_hash`: what a picture looks like in 256 bits, so that copies of it can be found.

pHash (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) with 16×16
instead of 8×8 frequencies, so that cars on similar grounds stay apart, and with signs instead of a
median, so that mirroring the picture flips a known half of the bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, FREQUENCIES = 64, 16
WORDS = FREQUENCIES * FREQUENCIES // 64
"""uint64 words of a hash."""
COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(FREQUENCIES), np.arange(SIDE) + 0.5)).astype(np.float32)
"""The lowest rows of the DCT-II; without its scaling, since only signs are kept."""
ROUNDING = 0.1
"""Frequencies below this are zero but for rounding, which differs from processor to processor (up to 0.01); so their
sign would be too. In photos one frequency in 75,000 lies below it."""
MIRROR = np.packbits(np.tile(np.arange(FREQUENCIES) % 2 == 1, (FREQUENCIES, 1))).view(np.uint64)
"""hash ^ MIRROR is the hash of the mirrored picture: mirroring negates the odd horizontal frequencies."""


def perceptual_hash(photo: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash a picture.

    Args:
        photo: uint8 H×W×3, RGB.

    Returns:
        uint64 of shape (4,): 256 signs of the picture's lowest frequencies.
    """
    grey = Image.fromarray(photo).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    spectrum = COSINES @ np.asarray(grey, np.float32) @ COSINES.T
    spectrum[0, 0] = 0  # brightness says nothing
    return np.packbits(spectrum > ROUNDING).view(np.uint64)
