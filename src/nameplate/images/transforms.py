"""Transforms of pixels: `preprocess` to the model input, `crop` to a box, and the sharpness of a photo.

`preprocess` makes the model input in training, evaluation and serving alike. Pillow's filters are antialiased (their
support grows with the reduction) and use integer arithmetic, so that the result is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nameplate.types import Floats, Interpolation, Preprocess

Pixels = NDArray[np.uint8]
"""A photo or a model input, uint8 H×W×3, RGB."""

FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
PAD_GREY = 127
"""Value of padding: the nearest to zero after the backbones' normalisation with mean 0.5."""


def preprocess(photo: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
    """Resize a photo to the model input.

    Args:
        photo: uint8 H×W×3, RGB, H and W ≥ 1.
        settings: size, fit and filter.

    Returns:
        uint8 `settings.height`×`settings.width`×3.

    Raises:
        ValueError: `photo` is not a uint8 H×W×3 array, or the fit or filter is unknown.
    """
    check_pixels(photo, "preprocess")
    if settings.fit not in FITS or settings.interpolation not in FILTERS:
        raise ValueError(
            f"unknown fit {settings.fit!r} or interpolation {settings.interpolation!r}; "
            f"there are {', '.join(FITS)} and {', '.join(FILTERS)}"
        )
    if photo.shape[:2] == (settings.height, settings.width):
        return photo
    return FITS[settings.fit](Image.fromarray(photo), settings)


def check_pixels(photo: NDArray[np.generic], function: str) -> None:
    """Check that an array is a photo, uint8 H×W×3; `function` is the name to say in the error.

    Raises:
        ValueError: it is none, or has no pixels.
    """
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise ValueError(f"{function} takes uint8 H×W×3 pixels, got {photo.dtype} {'×'.join(map(str, photo.shape))}")


def frame(width: float, height: float, settings: Preprocess) -> tuple[float, float, float, float]:
    """The box of the model input over a photo: left, top, right, bottom in pixels of the photo.

    With the fit "pad" the box reaches beyond the photo; with "crop" it leaves out a part of it.
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
    padded = np.full((settings.height, settings.width, 3), PAD_GREY, np.uint8)
    top, left = (settings.height - height) // 2, (settings.width - width) // 2
    padded[top : top + height, left : left + width] = _resize(image, width, height, settings)
    return padded


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

# Boxes: a part of a photo, or a larger grey frame around it.

Box = tuple[float, float, float, float]
"""Top, left, bottom, right as fractions of the photo's height and width. What lies outside 0–1 is grey."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def centred(side: float) -> Box:
    """A box in the middle of a photo. Its sides are the fraction `side` of the photo's; above 1 it is a frame around
    it.
    """
    edge = (1 - side) / 2
    return (edge, edge, 1 - edge, 1 - edge)


def crop(photo: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Crop a photo to a box.

    Args:
        photo: uint8 H×W×3, RGB.
        box: see `Box`; it is rounded to whole pixels, at least one along each axis.

    Returns:
        uint8 H'×W'×3; the photo itself for `WHOLE`.
    """
    if box == WHOLE:
        return photo
    height, width = photo.shape[:2]
    top, bottom = _edges(box[0], box[2], height)
    left, right = _edges(box[1], box[3], width)
    # A negative index would count from the end of the photo.
    inside = photo[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    beyond = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
    return np.pad(inside, beyond, constant_values=PAD_GREY)


def _edges(first: float, last: float, side: int) -> tuple[int, int]:
    # At least one pixel remains, also of a box that is thinner than a pixel.
    low = min(round(first * side), side - 1)
    return low, max(low + 1, round(last * side))


# Sharpness: its measure for the data audit, and unsharp masking.

LONG_SIDE = 256
"""Longer side, in pixels, to which photos are resized before their sharpness is measured, so that it does not depend on
their size."""
MASK = ImageFilter.UnsharpMask(radius=2, percent=200, threshold=0)
"""The image plus twice its difference from its Gaussian blur with a radius of two pixels (see docs/tta.md)."""


def scaled_luma(grey: Image.Image) -> Floats:
    """Luma of a photo, float32 H×W in 0–1, resized so that its longer side is `LONG_SIDE`; no side is below 3 pixels.

    Args:
        grey: an image of mode L, of any size.
    """
    scale = LONG_SIDE / max(grey.size)
    scaled = grey.resize((max(3, round(grey.width * scale)), max(3, round(grey.height * scale))))
    return np.asarray(scaled, np.float32) / np.float32(255)


def sharpness(luma: Floats) -> float:
    """Variance of the Laplacian (J. Pech-Pacheco et al., 2000): a low value means blurred.

    Args:
        luma: float32 H×W, 0–1, as `scaled_luma` gives it.
    """
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def sharpness_of(pixels: NDArray[np.uint8]) -> float:
    """The `sharpness` of pixels, uint8 H×W×3."""
    return sharpness(scaled_luma(Image.fromarray(pixels).convert("L")))


def sharpened(inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A model input, uint8 H×W×3, after unsharp masking with `MASK`."""
    return np.asarray(Image.fromarray(inputs).filter(MASK))
