"""`preprocess`: RGB pixels of any size → the model's fixed-size picture. The only resize in Nameplate.

Pillow's filters are antialiased (their support grows with the reduction), deterministic integer code and
the same in training, evaluation and serving.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nameplate.types import Floats, Interpolation, Preprocess

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


# JOINED `cut`: a part of a photo, or a photo as a part of a larger grey frame.


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


# JOINED How sharp a photo is, and its picture sharpened.


LONG_SIDE = 256
"""Photos are made this long before their sharpness is measured, so that it does not go with their size."""
MASK = ImageFilter.UnsharpMask(radius=2, percent=200, threshold=0)
"""The picture plus twice its difference from itself blurred by a Gaussian of two pixels (docs/tta.md says why)."""


def scaled_luma(grey: Image.Image) -> Floats:
    """Luma 0–1 of a photo, float32 H×W, its longer side `LONG_SIDE` and each at least 3 pixels.

    Args:
        grey: mode L, of any size.
    """
    scale = LONG_SIDE / max(grey.size)
    scaled = grey.resize((max(3, round(grey.width * scale)), max(3, round(grey.height * scale))))
    return np.asarray(scaled, np.float32) / np.float32(255)


def sharpness(luma: Floats) -> float:
    """Variance of the Laplacian (J. Pech-Pacheco et al., 2000): low is blurred.

    Args:
        luma: float32 H×W, 0–1, as `scaled_luma` gives it.
    """
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def sharpness_of(pixels: NDArray[np.uint8]) -> float:
    """`sharpness` of a photo's pixels, uint8 H×W×3."""
    return sharpness(scaled_luma(Image.fromarray(pixels).convert("L")))


def sharpened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture after unsharp masking with `MASK`: uint8 H×W×3 → uint8 H×W×3."""
    return np.asarray(Image.fromarray(picture).filter(MASK))
