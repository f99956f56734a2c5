"""`decode`: a path or bytes → RGB pixels, with every limit on hostile input.

JPEG pixels always come from libjpeg-turbo through simplejpeg, all other formats from Pillow: one decoder a
format, so nothing that is or is not installed changes an answer (docs/decisions/0002-one-decoder.md).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.photos.formats import MAGIC, SNIFFED, picture_format
from nameplate.photos.header import Header
from nameplate.photos.jpeg import decode_jpeg, read_jpeg_header
from nameplate.photos.others import decode_with_pillow, read_pillow_header
from nameplate.storage import open_regular
from nameplate.types import Limits

Source = str | os.PathLike[str] | bytes
DEFAULT_LIMITS = Limits()

# Files that are often met and are no pictures, so that the refusal can name them.
OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"<", "a web page, XML or SVG"),
)
READ = frozenset(name for _, _, name in MAGIC)
"""Formats that are read."""
SCALES = (8, 4, 2, 1)
"""The reductions that libjpeg computes inside the inverse DCT (8 uses the DC coefficient alone)."""
QUICK_WORK = 250_000_000
"""Pixels × scans below which decoding ends in about a second or two and needs no watch."""
OTHER_FORMATS_WORK = 8
"""What a pixel of the other formats costs at most, in scans of a JPEG (AVIF is the slowest)."""

T = TypeVar("T")


def decode(
    source: Source, *, limits: Limits = DEFAULT_LIMITS, at_least: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Read a photo.

    EXIF orientation is applied, transparency is laid over white, 16-bit samples keep their high byte,
    grey, palette and CMYK become RGB, and of an animation the first picture is taken. An ICC profile is
    not applied (`read_header` says whether there is one).

    Args:
        source: a path, or the file's bytes.
        limits: what the photo may cost; size and pixels are checked before any pixel is decoded.
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
    if header.format == "JPEG":
        scans = max(1, data.count(b"\xff\xda"))
        height, width = _reduced_size(header, at_least)
        pixels = _within(limits, header, scans, lambda: decode_jpeg(data, height, width))
    else:
        pixels = _within(limits, header, OTHER_FORMATS_WORK, lambda: decode_with_pillow(data, header.format))
    return _upright(pixels, header.orientation)


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a photo's file whole, its size checked first.

    Raises:
        PhotoError: missing, not a regular file, empty or too large.
    """
    try:
        with open_regular(path) as file:
            _check_bytes(os.fstat(file.fileno()).st_size, limits)
            data = file.read(limits.bytes + 1)
    except IsADirectoryError:
        raise PhotoError("not a photo", f"'{os.fspath(path)}' is a folder") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise PhotoError("not a photo", f"'{os.fspath(path)}' is not a regular file") from None
        raise PhotoError("missing", f"cannot open '{os.fspath(path)}': {error.strerror or error}") from None
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
    if format_ not in READ:
        start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
        other = next((name for at, magic, name in OTHERS if start.startswith(magic, at)), None)
        other = f"a {format_} photo" if format_ else other
        raise PhotoError(
            "not a photo",
            f"this is {other}; " * (other is not None) + "JPEG, PNG, WebP, AVIF, BMP, GIF and MPO are read",
        )
    header = read_jpeg_header(data) if format_ == "JPEG" else read_pillow_header(data, format_)
    pixels = header.width * header.height
    allowed = limits.pixels if format_ == "JPEG" else min(limits.pixels, Image.MAX_IMAGE_PIXELS or limits.pixels)
    if pixels > allowed:
        raise PhotoError("too large", f"{header.width}×{header.height} = {pixels:,} pixels, the limit is {allowed:,}")
    return header


def _reduced_size(header: Header, at_least: tuple[int, int] | None) -> tuple[int, int]:
    """The stored (height, width) after the largest reduction that leaves twice `at_least` on both sides."""
    if at_least is None:
        return header.height, header.width
    height, width = at_least if header.orientation < 5 else at_least[::-1]
    scale = next((s for s in SCALES if header.height >= 2 * height * s and header.width >= 2 * width * s), SCALES[-1])
    return -(-header.height // scale), -(-header.width // scale)


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation (CIPA DC-008, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _within(limits: Limits, header: Header, scans: int, work: Callable[[], T]) -> T:
    """Run `work`, giving up after `limits.seconds` where the header promises much of it.

    A C decoder cannot be interrupted: past the limit its thread is left to end by itself.
    """
    if header.width * header.height * scans <= QUICK_WORK:
        return work()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # carried over to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=run, name="nameplate-decode", daemon=True)
    thread.start()
    thread.join(limits.seconds)
    if not outcome:
        raise PhotoError("too slow", f"not decoded within {limits.seconds:g} s ({scans} scans)")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
