"""The quality of a photo, measured on its pixels: whether it is too small, too dark or too blurred to recognise a car.

`model/verdict.py` defines how these flaws change the verdict. `tools/calibrate_quality.py` fits the thresholds. Light
and sharpness are measured on the photo resized to `VIEW`, so that they depend neither on its size nor on the bundle.
For the bundle that ships this is the model input itself; for other bundles the photo is resized once more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nameplate.images.transforms import Pixels, preprocess
from nameplate.types import Flaw, Preprocess

VIEW = Preprocess(192, 288, "squash", "bicubic")
"""Size at which light and sharpness are measured: the model input of the bundle that ships."""
ROWS, COLUMNS = 8, 4
"""One row in `ROWS` is measured, and for light one column in `COLUMNS` of it. They divide the height and width of
`VIEW`."""
STRIPS = VIEW.height // ROWS
VERTICAL = np.array([1, -4, 1], np.float32)
"""Weights of the pixels above, at and below in the Laplacian; those to the left and right have the weight 1."""
SAMPLES = STRIPS * (VIEW.width - 2)
"""Number of pixels whose Laplacian is computed; the first and last pixel of a row have no neighbour on one side."""
SMALL = 56
"""A photo whose shorter side has fewer pixels is too small. This and the next two thresholds are fitted so that few
photos of adverts are below them: 0.4 % here, 0.3 % below `DARK`, 0.4 % below `BLURRED` (tools/calibrate_quality.py)."""
DARK = 0.33
"""A photo whose `Quality.light` is below it is too dark."""
BLURRED = 0.016
"""A photo whose `Quality.sharpness` is below it is too blurred."""
MEASURE = 2
"""Version of the measure. It is increased with every change of the results, so that no cache mixes two versions."""
FLAT = 0.1
"""Variance of values 0–255 below which a photo shows nothing, such as a blank sheet. It is a divisor, so it is not
0."""
BRIGHT = 0.9
"""Quantile of the green channel that measures the light. A dark street with one bright lamp still counts as dark."""
BRIGHT_RANK = int(BRIGHT * (STRIPS * (VIEW.width // COLUMNS) - 1))


@dataclass(frozen=True, slots=True)
class Quality:
    """The measured quality of one photo."""

    short_side: int
    """Shorter side of the photo as stored, in pixels."""
    light: float
    """The `BRIGHT` quantile of the green channel, from 0 (black) to 1 (white)."""
    sharpness: float
    """Energy of the Laplacian at `VIEW` (J. Pech-Pacheco et al., 2000) divided by the variance of the values. A low
    value means blurred. The plain energy also falls with the contrast, and would call dark photos blurred. It is
    infinite where the photo was decoded to fewer pixels than `VIEW` has although it has more: then sharpness cannot be
    measured."""


def flaws(quality: Quality | None) -> tuple[Flaw, ...]:
    """The flaws of a photo; empty where it is good enough, or where it was not measured.

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


def measure_quality(pixels: Pixels, inputs: Pixels, size: Preprocess, short_side: int) -> Quality:
    """Measure a decoded photo.

    Args:
        pixels: the upright photo, uint8 H×W×3, as it was decoded, possibly at a reduced scale.
        inputs: the model input of the same photo, uint8 `size.height`×`size.width`×3.
        size: how `inputs` was made; where it resizes as `VIEW` does the photo is not resized again.
        short_side: shorter side of the photo as stored, in pixels.
    """
    view = inputs if replace(size, locate=VIEW.locate) == VIEW else preprocess(pixels, VIEW)
    # Each call to numpy on more than 500 values releases the interpreter's lock, for which several decoding threads
    # compete. So there are few calls, on contiguous arrays and in place. All values up to `energy` are exact integers.
    # Green is most of luma, and cameras sample it most densely.
    green = view[:, :, 1].reshape(STRIPS, ROWS, VIEW.width)
    rows = green[:, :3].transpose(1, 0, 2).astype(np.float32, order="C").reshape(3, -1)
    middle = rows[1]
    laplacian = VERTICAL @ rows
    # These two lines mix the ends of neighbouring rows, in the first and last column, which are then left out.
    laplacian[1:] += middle[:-1]
    laplacian[:-1] += middle[1:]
    energy = laplacian.reshape(STRIPS, VIEW.width)[:, 1:-1].ravel()
    centred = middle.reshape(STRIPS, VIEW.width)[:, 1:-1].ravel()
    centred -= np.add.reduce(centred) / np.float32(SAMPLES)
    contrast = max(float(centred @ centred), FLAT * SAMPLES)
    reduced = min(pixels.shape[:2]) < min(short_side, VIEW.height, VIEW.width)
    bright = green[:, 1, ::COLUMNS].flatten()
    bright.partition(BRIGHT_RANK)  # On uint8 it takes a quarter of the time of a sort.
    light = float(bright[BRIGHT_RANK]) / 255
    return Quality(short_side, light, np.inf if reduced else float(energy @ energy) / contrast)
