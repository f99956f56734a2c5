"""All formats but JPEG, decoded by Pillow: their headers, their pixels, and checks that Pillow does not make.

Of a PNG, Pillow is given only the chunks that the pixels depend on. Text chunks and profiles may inflate to gigabytes,
and Pillow refuses a photo because of them, although its pixels need none of them.
"""

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

# PNG chunks: the header, the orientation, and the chunks that the pixels depend on.

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Types of the chunks that pixels depend on."""
MAX_CHUNKS = 100_000
"""Limit on the chunks of one file. A file of 64 MiB in pieces of 4 KiB has a sixth of that."""
MANY = 1000
"""Above this number the IDAT chunks are joined into one, because Pillow is slow with each of them."""
MAX_TEXT = 1 << 20
"""Limit on the inflated bytes of a text chunk that may hold the orientation."""
XMP = b"XML:com.adobe.xmp"
RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
"""Keywords of the text chunks in which ImageMagick and others store EXIF as hexadecimal digits."""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of the body of each complete chunk up to IEND (PNG, third edition, 5.3).

    Raises:
        PhotoError: there are more than `MAX_CHUNKS`.
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
    """Read the header of a PNG.

    Raises:
        PhotoError: the header is damaged or cut short.
    """
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


def pixel_chunks_only(data: bytes) -> bytes:
    """Remove every chunk that the pixels do not depend on, and verify the CRC-32 of the IDAT chunks.

    Raises:
        PhotoError: a CRC-32 is wrong.
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
    if len(bodies) > MANY:  # The standard requires them to be consecutive.
        parts[pieces : pieces + len(bodies)] = _joined(bodies)
    return b"".join(parts if ended else [*parts, view[begin:]])


def _joined(bodies: list[memoryview]) -> list[memoryview]:
    """One IDAT chunk, as its length, body and CRC-32, that holds the bodies of many."""
    body = b"IDAT" + b"".join(bodies)
    length, check = (len(body) - 4).to_bytes(4, "big"), zlib.crc32(body).to_bytes(4, "big")
    return [memoryview(length), memoryview(body), memoryview(check)]


def _text(kind: bytes, body: bytes) -> bytes:
    """The text of a text chunk, at most `MAX_TEXT` bytes; empty where it is damaged."""
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return rest[:MAX_TEXT]
    packed = True
    if kind == b"zTXt":
        rest = rest[1:]
    else:
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # Skip the language and the translated keyword.
    try:
        # `max_length` bounds what a compressed text can inflate to.
        return zlib.decompressobj().decompress(rest, MAX_TEXT) if packed else rest[:MAX_TEXT]
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes | None:
    """Decode EXIF from hexadecimal digits, which follow a name and a length."""
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
"""Module of each format's reader. `Image.open` would import all of them to find one."""
TURNED = ("TIFF", "HEIC")
"""Formats whose readers apply the orientation themselves."""
NEW_SUBFILE, BITS, PHOTOMETRIC, SUB_DIRECTORIES, DNG_VERSION = 254, 258, 262, 330, 50706
SENSOR = (32803, 34892)
"""Photometric interpretations of raw sensor samples."""
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")


def _open_with_pillow(data: bytes, format_: str) -> ImageFile.ImageFile:
    """Open a photo without `Image.open`, which warns about large images; here the limits on pixels are checked
    already.
    """
    plugin = importlib.import_module(PLUGINS[format_])
    if format_ == "HEIC":
        plugin.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    # `accept` checks the signature, as `Image.open` would.
    factory, accept = Image.OPEN["HEIF" if format_ == "HEIC" else format_]
    if accept is not None and accept(data[:16]) is not True:
        raise SyntaxError("its header is damaged or cut short")
    return factory(io.BytesIO(data), "")


def read_pillow_header(data: bytes, format_: str) -> Header:
    """Read the header of a file of one of the formats in `PLUGINS`.

    Raises:
        PhotoError: the header cannot be read, or states more pixels than Pillow allows.
    """
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
    """Decode to RGB pixels, uint8 H×W×3, upright.

    Raises:
        PhotoError: the photo is damaged, cut short or too large.
    """
    try:
        with _open_with_pillow(pixel_chunks_only(data) if format_ == "PNG" else data, format_) as image:
            image.load()
            upright, stored = new_upright(image.height, image.width, orientation)
            # Converted in stripes, so that the photo is not in memory a second time in another mode.
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
    """Check the size of a GIF before Pillow sees it, which would only warn."""
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise PhotoError(
            "too large", f"{width}×{height} = {width * height:,} pixels, the limit is {Image.MAX_IMAGE_PIXELS:,}"
        )


def _refuse_raw(data: bytes) -> None:
    """Refuse camera raw files: TIFFs whose first image is a thumbnail or holds the samples of the sensor."""
    tags = dict(numbers(data))
    name = "DNG" if DNG_VERSION in tags else "camera raw"
    small = tags.get(NEW_SUBFILE, 0) & 1 and SUB_DIRECTORIES in tags
    if DNG_VERSION in tags or small or tags.get(PHOTOMETRIC) in SENSOR:
        raise PhotoError("not a photo", f"this is a {name} picture: {SAVE_AS}")
    if tags.get(PHOTOMETRIC) == 0 and tags.get(BITS) == 16:  # Pillow would return its negative.
        raise PhotoError("not a photo", f"this is a TIFF of 16 bits whose 0 is white: {SAVE_AS}")


def _no_memory(format_: str) -> PhotoError:
    return PhotoError("too large", f"{format_}: there is not enough memory to decode it")


def _ends_early(data: bytes, format_: str) -> bool:
    """Whether the file has fewer bytes than it states itself."""
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
    at = 0  # AVIF and HEIC consist of boxes, each of which states its size.
    while (size := int.from_bytes(data[at : at + 4], "big")) > 0 and at < len(data):
        at += size
    return at > len(data)


def _pillow_error(error: Exception, data: bytes, format_: str) -> PhotoError:
    message = str(error) or type(error).__name__
    early = re.search(r"truncat|incomplete|[Uu]nexpected end|EOF|Truncated", message) or _ends_early(data, format_)
    return PhotoError("truncated" if early else "damaged", f"{format_}: {message}")


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to RGB, uint8 H×W×3.

    Transparent pixels are blended with white; of 16-bit samples the high byte is kept.

    Raises:
        PhotoError: the samples have 32 bits and are not colours.
    """
    if image.mode in DEEP:  # Pillow's own conversion of 16-bit grey clips at 255 instead of scaling.
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
