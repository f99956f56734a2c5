"""How good a photo is to judge a car by: its size, its light and its sharpness, measured on its pixels alone.

A photo that is too small, too dark or too blurred has a flaw; `model/verdict.py` says what becomes of its verdict. The
thresholds are fitted by `tools/calibrate_quality.py`, which says on which photos. Sharpness and light are measured on
the photo squashed to `VIEW`, so that they depend neither on its size nor on the bundle. The bundle that ships has made
this picture already, and measuring costs next to nothing; others resize the photo once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.images.transforms import preprocess
from nameplate.types import Flaw, Preprocess

Pixels = NDArray[np.uint8]

VIEW = Preprocess(192, 288, "squash", "bicubic")
"""What photos are made before light and sharpness are measured: the input of the bundle that ships."""
ROWS, COLUMNS = 8, 4
"""Measured is one of so many rows of `VIEW`, whose height they divide; and for light one of so many of its columns."""
SMALL = 56
"""A photo whose shorter side has fewer pixels is too small. Fitted, as the next two, so that few photos of adverts are
below it: 0.4 % here, 0.3 % of `DARK`, 0.4 % of `BLURRED` (tools/calibrate_quality.py)."""
DARK = 0.33
"""A photo whose `Quality.light` is below it is too dark."""
BLURRED = 0.016
"""A photo whose `Quality.sharpness` is below it is too blurred."""
MEASURE = 2
"""Goes up with every change of what is measured, so that no cache mixes two measures."""
FLAT = 0.1
"""Variance of values 0–255 below which a photo shows nothing, such as a blank sheet; it divides, and must not be 0."""
BRIGHT = 0.9
"""The quantile of the green channel that is taken for a photo's light: a dark street with a bright lamp stays dark."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on one photo."""

    short_side: int
    """The shorter side of the photo as stored, in pixels."""
    light: float
    """The `BRIGHT` quantile of its green channel, 0 (black) – 1 (white)."""
    sharpness: float
    """Energy of the Laplacian on `VIEW` (J. Pech-Pacheco et al., 2000) as a multiple of the variance of values: low is
    blurred. The plain energy falls with contrast too, and would call dark photos blurred. Infinite where the photo
    was decoded to fewer pixels than `VIEW` has, although it has more: then nothing can be said."""


def flaws(quality: Quality | None) -> tuple[Flaw, ...]:
    """What is wrong with a photo; empty where it is good enough to judge by, or was not measured.

    >>> flaws(Quality(short_side=40, light=0.2, sharpness=0.5))
    ('small', 'dark')
    """
    if quality is None:
        return ()
    found: dict[Flaw, bool] = {
        "small": quality.short_side < SMALL,
        "dark": quality.light < DARK,
        "blurred": quality.sharpness < BLURRED,
    }
    return tuple(flaw for flaw, there in found.items() if there)


def measure_quality(pixels: Pixels, picture: Pixels, size: Preprocess, short_side: int) -> Quality:
    """Measure a decoded photo.

    Args:
        pixels: the upright photo, uint8 H×W×3, as it was decoded, perhaps to a smaller scale.
        picture: the same photo as the model's input, uint8 `size.height`×`size.width`×3.
        size: how `picture` was made; where it is `VIEW` the photo is not resized again.
        short_side: of the photo as stored, in pixels.
    """
    view = picture if size == VIEW else preprocess(pixels, VIEW)
    # Green is most of luma, and what a camera samples most densely. Of three rows in `ROWS` the middle one is measured.
    # Each call to numpy hands the interpreter to another decoding thread and back, so there are as few as can be.
    strips = view[:, :, 1].reshape(-1, ROWS, VIEW.width)[:, :3].astype(np.float32)
    above, middle, below = strips[:, 0, 1:-1], strips[:, 1], strips[:, 2, 1:-1]
    inner = middle[:, 1:-1].ravel()
    laplacian = (above + below + middle[:, :-2] + middle[:, 2:]).ravel() - 4 * inner
    centred = inner - inner.mean()
    contrast = max(float(centred @ centred), FLAT * len(inner))
    reduced = min(pixels.shape[:2]) < min(short_side, VIEW.height, VIEW.width)
    bright = np.sort(middle[:, ::COLUMNS], axis=None)
    light = float(bright[int(BRIGHT * (len(bright) - 1))]) / 255
    return Quality(short_side, light, np.inf if reduced else float(laplacian @ laplacian) / contrast)
