"""`decode` turns a path or bytes into RGB pixels, and enforces every limit on hostile input.

JPEG is always decoded by libjpeg-turbo through simplejpeg, and every other format by Pillow. With one decoder for each
format, no installed package changes an answer (docs/decisions/0002-one-decoder.md). Photos that may take long are
decoded in a child process by the same functions (`images/isolated.py`).
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
from nameplate.images.formats import SNIFFED, image_format, is_read, why_not_read
from nameplate.images.header import Header
from nameplate.images.isolated import header_apart, pixels_apart
from nameplate.images.jpeg import decode_jpeg, jpeg_bytes, read_jpeg_header
from nameplate.images.jpeg_file import SlowTailError
from nameplate.images.pillow import decode_with_pillow, read_pillow_header
from nameplate.storage import open_regular
from nameplate.types import Limits

# The cost of decoding, estimated from the header: peak memory, and whether decoding may take long.

QUICK_WORK = 250_000_000
"""Pixels × scans below which decoding takes at most about two seconds and needs no time limit."""
SCAN_WORK = 20_000
"""Cost of a scan in addition to its pixels, expressed in pixels."""
OTHER_FORMATS_WORK = 8
"""Greatest cost of a pixel of the other formats, expressed in scans of a JPEG (AVIF is the slowest)."""
QUICK_BYTES = 256 * 1024
"""Size of a file, in bytes, up to which a reader written in Python is quick, whatever the file contains."""
BYTES_PER_PIXEL = {"PNG": 8, "BMP": 8, "GIF": 8, "WEBP": 20, "AVIF": 20, "TIFF": 16, "HEIC": 14}
"""Peak memory for each pixel, in bytes, including the decoded photo; measured on photos of 12 megapixels."""
MOST_PER_PIXEL = 15
"""Greatest peak memory for each pixel of a JPEG, in bytes: CMYK, with all coefficients."""
SMALL = 32 * 1024 * 1024
"""Peak memory, in bytes, up to which a photo is decoded without waiting for others."""
RLE = (1, 2)
"""BMP compressions that Pillow decodes in Python."""


def slow_container(data: bytes, format_: str) -> bool:
    """Whether reading a file of this format, even its header, may take long however small the image is.

    The libraries for TIFF and HEIC do much work for a header, and libtiff writes to stderr. Pillow reads the blocks of
    GIF and the run lengths of BMP in Python, and also EXIF where it rewrites it, as in AVIF.
    """
    if format_ in ("TIFF", "HEIC"):
        return True
    if format_ == "AVIF":
        return b"Exif" in data
    if len(data) <= QUICK_BYTES:
        return False
    return format_ == "GIF" or (format_ == "BMP" and int.from_bytes(data[30:34], "little") in RLE)


def is_slow(data: bytes, header: Header) -> bool:
    """Whether decoding may take more than about two seconds."""
    pixels = header.width * header.height
    if header.format == "JPEG":
        # The bytes FF DA may occur outside of scan headers as well; then the cost is overestimated.
        return max(1, data.count(b"\xff\xda")) * (pixels + SCAN_WORK) > QUICK_WORK
    return pixels * OTHER_FORMATS_WORK > QUICK_WORK or slow_container(data, header.format)


def may_take_long(data: bytes, limits: Limits) -> bool:
    """Whether reading a photo may take more than about two seconds. No pixel is decoded to find out."""
    format_ = image_format(data[:SNIFFED])
    if format_ is None or not is_read(format_):
        return False
    if slow_container(data, format_):  # even its header
        return True
    try:
        return is_slow(data, read_header(data, limits))
    except PhotoError:
        return False


def peak_bytes(data: bytes, header: Header, size: tuple[int, int]) -> int:
    """Estimate the peak memory of decoding, in bytes, including copies of the file.

    Args:
        data: the file.
        header: its header.
        size: the (height, width) at which a JPEG is decoded.
    """
    if header.format != "JPEG":
        return BYTES_PER_PIXEL[header.format] * header.width * header.height + 2 * len(data)
    if MOST_PER_PIXEL * header.width * header.height <= SMALL:
        return SMALL
    return jpeg_bytes(data, *size, header.orientation)


class MemoryBudget:
    """The memory for photos that are decoded at the same time."""

    def __init__(self) -> None:
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int, total: int) -> Iterator[None]:
        """Hold `amount` bytes, and wait until they fit into `total` beside what other threads hold."""
        if amount <= SMALL:
            yield
            return
        with self._changed:
            # One photo alone is always let in, so that nothing waits for ever.
            self._changed.wait_for(lambda: self._used == 0 or self._used + amount <= total)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


DEFAULT_LIMITS = Limits()
SCALES = (8, 4, 2, 1)
"""Reductions that libjpeg computes inside the inverse DCT (8 uses the DC coefficient alone)."""
LEADING = 256
"""Number of bytes from which the kind of a file that is no photo is determined."""

_memory = MemoryBudget()


def decode(
    source: str | os.PathLike[str] | bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    at_least: tuple[int, int] | None = None,
    apart: bool = False,
) -> NDArray[np.uint8]:
    """Read a photo.

    The EXIF orientation is applied (or that of XMP where EXIF has none). Transparent pixels are blended with white,
    16-bit samples keep their high byte, and grey, palette and CMYK become RGB. Of an animation or of several pages the
    first image is taken. An ICC profile is not applied (`read_header` says whether there is one).

    Args:
        source: a path, or the bytes of a file.
        limits: what the photo may cost. Size, pixels and memory are checked before any pixel is decoded.
        at_least: (height, width) of the model input. A JPEG is then decoded at the smallest of the scales 1/8, 1/4, 1/2
            and 1 at which no side is below twice that. None decodes at full size.
        apart: decode it in a child process in any case, also if it is quick.

    Returns:
        uint8 H×W×3, RGB, upright.

    Raises:
        PhotoError: the photo cannot be read. Of a damaged photo nothing is ever returned.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    return decode_with_header(data, read_header(data, limits), limits, at_least, apart=apart)


