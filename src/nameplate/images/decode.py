"""`decode`: a path or bytes → RGB pixels, with every limit on hostile input.

JPEG pixels always come from libjpeg-turbo through simplejpeg, all other formats from Pillow: one decoder a
format, so nothing that is or is not installed changes an answer (docs/decisions/0002-one-decoder.md). What may take
long is decoded in a process apart, by the same functions (`images/isolated.py`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images.formats import SNIFFED, is_read, picture_format, why_not_read
from nameplate.images.header import Header
from nameplate.images.isolated import header_apart, pixels_apart
from nameplate.images.jpeg import decode_jpeg, jpeg_bytes, read_jpeg_header
from nameplate.images.jpeg_file import SlowTailError
from nameplate.images.pillow import decode_with_pillow, read_pillow_header
from nameplate.storage import open_regular
from nameplate.types import Limits

# JOINED What decoding a photo will cost, told from its header: memory, and whether it may take long.


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


Source = str | os.PathLike[str] | bytes
DEFAULT_LIMITS = Limits()
SCALES = (8, 4, 2, 1)
"""The reductions that libjpeg computes inside the inverse DCT (8 uses the DC coefficient alone)."""
LEADING = 256
"""Bytes that tell what a file is that is no photo."""

_room = Room()


def decode(
    source: Source, *, limits: Limits = DEFAULT_LIMITS, at_least: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Read a photo.

    EXIF orientation is applied (or XMP's, where EXIF has none), transparency is laid over white, 16-bit samples
    keep their high byte, grey, palette and CMYK become RGB, and of an animation or of several pages the first
    picture is taken. An ICC profile is not applied (`read_header` says whether there is one).

    Args:
        source: a path, or the file's bytes.
        limits: what the photo may cost; size, pixels and memory are checked before any pixel is decoded.
        at_least: (height, width) of the model's picture. A JPEG is then decoded at the smallest of the
            scales 1/8, 1/4, 1/2, 1 that is no side below twice that; None decodes at full size.

    Returns:
        uint8 H×W×3, RGB, upright.

    Raises:
        PhotoError: the photo cannot be read; nothing is ever returned of a damaged one.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    return decode_with_header(data, read_header(data, limits), limits, at_least)


def decode_with_header(
    data: bytes, header: Header, limits: Limits = DEFAULT_LIMITS, at_least: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """`decode` for bytes whose header has been read and checked already."""
    size = _reduced_size(header, at_least) if header.format == "JPEG" else (header.height, header.width)
    memory = peak_bytes(data, header, size)
    if memory > limits.memory:
        raise PhotoError("too large", f"{_pixels(header)} take about {memory:,} bytes, the limit is {limits.memory:,}")
    try:
        with _room.taken(memory, limits.memory):
            if not is_slow(data, header):
                with suppress(SlowTailError):
                    return _decoded(data, header, size)
            return pixels_apart(data, header, size, limits)
    except MemoryError:
        raise PhotoError("too large", f"{_pixels(header)}: there is not enough memory to decode them") from None


def _decoded(data: bytes, header: Header, size: tuple[int, int]) -> NDArray[np.uint8]:
    if header.format == "JPEG":
        return decode_jpeg(data, *size, header.orientation, patient=False)
    return decode_with_pillow(data, header.format, header.orientation)


def _pixels(header: Header) -> str:
    return f"{header.width}×{header.height} = {header.width * header.height:,} pixels"


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a photo's file whole, its size checked first.

    Raises:
        PhotoError: missing, not a regular file, empty or too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _check_bytes(size, limits)
            data = file.read(size + 1)  # room for as many is made at once
            if len(data) > size:  # it has grown
                data += file.read(limits.bytes + 1 - size)
    except IsADirectoryError:
        raise PhotoError("not a photo", f"'{os.fspath(path)}' is a folder") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise PhotoError("not a photo", f"'{os.fspath(path)}' is not a regular file") from None
        raise PhotoError("missing", f"cannot open '{os.fspath(path)}': {error.strerror or error}") from None
    except MemoryError:
        raise PhotoError("too large", "there is not enough memory to read it") from None
    except ValueError as error:  # a NUL byte in the name
        raise PhotoError("missing", f"cannot open {os.fspath(path)!r}: {error}") from None
    _check_bytes(len(data), limits)
    return data


def _check_bytes(size: int, limits: Limits) -> None:
    if size == 0:
        raise PhotoError("empty", "the file has no bytes")
    if size > limits.bytes:
        raise PhotoError("too large", f"{size:,} bytes, the limit is {limits.bytes:,}")


def read_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read what the header says and hold it against the limits.

    Raises:
        PhotoError: not a photo, a header cut short, or more bytes or pixels than allowed.
    """
    _check_bytes(len(data), limits)
    format_ = picture_format(data[:SNIFFED])
    if format_ is None or not is_read(format_):
        raise PhotoError("not a photo", why_not_read(data[:LEADING]))
    header = _header(data, format_, limits)
    pixels = header.width * header.height
    allowed = limits.pixels if format_ == "JPEG" else min(limits.pixels, Image.MAX_IMAGE_PIXELS or limits.pixels)
    if pixels > allowed:
        raise PhotoError("too large", f"{_pixels(header)}, the limit is {allowed:,}")
    return header


def _header(data: bytes, format_: str, limits: Limits) -> Header:
    if format_ == "JPEG":
        return read_jpeg_header(data)
    if slow_container(data, format_):
        return header_apart(data, format_, limits)
    return read_pillow_header(data, format_)


def _reduced_size(header: Header, at_least: tuple[int, int] | None) -> tuple[int, int]:
    """The stored (height, width) after the largest reduction that leaves twice `at_least` on both sides."""
    if at_least is None:
        return header.height, header.width
    height, width = at_least if header.orientation < 5 else at_least[::-1]
    scale = next((s for s in SCALES if header.height >= 2 * height * s and header.width >= 2 * width * s), SCALES[-1])
    return -(-header.height // scale), -(-header.width // scale)
