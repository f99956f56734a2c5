"""`Header`: what a photo says of itself before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

ORIENTATION = 0x0112
"""The EXIF tag (CIPA DC-008)."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a photo's header says, read without decoding a pixel."""

    format: str
    """JPEG, PNG, WEBP, AVIF, BMP or GIF (an MPO is a JPEG with more pictures behind it)."""
    width: int
    """Pixels as stored, before orientation."""
    height: int
    """Pixels as stored, before orientation."""
    orientation: int
    """EXIF orientation 1–8; 1 where there is none or it is nonsense."""
    icc: bool
    """Whether an ICC colour profile is embedded. It is not applied: pixels are taken as sRGB."""


def read_orientation(exif: bytes) -> int:
    """EXIF orientation 1–8; 1 where there is none or it is nonsense."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
