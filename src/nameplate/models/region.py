"""`region`: where in a photo the car is, read off the backbone's own features; no detector.

A place's embedding is the longer, the more the backbone sees there that it tells cars by; sky and street leave it
near the least. So the length, which needs no head and no class, is the map that found the car best of those that
were tried (docs/tta.md); the idea of looking for objects in the last features is B. Zhou et al., "Learning Deep
Features for Discriminative Localization", 2016.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nameplate.photos.cut import Box
from nameplate.photos.preprocess import frame
from nameplate.types import Preprocess

TAIL = 0.05
"""Share of the map that may lie beyond each edge of the region."""
MARGIN = 0.02
"""Widens the region, a share of the frame on every side."""
LEAST = 0.25
"""Least side of the region, as a share of the frame's: nearer than that there is nothing to see."""
STRETCH = 4 / 3
"""The region is as wide for its height as the model's picture, times or divided by up to this."""
NEARLY_ALL = 0.7
"""A region of more than this share of the photo's area is no closer look."""


def region(places: NDArray[np.float32], height: int, width: int, size: Preprocess) -> Box | None:
    """The part of a photo that the car fills, with some margin.

    Args:
        places: float32 h×w×D, the embedding of each place of the model's picture.
        height: of the photo.
        width: of the photo.
        size: the model's picture, and how the photo was fitted into it.

    Returns:
        The box, within the photo; None where it is nearly all of the photo.
    """
    length = np.linalg.norm(places, axis=-1)
    heat = length - length.min()
    if heat.sum() <= 0:
        return None
    left, top, right, bottom = frame(width, height, size)
    spans = (_span(heat.sum(1), top / height, bottom / height), _span(heat.sum(0), left / width, right / width))
    low, high = np.array(spans).T
    middle, sides = (low + high) / 2, np.maximum(high - low + 2 * MARGIN, LEAST)
    sides = np.minimum(_of_aspect(sides, size.width / size.height * height / width, size), 1)
    if sides.prod() > NEARLY_ALL:
        return None
    first = np.clip(middle - sides / 2, 0, 1 - sides)
    return (float(first[0]), float(first[1]), float(first[0] + sides[0]), float(first[1] + sides[1]))


def _span(heat: NDArray[np.float32], first: float, last: float) -> tuple[float, float]:
    """Between which places of an axis from `first` to `last` all of the heat lies but for its tails."""
    grown = np.concatenate([[0], np.cumsum(heat)]) / heat.sum()
    low, high = np.interp([TAIL, 1 - TAIL], grown, np.linspace(first, last, len(grown)))
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def _of_aspect(sides: NDArray[np.float64], wanted: float, size: Preprocess) -> NDArray[np.float64]:
    """Height and width, one of them widened until width / height is near enough to what is wanted."""
    stretch = 1.0 if size.fit == "crop" else STRETCH  # what is not of its shape would be cut off
    high, wide = sides
    return np.array([max(high, wide / (wanted * stretch)), max(wide, high * wanted / stretch)])
