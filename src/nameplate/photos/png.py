"""PNG's chunks: the header, what is said of the orientation, and the picture's own chunks alone.

Text and profiles may inflate to gigabytes, and Pillow refuses a photo for them; its pixels need none of them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from nameplate.errors import PhotoError
from nameplate.photos.header import Header, read_orientation

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