def decode_with_header(
    data: bytes,
    header: Header,
    limits: Limits = DEFAULT_LIMITS,
    at_least: tuple[int, int] | None = None,
    *,
    apart: bool = False,
) -> NDArray[np.uint8]:
    """Decode bytes whose header `read_header` has read and checked already; see `decode`."""
    size = _reduced_size(header, at_least) if header.format == "JPEG" else (header.height, header.width)
    memory = peak_bytes(data, header, size)
    if memory > limits.memory:
        raise PhotoError("too large", f"{_pixels(header)} take about {memory:,} bytes, the limit is {limits.memory:,}")
    try:
        with _memory.taken(memory, limits.memory):
            # `SlowTailError` shows only during decoding that the check of the tail would take long; then the photo is
            # decoded apart.
            if not apart and not is_slow(data, header):
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
    """Read the whole file of a photo after checking its size.

    Raises:
        PhotoError: the file is missing, not a regular file, empty or too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _check_bytes(size, limits)
            data = file.read(size + 1)  # One byte more, to notice that the file has grown.
            if len(data) > size:
                data += file.read(limits.bytes + 1 - size)
    except IsADirectoryError:
        raise PhotoError("not a photo", f"'{os.fspath(path)}' is a folder") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise PhotoError("not a photo", f"'{os.fspath(path)}' is not a regular file") from None
        raise PhotoError("missing", f"cannot open '{os.fspath(path)}': {error.strerror or error}") from None
    except MemoryError:
        raise PhotoError("too large", "there is not enough memory to read it") from None
    except ValueError as error:  # The name contains a NUL byte.
        raise PhotoError("missing", f"cannot open {os.fspath(path)!r}: {error}") from None
    _check_bytes(len(data), limits)
    return data


def _check_bytes(size: int, limits: Limits) -> None:
    if size == 0:
        raise PhotoError("empty", "the file has no bytes")
    if size > limits.bytes:
        raise PhotoError("too large", f"{size:,} bytes, the limit is {limits.bytes:,}")


def read_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Read the header of a photo and check it against the limits.

    Raises:
        PhotoError: the bytes are no photo, the header is cut short, or there are more bytes or pixels than allowed.
    """
    _check_bytes(len(data), limits)
    format_ = image_format(data[:SNIFFED])
    if format_ is None or not is_read(format_):
        raise PhotoError("not a photo", why_not_read(data[:LEADING]))
    header = _header(data, format_, limits)
    pixels = header.width * header.height
    # Pillow has a limit of its own, which it would report as a warning or an error of another kind.
    allowed = _most_pixels(format_, limits)
    if pixels > allowed:
        raise PhotoError("too large", f"{_pixels(header)}, the limit is {allowed:,}")
    return header


def _most_pixels(format_: str, limits: Limits) -> int:
    return limits.pixels if format_ == "JPEG" else min(limits.pixels, Image.MAX_IMAGE_PIXELS or limits.pixels)


def pixel_limits(limits: Limits) -> dict[str, int]:
    """Format → the pixels up to which its photos are read, however large the file; of a JPEG with many scans fewer."""
    room = limits.memory - 2 * limits.bytes  # see `peak_bytes`
    others = {name: min(_most_pixels(name, limits), room // each) for name, each in BYTES_PER_PIXEL.items()}
    return {"JPEG": limits.pixels} | {name: pixels for name, pixels in others.items() if is_read(name)}


def _header(data: bytes, format_: str, limits: Limits) -> Header:
    if format_ == "JPEG":
        return read_jpeg_header(data)
    if slow_container(data, format_):
        return header_apart(data, format_, limits)
    return read_pillow_header(data, format_)


def _reduced_size(header: Header, at_least: tuple[int, int] | None) -> tuple[int, int]:
    """The stored (height, width) after the greatest reduction that leaves at least twice `at_least` on both sides."""
    if at_least is None:
        return header.height, header.width
    height, width = at_least if header.orientation < 5 else at_least[::-1]
    scale = next((s for s in SCALES if header.height >= 2 * height * s and header.width >= 2 * width * s), SCALES[-1])
    return -(-header.height // scale), -(-header.width // scale)
