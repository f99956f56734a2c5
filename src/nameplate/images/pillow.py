"""All formats but JPEG, through Pillow: header, pixels, and what Pillow does not check."""

from __future__ import annotations

import importlib
import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from nameplate.errors import PhotoError
from nameplate.images.formats import SAVE_AS
from nameplate.images.header import Header, new_upright, numbers, read_orientation, stripes

# JOINED PNG's chunks: the header, what is said of the orientation, and the picture's own chunks alone.
#
# JOINED Text and profiles may inflate to gigabytes, and Pillow refuses a photo for them; its pixels need none of them.


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that pixels depend on."""
MAX_CHUNKS = 100_000
"""Chunks of one file: 64 MiB in pieces of 4 KiB are a sixth of that."""
MANY = 1000
"""Chunks of picture data beyond which they are made one: Pillow takes its time over each."""
MAX_TEXT = 1 << 20
"""Bytes to which a text that may tell the orientation is inflated."""
XMP = b"XML:com.adobe.xmp"
RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
"""Where ImageMagick and others keep EXIF in PNG: hexadecimal in a text."""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the body of each whole chunk up to the end mark (PNG, third edition, 5.3).

    Raises:
        PhotoError: more than `MAX_CHUNKS`.
    """
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        kind = data[at + 4 : at + 8]
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise PhotoError("too slow", f"PNG: more than {MAX_CHUNKS:,} chunks")


def read_png_header(data: bytes) -> Header:
    """What the header of a PNG says; raises PhotoError."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[12:16] != b"IHDR" or len(data) < 33 or not (width and height):
        raise PhotoError("damaged" if b"IEND" in data else "truncated", "PNG: its header is damaged or cut short")
    exif, raw, xmp, icc = None, None, None, False
    for kind, start, end in chunks(data):
        if kind == b"eXIf" and exif is None:
            exif = data[start:end]
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(RAW_PROFILES, start) and raw is None:
            raw = _raw_profile(_text(kind, data[start:end]))
        elif kind == b"iTXt" and data.startswith(XMP, start) and xmp is None:
            xmp = _text(kind, data[start:end])
        icc = icc or kind == b"iCCP"
    return Header("PNG", width, height, read_orientation(exif or raw, xmp), icc)


def picture_alone(data: bytes) -> bytes:
    """The PNG without all that its pixels do not depend on, its picture data held against their check sums.

    Raises:
        PhotoError: a check sum is wrong.
    """
    view = memoryview(data)
    parts, pieces = [view[: len(SIGNATURE)]], 0
    bodies: list[memoryview] = []
    begin, ended = len(SIGNATURE), False
    for kind, start, end in chunks(data):
        if kind == b"IDAT":
            if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
                raise PhotoError("damaged", "PNG: the check sum of its picture data is wrong")
            bodies.append(view[start:end])
            pieces = pieces or len(parts)
        if kind in PICTURE:
            parts.append(view[start - 8 : end + 4])
        begin, ended = end + 4, kind == b"IEND"
    if len(bodies) > MANY:  # one behind the other, as the standard has them
        parts[pieces : pieces + len(bodies)] = _joined(bodies)
    return b"".join(parts if ended else [*parts, view[begin:]])


def _joined(bodies: list[memoryview]) -> list[memoryview]:
    """One IDAT chunk of many."""
    body = b"IDAT" + b"".join(bodies)
    length, check = (len(body) - 4).to_bytes(4, "big"), zlib.crc32(body).to_bytes(4, "big")
    return [memoryview(length), memoryview(body), memoryview(check)]


def _text(kind: bytes, body: bytes) -> bytes:
    """A text chunk's text, at most `MAX_TEXT` of it; nothing where it is damaged."""
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return rest[:MAX_TEXT]
    packed = True
    if kind == b"zTXt":
        rest = rest[1:]
    else:
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # a language and a translated keyword
    try:
        return zlib.decompressobj().decompress(rest, MAX_TEXT) if packed else rest[:MAX_TEXT]
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes | None:
    """EXIF in hexadecimal, behind its name and length."""
    found = re.match(rb"\s*\S+\s+\d+\s+([0-9a-fA-F\s]+)", text)
    digits = b"".join(found[1].split()) if found else b""
    return bytes.fromhex(digits[: len(digits) & ~1].decode("ascii")) or None


PLUGINS = {
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "HEIC": "pillow_heif",
}
"""Where each format's reader is; Pillow would import all of them to find one."""
TURNED = ("TIFF", "HEIC")
"""Formats whose readers turn the picture themselves."""
NEW_SUBFILE, BITS, PHOTOMETRIC, SUB_DIRECTORIES, DNG_VERSION = 254, 258, 262, 330, 50706
SENSOR = (32803, 34892)
"""Photometric interpretations of a sensor's raw samples."""
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")


