"""`Header`: what the header of a photo states, and the arrays that upright pixels are written to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ORIENTATION = 0x0112
"""Tag number of the orientation in TIFF and EXIF (CIPA DC-008)."""
XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9])")
WIDTHS = {1: 1, 3: 2, 4: 4}
"""Type of an integer (BYTE, SHORT, LONG) → its size in bytes."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a photo states; no pixel is decoded to read it."""

    format: str
    """JPEG, PNG, WEBP, AVIF, BMP, GIF, TIFF or HEIC (an MPO is a JPEG followed by more images)."""
    width: int
    """Pixels as stored, before orientation (of TIFF and HEIC after it: their decoders turn them)."""
    height: int
    """Pixels as stored, before orientation (of TIFF and HEIC after it: their decoders turn them)."""
    orientation: int
    """Orientation 1–8 from EXIF, or from XMP where EXIF has none; 1 where there is none or it is invalid."""
    icc: bool
    """Whether an ICC colour profile is embedded. It is not applied: pixels are taken as sRGB."""


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """Orientation 1–8 from EXIF, or from XMP where EXIF has none; 1 where there is none or it is invalid.

    Damaged metadata never makes a photo unreadable: only this one tag is read.
    """
    value = None if exif is None else next((value for tag, value in numbers(exif) if tag == ORIENTATION), None)
    if value is None and xmp is not None and (found := XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if value is not None and 1 <= value <= 8 else 1


def numbers(tiff: bytes) -> Iterator[tuple[int, int]]:
    """Yield (tag, value) for each single integer in the first directory of EXIF or TIFF, and (tag, 0) for other
    values.
    """
    start = 0
    while tiff.startswith(b"Exif\0\0", start):  # Some writers store the prefix twice.
        start += 6
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II", start) else "big"
    if not tiff.startswith((b"II", b"MM"), start):
        return
    at = start + int.from_bytes(tiff[start + 4 : start + 8], order)
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(tiff[at : at + 2], order), 12):
        if entry + 12 > len(tiff):
            return
        tag, kind, count = (
            int.from_bytes(tiff[entry + first : entry + last], order) for first, last in ((0, 2), (2, 4), (4, 8))
        )
        width = WIDTHS.get(kind, 0) if count == 1 else 0
        yield tag, int.from_bytes(tiff[entry + 8 : entry + 8 + width], order)


# Upright pixels: they are written to their final array some rows at a time, so that a large photo is never held twice.

STRIPE = 1 << 18
"""Number of pixels that are converted at once; at least one row is."""


def new_upright(height: int, width: int, orientation: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Allocate the upright photo, uint8, and return it with a view of it in the stored orientation.

    The view has the shape `height`×`width`×3; what is written to it appears upright in the first array.

    Args:
        height: of the photo as stored, in pixels.
        width: of the photo as stored, in pixels.
        orientation: EXIF orientation 1–8 (CIPA DC-008, tag 274).
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
    """Slices of rows of about `STRIPE` pixels, from top to bottom."""
    step = max(1, STRIPE // max(1, width))
    return (slice(top, min(height, top + step)) for top in range(0, height, step))
