"""What decoding a photo will cost, told from its header: memory, and whether it may take long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nameplate.photos.header import Header
from nameplate.photos.jpeg import jpeg_bytes

QUICK_WORK = 250_000_000
"""Pixels × scans below which decoding ends in about a second or two and needs no watch."""
SCAN_WORK = 20_000
"""What a scan costs beside its pixels, in pixels."""
OTHER_FORMATS_WORK = 8
"""What a pixel of the other formats costs at most, in scans of a JPEG (AVIF is the slowest)."""
QUICK_BYTES = 256 * 1024
"""Size of a file up to which a reader written in Python is quick, whatever is in it."""
BYTES_PER_PIXEL = {"PNG": 8, "BMP": 8, "GIF": 8, "WEBP": 20, "AVIF": 20, "TIFF": 16, "HEIC": 14}
"""Bytes at the peak for each pixel, the decoded photo among them, as measured on photos of 12 megapixels."""
MOST_PER_PIXEL = 15
"""Bytes that a pixel of a JPEG takes at most: four inks, with all coefficients."""
SMALL = 32 * 1024 * 1024
"""Bytes at the peak for which nobody has to wait."""
RLE = (1, 2)
"""Compressions of BMP that Pillow undoes in Python."""


def slow_container(data: bytes, format_: str) -> bool:
    """Whether reading a file of this format, even its header, may take long however small the picture is.

    TIFF and HEIC: their libraries do much, and libtiff writes to stderr. GIF's blocks and BMP's run lengths are read
    in Python, and so is EXIF wherever Pillow rewrites it, as in AVIF.
    """
    if format_ in ("TIFF", "HEIC"):
        return True
    if format_ == "AVIF":
        return b"Exif" in data
    if len(data) <= QUICK_BYTES:
        return False
    return format_ == "GIF" or (format_ == "BMP" and int.from_bytes(data[30:34], "little") in RLE)


def is_slow(data: bytes, header: Header) -> bool:
    """Whether decoding may take more than a second or two."""
    pixels = header.width * header.height
    if header.format == "JPEG":
        return max(1, data.count(b"\xff\xda")) * (pixels + SCAN_WORK) > QUICK_WORK
    return pixels * OTHER_FORMATS_WORK > QUICK_WORK or slow_container(data, header.format)


def peak_bytes(data: bytes, header: Header, size: tuple[int, int]) -> int:
    """Bytes of memory that decoding takes at its peak, copies of the file's own among them.

    `size` is the (height, width) that a JPEG is decoded at.
    """
    if header.format != "JPEG":
        return BYTES_PER_PIXEL[header.format] * header.width * header.height + 2 * len(data)
    if MOST_PER_PIXEL * header.width * header.height <= SMALL:
        return SMALL
    return jpeg_bytes(data, *size, header.orientation)


class Room:
    """Memory for photos that are decoded at the same time."""

    def __init__(self) -> None:
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int, total: int) -> Iterator[None]:
        """Hold so many bytes, after a wait until they fit into `total` beside what others hold."""
        if amount <= SMALL:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= total)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()
