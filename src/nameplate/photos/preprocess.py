"""`preprocess`: RGB pixels of any size → the model's fixed-size picture. The only resize in Nameplate.

Pillow's filters are antialiased (their support grows with the reduction), deterministic integer code and
the same in training, evaluation and serving.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.types import Interpolation, Preprocess

FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
PAD_GREY = 127
"""The grey of padding: the nearest to zero after the backbones' mean-0.5 normalisation."""


def preprocess(photo: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
    """Fit a photo into the model's picture.

    Args:
        photo: uint8 H×W×3, RGB, H and W ≥ 1.
        settings: the size, fit and filter.

    Returns:
        uint8 `settings.height`×`settings.width`×3.

    Raises:
        ValueError: not a uint8 H×W×3 array, or unknown settings.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise ValueError(f"preprocess takes uint8 H×W×3 pixels, got {photo.dtype} {'×'.join(map(str, photo.shape))}")
    if settings.fit not in FITS or settings.interpolation not in FILTERS:
        raise ValueError(
            f"unknown fit {settings.fit!r} or interpolation {settings.interpolation!r}; "
            f"there are {', '.join(FITS)} and {', '.join(FILTERS)}"
        )
    if photo.shape[:2] == (settings.height, settings.width):
        return photo
    return FITS[settings.fit](Image.fromarray(photo), settings)


def frame(width: int, height: int, settings: Preprocess) -> tuple[float, float, float, float]:
    """Where the model's picture lies over a photo: left, top, right, bottom in the photo's pixels.

    With pad it reaches beyond the photo, with crop it leaves out some of it.
    """
    if settings.fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    shares = width / settings.width, height / settings.height
    scale = max(shares) if settings.fit == "pad" else min(shares)
    across, down = settings.width * scale, settings.height * scale
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, left + across, top + down


def _squash(image: Image.Image, settings: Preprocess) -> NDArray[np.uint8]:
    return _resize(image, settings.width, settings.height, settings)


def _pad(image: Image.Image, settings: Preprocess) -> NDArray[np.uint8]:
    scale = min(settings.width / image.width, settings.height / image.height)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    picture = np.full((settings.height, settings.width, 3), PAD_GREY, np.uint8)
    top, left = (settings.height - height) // 2, (settings.width - width) // 2
    picture[top : top + height, left : left + width] = _resize(image, width, height, settings)
    return picture


def _crop(image: Image.Image, settings: Preprocess) -> NDArray[np.uint8]:
    scale = min(image.width / settings.width, image.height / settings.height)
    width, height = settings.width * scale, settings.height * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return _resize(image, settings.width, settings.height, settings, (left, top, left + width, top + height))


def _resize(
    image: Image.Image,
    width: int,
    height: int,
    settings: Preprocess,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    return np.asarray(image.resize((width, height), FILTERS[settings.interpolation], box=box))


FITS = {"squash": _squash, "pad": _pad, "crop": _crop}
