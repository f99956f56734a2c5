"""All formats but JPEG, through Pillow: header, pixels, and what Pillow does not check."""

from __future__ import annotations

import importlib
import io
import re
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from nameplate.errors import PhotoError
from nameplate.photos.formats import SAVE_AS
from nameplate.photos.header import Header, numbers, read_orientation
from nameplate.photos.png import picture_alone, read_png_header
from nameplate.photos.stripes import new_upright, stripes

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
