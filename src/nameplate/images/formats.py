"""Image formats, recognised by the name of a file and by its first bytes, without decoding."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from nameplate.storage import open_regular

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif"}
    | {".heic", ".heif", ".hif", ".tif", ".tiff"}
    | {".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".psd"}
    | {".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"}
)
"""Suffixes of photos. Those of formats that are not read are among them, so that such a file is refused with a reason
instead of being passed over."""
SNIFFED = 64
"""Number of bytes at the start of a file that determine its format."""

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"BM", "BMP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
)
"""Formats that are read: (offset, bytes, name). HEIC is read only where its extra is installed."""
OTHER_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (8, b"CR\x02", "camera raw"),
    (4, b"ftypcrx", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (0, b"IIRS", "camera raw"),
    (0, b"MMOR", "camera raw"),
    (0, b"IIU\0", "camera raw"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"FOVb", "camera raw"),
)
"""Image formats that are not read: (offset, bytes, name)."""
OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"<", "a web page, XML or SVG"),
)
"""Files that are often taken for photos and are none: (first bytes after blanks, what it is)."""
SAVE_AS = "save it as JPEG or PNG"
"""Advice for an image of a format that is not read."""


def is_photo_name(name: str) -> bool:
    """Whether the suffix of a file's name is one of `PHOTO_SUFFIXES`."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122 - a million names


def image_format(start: bytes) -> str | None:
    r"""The image format of a file by its first bytes (at least `SNIFFED`, or all); None where it is no image.

    Formats that are not read are recognised too.

    >>> image_format(b"\xff\xd8\xff\xe0"), image_format(b"\0\0\0\x1cftypheic"), image_format(b"label")
    ('JPEG', 'HEIC', None)
    """
    if start.startswith(b"ftypmif1", 4) and b"avif" in start[16 : int.from_bytes(start[:4], "big")]:
        return "AVIF"  # says so only among its compatible brands
    return next((name for at, magic, name in (*OTHER_IMAGES, *MAGIC) if start.startswith(magic, at)), None)


def is_photo_file(path: str) -> bool:
    """Whether a file is a photo by its name or, failing that, by its first bytes; false where it cannot be opened."""
    if is_photo_name(path):
        return True
    try:
        with open_regular(path) as file:
            return image_format(file.read(SNIFFED)) is not None
    except (OSError, ValueError):
        return False


@cache
def reads_heic() -> bool:
    """Whether the extra `heic` is installed."""
    return find_spec("pillow_heif") is not None


def is_read(format_: str | None) -> bool:
    """Whether photos of a format (a name in `MAGIC`) are read on this installation."""
    return any(format_ == name for _, _, name in MAGIC) and (format_ != "HEIC" or reads_heic())


def why_not_read(start: bytes) -> str:
    """What a file that is not read is, by its first bytes (at least 256, or all), and what to do about it."""
    format_ = image_format(start)
    if format_ == "HEIC":
        return f"this is a HEIC photo: pip install 'nameplate[heic]' to have it read; {_read()}"
    if format_ is not None:
        return f"this is a {format_} picture: {SAVE_AS}; {_read()}"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    other = next((f"this is {name}; " for magic, name in OTHER_FILES if text.startswith(magic)), "")
    return other + _read()


def _read() -> str:
    return f"JPEG, MPO, PNG, WebP, AVIF, BMP, GIF{', HEIC' * reads_heic()} and TIFF are read"
