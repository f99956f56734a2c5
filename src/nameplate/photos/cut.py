"""`cut`: a part of a photo, or a photo as a part of a larger grey frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nameplate.photos.preprocess import PAD_GREY

Box = tuple[float, float, float, float]
"""Top, left, bottom, right as shares of the photo's height and width; what lies beyond 0–1 is grey."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def centred(side: float) -> Box:
    """A box in the middle; its sides are that share of the photo's, and above 1 it is a frame around the photo."""
    edge = (1 - side) / 2
    return (edge, edge, 1 - edge, 1 - edge)


def cut(photo: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """What of a photo lies in a box.

    Args:
        photo: uint8 H×W×3, RGB.
        box: rounded to whole pixels, at least one each way.

    Returns:
        uint8 H'×W'×3; the photo itself for `WHOLE`.
    """
    if box == WHOLE:
        return photo
    height, width = photo.shape[:2]
    top, bottom = _edges(box[0], box[2], height)
    left, right = _edges(box[1], box[3], width)
    inside = photo[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    beyond = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
    return np.pad(inside, beyond, constant_values=PAD_GREY)


def _edges(first: float, last: float, side: int) -> tuple[int, int]:
    low = min(round(first * side), side - 1)
    return low, max(low + 1, round(last * side))