def _open_with_pillow(data: bytes, format_: str) -> ImageFile.ImageFile:
    """A reader; not by `Image.open`, which warns of large pictures, whose pixels are counted here."""
    plugin = importlib.import_module(PLUGINS[format_])
    if format_ == "HEIC":
        plugin.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    factory, accept = Image.OPEN["HEIF" if format_ == "HEIC" else format_]
    if accept is not None and accept(data[:16]) is not True:
        raise SyntaxError("its header is damaged or cut short")
    return factory(io.BytesIO(data), "")


def read_pillow_header(data: bytes, format_: str) -> Header:
    """What the header of a file of this format says; raises PhotoError."""
    if format_ == "PNG":
        return read_png_header(data)
    if format_ == "TIFF":
        _refuse_raw(data)
    if format_ == "GIF" and len(data) >= 10:
        _refuse_bomb(*struct.unpack("<HH", data[6:10]))
    try:
        with _open_with_pillow(data, format_) as image:
            width, height = image.size
            icc, xmp = bool(image.info.get("icc_profile")), image.info.get("xmp")
            turn = 1 if format_ in TURNED else read_orientation(image.info.get("exif"), xmp)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PhotoError("too large", str(error)) from None
    except MemoryError:
        raise _no_memory(format_) from None
    except Exception as error:  # Pillow's readers raise all sorts on hostile bytes
        raise _pillow_error(error, data, format_) from None
    if width < 1 or height < 1:
        raise PhotoError("damaged", f"{format_}: it is {width}×{height} pixels")
    return Header(format_, width, height, turn, icc)


def decode_with_pillow(data: bytes, format_: str, orientation: int = 1) -> NDArray[np.uint8]:
    """RGB pixels, uint8 H×W×3, upright; raises PhotoError."""
    try:
        with _open_with_pillow(picture_alone(data) if format_ == "PNG" else data, format_) as image:
            image.load()
            upright, stored = new_upright(image.height, image.width, orientation)
            for rows in stripes(image.height, image.width):
                part = image if rows.stop - rows.start == image.height else _rows(image, rows)
                stored[rows] = to_rgb(part)
            return upright
    except PhotoError:
        raise
    except MemoryError:
        raise _no_memory(format_) from None
    except Exception as error:  # Pillow's readers raise all sorts on hostile bytes
        raise _pillow_error(error, data, format_) from None


def _rows(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, rows.stop))


def _refuse_bomb(width: int, height: int) -> None:
    """Before Pillow would warn of it."""
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise PhotoError(
            "too large", f"{width}×{height} = {width * height:,} pixels, the limit is {Image.MAX_IMAGE_PIXELS:,}"
        )


def _refuse_raw(data: bytes) -> None:
    """A camera's raw file is a TIFF whose first picture is a thumbnail, or the sensor's samples."""
    tags = dict(numbers(data))
    name = "DNG" if DNG_VERSION in tags else "camera raw"
    small = tags.get(NEW_SUBFILE, 0) & 1 and SUB_DIRECTORIES in tags
    if DNG_VERSION in tags or small or tags.get(PHOTOMETRIC) in SENSOR:
        raise PhotoError("not a photo", f"this is a {name} picture: {SAVE_AS}")
    if tags.get(PHOTOMETRIC) == 0 and tags.get(BITS) == 16:  # Pillow would show its negative
        raise PhotoError("not a photo", f"this is a TIFF of 16 bits whose 0 is white: {SAVE_AS}")


def _no_memory(format_: str) -> PhotoError:
    return PhotoError("too large", f"{format_}: there is not enough memory to decode it")


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
    if format_ == "TIFF":
        return int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big") + 2 > len(data)
    at = 0  # AVIF and HEIC: boxes, each with its size
    while (size := int.from_bytes(data[at : at + 4], "big")) > 0 and at < len(data):
        at += size
    return at > len(data)


def _pillow_error(error: Exception, data: bytes, format_: str) -> PhotoError:
    message = str(error) or type(error).__name__
    early = re.search(r"truncat|incomplete|[Uu]nexpected end|EOF|Truncated", message) or _ends_early(data, format_)
    return PhotoError("truncated" if early else "damaged", f"{format_}: {message}")


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A picture of any mode as RGB, uint8 H×W×3: transparency laid over white, 16-bit samples cut to their high byte.

    Raises:
        PhotoError: its samples are no colours.
    """
    if image.mode in DEEP:  # 16-bit grey: Pillow's own conversion would clip it
        samples = np.asarray(image)
        clear = image.info.get("transparency")
        grey = (samples >> 8).astype(np.uint8)
        if isinstance(clear, int):
            grey[samples == clear] = 255
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))
    if image.mode in ("I", "F"):
        raise PhotoError("not a photo", f"it has samples of 32 bits, which are no colours: {SAVE_AS}")
    if image.has_transparency_data:
        photo = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
