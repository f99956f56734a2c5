"""Picture formats: what a file's name and its first bytes say that it is, without decoding."""

from __future__ import annotations

import os

from nameplate.storage import open_regular

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif"}
    | {".heic", ".heif", ".hif", ".tif", ".tiff", ".jxl"}
)
"""Suffixes of photos, those of formats that are refused by name too: a refusal is better than silence."""
SNIFFED = 64
"""Bytes at the start of a file that tell its format."""

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
"""Formats that are read: (offset, bytes, Pillow's name)."""
OTHER_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
)
"""Pictures all the same: (offset, bytes, name)."""


def is_photo_name(name: str) -> bool:
    """Whether a file's name ends as a photo's does."""
    return os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES  # noqa: PTH122 - a million names


def picture_format(start: bytes) -> str | None:
    r"""The picture format that a file's first bytes (at least `SNIFFED`, or all) say that it is, also of one that is
    not read; None where they are of no picture.

    >>> picture_format(b"\xff\xd8\xff\xe0"), picture_format(b"\0\0\0\x1cftypheic"), picture_format(b"label")
    ('JPEG', 'HEIC', None)
    """
    if start.startswith(b"ftypmif1", 4) and b"avif" in start[16 : int.from_bytes(start[:4], "big")]:
        return "AVIF"  # says so only among its compatible brands
    return next((name for at, magic, name in (*MAGIC, *OTHER_PICTURES) if start.startswith(magic, at)), None)


def is_photo_file(path: str) -> bool:
    """Whether a file is a photo by its name, or else by its first bytes; false where it cannot be opened."""
    if is_photo_name(path):
        return True
    try:
        with open_regular(path) as file:
            return picture_format(file.read(SNIFFED)) is not None
    except (OSError, ValueError):
        return False
