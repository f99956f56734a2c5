"""JPEG through libjpeg-turbo (simplejpeg): header, reduced scale, and every way in which one can end early."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError, Reason
from nameplate.photos.header import Header, read_orientation

EXIF_HEADER, ICC_HEADER = b"Exif\0\0", b"ICC_PROFILE\0"
MAX_PADDING = 64
"""Filler bytes before the end marker that are let pass; more may be a hole in the picture."""
NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Where a JPEG scan's data ends: 0xFF, and then neither a stuffed zero, a restart marker nor a fill byte."""


def read_jpeg_header(data: bytes) -> Header:
    """What the header of a JPEG or MPO says; raises PhotoError."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _jpeg_error(data, str(error)) from None
    orientation, icc = 1, False
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xDA:
            break
        if marker == 0xE1 and data.startswith(EXIF_HEADER, start):
            orientation = read_orientation(data[start:end])
        elif marker == 0xE2 and data.startswith(ICC_HEADER, start):
            icc = True
    return Header("JPEG", width, height, orientation, icc)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment of the first picture (ISO/IEC 10918-1, B.1.1)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        if marker == 0xDA:
            found = NEXT_MARKER.search(data, end)
            end = found.start() if found else len(data)
        at = end


def _lacks_scans(data: bytes) -> bool:
    """Whether a JPEG ends before all its scans: libjpeg shows it coarser or grey, and says nothing."""
    left: dict[int, set[int]] = {}  # component → coefficients that still lack bits
    progressive = False
    for marker, start, _ in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            progressive = marker in (0xC2, 0xCA)
            left = {data[start + 6 + 3 * n]: set(range(64)) for n in range(data[start + 5])}
        elif marker == 0xDA:
            components = data[start + 1 : start + 1 + 2 * data[start] : 2]
            first, last, bits = data[start + 1 + 2 * data[start] :][:3]
            for component in components:
                if not progressive:
                    left.pop(component, None)
                elif bits & 0x0F == 0:
                    left[component] -= set(range(first, last + 1))
            if not any(left.values()):
                return False
    return True


def decode_jpeg(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """RGB pixels, uint8 `height`×`width`×3, which is the stored size over 1, 2, 4 or 8; raises PhotoError."""
    colours = simplejpeg.decode_jpeg_header(data)[2]
    try:
        pixels = _decode_turbo(data, height, width, colours, strict=True)
    except ValueError as error:
        if not _only_padding(data, str(error)):
            raise _jpeg_error(data, str(error)) from None
        pixels = _decode_turbo(data, height, width, colours, strict=False)
    if _lacks_scans(data):
        raise PhotoError("truncated", "JPEG: it ends before all of its scans")
    return pixels


def _decode_turbo(data: bytes, height: int, width: int, colours: str, *, strict: bool) -> NDArray[np.uint8]:
    four = colours in ("CMYK", "YCCK")
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data,
        colorspace="CMYK" if four else "RGB",
        fastdct=False,
        fastupsample=False,
        min_height=height,
        min_width=width,
        strict=strict,
    )
    if not four:
        return pixels
    # Adobe stores inks inverted, and so does every CMYK JPEG met in practice; Pillow reads them so too.
    return np.asarray(Image.fromarray(255 - pixels, "CMYK").convert("RGB"))


def _only_padding(data: bytes, message: str) -> bool:
    """Whether the warning is of filler bytes before the end marker, which some cameras write."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    if not found or int(found[1]) > MAX_PADDING:
        return False
    end = data.rfind(b"\xff\xd9")
    return set(data[end - int(found[1]) : end]) <= {0x00} or set(data[end - int(found[1]) : end]) <= {0xFF}


def _jpeg_error(data: bytes, message: str) -> PhotoError:
    early = re.search(r"premature end|could not determine subsampling", message, re.IGNORECASE)
    ended = data.rstrip(b"\0").endswith(b"\xff\xd9") if early else b"\xff\xd9" in data
    reason: Reason = "damaged" if ended else "truncated"
    return PhotoError(reason, f"JPEG: {message}")
