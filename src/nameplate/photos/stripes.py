"""Pixels laid upright in their last place, some rows at a time: no second copy of a large photo is ever made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

STRIPE = 1 << 18
"""Pixels of a stripe, at least a row: what is converted at once."""


def new_upright(height: int, width: int, orientation: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Room for a photo, uint8: once upright, and once as it is stored, `height`×`width`×3: a view of the same memory.

    `orientation` is EXIF's (CIPA DC-008, tag 274).
    """
    upright = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    stored = upright
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation >= 5:
        stored = stored.transpose(1, 0, 2)
    return upright, stored


def stripes(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, from top to bottom."""
    step = max(1, STRIPE // max(1, width))
    return (slice(top, min(height, top + step)) for top in range(0, height, step))
