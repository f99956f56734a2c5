"""How good a photo is to judge a car by: its size, its light and its sharpness, measured on its pixels alone.

A photo that is too small, too dark or too blurred has a flaw; `models/verdict.py` says what becomes of its verdict. The
thresholds are fitted by `tools/calibrate_quality.py`, which says on which photos. Sharpness and light are measured on
the photo squashed to `VIEW`, so that they depend neither on its size nor on the bundle. The bundle that ships has made
this picture already, and measuring costs next to nothing; others resize the photo once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.photos.preprocess import preprocess
from nameplate.types import Flaw, Preprocess

Pixels = NDArray[np.uint8]

VIEW = Preprocess(192, 288, "squash", "bicubic")
"""What photos are made before light and sharpness are measured: the input of the bundle that ships."""
STEP = 4
"""Light is measured on every so many pixels of `VIEW`, across and down."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
"""Weights of red, green and blue in luma (ITU-R BT.601), for values 0–255 → 0–1."""
SMALL = 56
"""A photo whose shorter side has fewer pixels is too small. Fitted, as the next two, so that few photos of adverts are
below it: 0.4 % here, 0.3 % of `DARK`, 0.4 % of `BLURRED` (tools/calibrate_quality.py)."""
DARK = 0.345
"""A photo whose `Quality.light` is below it is too dark."""
BLURRED = 0.018
"""A photo whose `Quality.sharpness` is below it is too blurred."""
MEASURE = 1
"""Goes up with every change of what is measured, so that no cache mixes two measures."""
FLAT = 1e-6
"""Variance of luma below which a photo shows nothing, such as a blank sheet; it divides, and must not be 0."""
BRIGHT = 0.9
"""The quantile of luma that is taken for a photo's light: a dark street with a bright lamp stays dark."""


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured on one photo."""

    short_side: int
    """The shorter side of the photo as stored, in pixels."""
    light: float
    """The `BRIGHT` quantile of its luma, 0 (black) – 1 (white)."""
    sharpness: float
    """Variance of the Laplacian on `VIEW` (J. Pech-Pacheco et al., 2000) as a multiple of the variance of luma: low is
    blurred. The plain variance falls with contrast too, and would call dark photos blurred. Infinite where the photo
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
    luma = view[::STEP, ::STEP].reshape(-1, 3) @ LUMA
    place = int(BRIGHT * (len(luma) - 1))
    reduced = min(pixels.shape[:2]) < min(short_side, VIEW.height, VIEW.width)
    contrast = max(float(luma.var()), FLAT)
    sharpness = np.inf if reduced else _laplacian_variance(view) / contrast
    return Quality(short_side, float(np.partition(luma, place)[place]), sharpness)


def _laplacian_variance(view: Pixels) -> float:
    """Variance of the green channel's Laplacian on every second row of uint8 H×W×3, in units of full scale squared.

    Green is most of luma, and what a camera samples most densely. Taking it alone and half of the rows makes this
    several times as fast as a conversion to luma, and integers cannot overflow: |Laplacian| <= 4 · 255.
    """
    green = view[:, :, 1].astype(np.int16)
    middle = green[1:-1:2]
    laplacian = green[:-2:2, 1:-1] + green[2::2, 1:-1] + middle[:, :-2] + middle[:, 2:] - 4 * middle[:, 1:-1]
    values = laplacian.astype(np.float32).ravel() / np.float32(255)
    return float(values @ values) / len(values) - float(values.mean()) ** 2
