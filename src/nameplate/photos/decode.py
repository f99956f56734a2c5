"""`decode`: a path or bytes → RGB pixels, with every limit on hostile input.

JPEG pixels always come from libjpeg-turbo through simplejpeg, all other formats from Pillow: one decoder a
format, so nothing that is or is not installed changes an answer (docs/decisions/0002-one-decoder.md).
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError, Reason
from nameplate.types import Limits

Source = str | os.PathLike[str] | bytes
DEFAULT_LIMITS = Limits()

# What a file's first bytes say it is: (offset, bytes, format). The formats that Pillow is let open.
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"BM", "BMP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
)
# Formats that are often met and not read, so that the refusal can name them.
OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyphei", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"<", "a web page, XML or SVG"),
)
SCALES = (8, 4, 2, 1)
"""The reductions that libjpeg computes inside the inverse DCT (8 uses the DC coefficient alone)."""
QUICK_WORK = 250_000_000
"""Pixels × scans below which decoding ends in about a second or two and needs no watch."""
NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Where a JPEG scan's data ends: 0xFF, and then neither a stuffed zero, a restart marker nor a fill byte."""
OTHER_FORMATS_WORK = 8
"""What a pixel of the other formats costs at most, in scans of a JPEG (AVIF is the slowest)."""
ORIENTATION, EXIF_HEADER, ICC_HEADER = 0x0112, b"Exif\0\0", b"ICC_PROFILE\0"

T = TypeVar("T")


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
        pixels = _within(limits, header, scans, lambda: _decode_jpeg(data, height, width))
    else:
        pixels = _within(limits, header, OTHER_FORMATS_WORK, lambda: _decode_with_pillow(data, header.format))
    return _upright(pixels, header.orientation)


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a photo's file whole, its size checked first.

    Raises:
        PhotoError: missing, not a regular file, empty or too large.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError("not a photo", f"'{os.fspath(path)}' is not a regular file")
            _check_bytes(status.st_size, limits)
            data = file.read(limits.bytes + 1)
    except IsADirectoryError:
        raise PhotoError("not a photo", f"'{os.fspath(path)}' is a folder") from None
    except OSError as error:
        raise PhotoError("missing", f"cannot open '{os.fspath(path)}': {error.strerror or error}") from None
    except ValueError as error:  # a NUL byte in the name
        raise PhotoError("missing", f"cannot open {os.fspath(path)!r}: {error}") from None
    _check_bytes(len(data), limits)
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe must not hold us


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
    format_ = next((name for offset, magic, name in MAGIC if data.startswith(magic, offset)), None)
    if data.startswith(b"ftypmif1", 4) and b"avif" in data[16 : int.from_bytes(data[:4], "big")]:
        format_ = "AVIF"  # says so only among its compatible brands
    if format_ is None:
        start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
        other = next((name for at, magic, name in OTHERS if start.startswith(magic, at)), None)
        raise PhotoError(
            "not a photo",
            f"this is {other}; " * (other is not None) + "JPEG, PNG, WebP, AVIF, BMP, GIF and MPO are read",
        )
    header = _jpeg_header(data) if format_ == "JPEG" else _pillow_header(data, format_)
    pixels = header.width * header.height
    allowed = limits.pixels if format_ == "JPEG" else min(limits.pixels, Image.MAX_IMAGE_PIXELS or limits.pixels)
    if pixels > allowed:
        raise PhotoError("too large", f"{header.width}×{header.height} = {pixels:,} pixels, the limit is {allowed:,}")
    return header


# --- JPEG ---------------------------------------------------------------------------------------------


def _jpeg_header(data: bytes) -> Header:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _jpeg_error(data, str(error)) from None
    orientation, icc = 1, False
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xDA:
            break
        if marker == 0xE1 and data.startswith(EXIF_HEADER, start):
            orientation = _orientation(data[start:end])
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


