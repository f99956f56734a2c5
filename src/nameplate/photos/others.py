"""All formats but JPEG, through Pillow: header, pixels, and what Pillow does not check."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.photos.header import Header, read_orientation


def _open_with_pillow(data: bytes, format_: str) -> Image.Image:
    if format_ in ("WEBP", "AVIF"):  # Pillow would import all its plugins to find these two
        __import__("PIL.WebPImagePlugin" if format_ == "WEBP" else "PIL.AvifImagePlugin")
    return Image.open(io.BytesIO(data), formats=(format_,))


def read_pillow_header(data: bytes, format_: str) -> Header:
    """What the header of a file of this Pillow format says; raises PhotoError."""
    try:
        with _open_with_pillow(data, format_) as image:
            exif = image.info.get("exif") or (_png_exif(data) if format_ == "PNG" else None)
            return Header(
                format_, *image.size, read_orientation(exif) if exif else 1, bool(image.info.get("icc_profile"))
            )
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too large", str(error)) from None
    except Exception as error:  # Pillow's readers raise all sorts on hostile bytes
        raise _pillow_error(error, data, format_) from None


def decode_with_pillow(data: bytes, format_: str) -> NDArray[np.uint8]:
    """RGB pixels, uint8 H×W×3, as stored; raises PhotoError."""
    if format_ == "PNG":
        _check_png(data)
    try:
        with _open_with_pillow(data, format_) as image:
            image.load()
            return np.asarray(to_rgb(image))
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


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency laid over white, 16-bit samples cut to their high byte."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it
        samples = np.asarray(image).astype(np.int64)
        grey = np.where(samples == image.info.get("transparency", -1), 255, samples >> 8)
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        photo = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
