"""How sharp a photo is, and its picture sharpened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

LONG_SIDE = 256
"""Photos are made this long before their sharpness is measured, so that it does not go with their size."""
MASK = ImageFilter.UnsharpMask(radius=2, percent=200, threshold=0)
"""The picture plus twice its difference from itself blurred by a Gaussian of two pixels (docs/tta.md says why)."""


def scaled_luma(grey: Image.Image) -> NDArray[np.float32]:
    """Luma 0–1 of a photo, float32 H×W, its longer side `LONG_SIDE` and each at least 3 pixels.

    Args:
        grey: mode L, of any size.
    """
    scale = LONG_SIDE / max(grey.size)
    scaled = grey.resize((max(3, round(grey.width * scale)), max(3, round(grey.height * scale))))
    return np.asarray(scaled, np.float32) / np.float32(255)


def sharpness(luma: NDArray[np.float32]) -> float:
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