def _reduced_size(header: Header, at_least: tuple[int, int] | None) -> tuple[int, int]:
    """The stored (height, width) after the largest reduction that leaves twice `at_least` on both sides."""
    if at_least is None:
        return header.height, header.width
    height, width = at_least if header.orientation < 5 else at_least[::-1]
    scale = next((s for s in SCALES if header.height >= 2 * height * s and header.width >= 2 * width * s), SCALES[-1])
    return -(-header.height // scale), -(-header.width // scale)


def _decode_jpeg(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
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
    if not found:
        return False
    end = data.rfind(b"\xff\xd9")
    return set(data[end - int(found[1]) : end]) <= {0x00} or set(data[end - int(found[1]) : end]) <= {0xFF}


def _jpeg_error(data: bytes, message: str) -> PhotoError:
    early = re.search(r"premature end|could not determine subsampling", message, re.IGNORECASE)
    ended = data.rstrip(b"\0").endswith(b"\xff\xd9") if early else b"\xff\xd9" in data
    reason: Reason = "damaged" if ended else "truncated"
    return PhotoError(reason, f"JPEG: {message}")


# --- other formats ------------------------------------------------------------------------------------


def _open_with_pillow(data: bytes, format_: str) -> Image.Image:
    if format_ in ("WEBP", "AVIF"):  # Pillow would import all its plugins to find these two
        __import__("PIL.WebPImagePlugin" if format_ == "WEBP" else "PIL.AvifImagePlugin")
    return Image.open(io.BytesIO(data), formats=(format_,))


def _pillow_header(data: bytes, format_: str) -> Header:
    try:
        with _open_with_pillow(data, format_) as image:
            exif = image.info.get("exif") or (_png_exif(data) if format_ == "PNG" else None)
            return Header(format_, *image.size, _orientation(exif) if exif else 1, bool(image.info.get("icc_profile")))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too large", str(error)) from None
    except Exception as error:  # Pillow's readers raise all sorts on hostile bytes
        raise _pillow_error(error, data, format_) from None


def _decode_with_pillow(data: bytes, format_: str) -> NDArray[np.uint8]:
    if format_ == "PNG":
        _check_png(data)
    try:
        with _open_with_pillow(data, format_) as image:
            image.load()
            return np.asarray(_to_rgb(image))
    except Exception as error:  # Pillow's readers raise all sorts on hostile bytes
        raise _pillow_error(error, data, format_) from None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each whole chunk (PNG, third edition, 5.3)."""
    at = 8
    while (end := at + 8 + int.from_bytes(data[at : at + 4], "big")) + 4 <= len(data):
        yield data[at + 4 : at + 8], at + 8, end
        at = end + 4


def _png_exif(data: bytes) -> bytes | None:
    """EXIF that stands behind the picture data, where Pillow sees it only after decoding."""
    return next((data[start:end] for kind, start, end in _png_chunks(data) if kind == b"eXIf"), None)


def _check_png(data: bytes) -> None:
    """Hold the picture data against its check sums, which Pillow leaves out."""
    view = memoryview(data)
    for kind, start, end in _png_chunks(data):
        if kind == b"IDAT" and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise PhotoError("damaged", "PNG: the check sum of its picture data is wrong")


def _ends_early(data: bytes, format_: str) -> bool:
    """Whether fewer bytes are there than the file itself announces."""
    if format_ == "WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if format_ == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    if format_ == "PNG":
        return b"IEND" not in data
    if format_ == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    at = 0  # AVIF: boxes, each with its size
    while (size := int.from_bytes(data[at : at + 4], "big")) > 0 and at < len(data):
        at += size
    return at > len(data)


def _pillow_error(error: Exception, data: bytes, format_: str) -> PhotoError:
    message = str(error) or type(error).__name__
    early = re.search(r"truncat|incomplete|unexpected end|EOF|Truncated", message) or _ends_early(data, format_)
    if message.startswith("cannot identify image file"):
        message = "its header is damaged or cut short"
    return PhotoError("truncated" if early else "damaged", f"{format_}: {message}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it
        samples = np.asarray(image).astype(np.int64)
        grey = np.where(samples == image.info.get("transparency", -1), 255, samples >> 8)
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        photo = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


# --- orientation and time -----------------------------------------------------------------------------


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


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
