"""Photos without what they say beside their pixels: place, time, camera, preview, comments.

Phones write where a photo was taken into it. `without_metadata` copies a file without that; its pixels, as `decode`
gives them, are the same to the last bit.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from nameplate.images.decode import decode, read_header
from nameplate.images.header import Header
from nameplate.images.jpeg_file import rewritten
from nameplate.types import Limits

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"})
WEBP_DROPPED = frozenset({b"EXIF", b"XMP "})
WEBP_EXIF, WEBP_XMP = 0x08, 0x04
"""Flags of the chunk VP8X (RFC 9649, section 2.7)."""


def without_metadata(data: bytes, header: Header, limits: Limits) -> bytes:
    """Copy a photo without its metadata; of these only the orientation stays, which its pixels need.

    JPEG, PNG and WebP files are copied part by part. Photos in other formats, and JPEGs whose parts cannot be told
    apart, become PNG files; a child process decodes them.

    Args:
        data: the file.
        header: what `read_header` says of it.
        limits: for decoding, where the photo must be written anew.

    Raises:
        PhotoError: the photo cannot be decoded.
    """
    copy = data
    if header.format == "JPEG":
        image = rewritten(data)
        if image is not data:
            copy = image[:2] + _jpeg_orientation(header.orientation) + image[2:]
    elif header.format == "PNG":
        copy = b"".join([PNG_START, *_png_chunks(data, header.orientation)])
    elif header.format == "WEBP":
        copy = _webp(data, header.orientation)
    if copy is data or not _is_same_photo(copy, header, limits):
        file = io.BytesIO()
        Image.fromarray(decode(data, limits=limits, apart=True)).save(file, "PNG")
        copy = file.getvalue()
    return copy


def _is_same_photo(copy: bytes, header: Header, limits: Limits) -> bool:
    found = read_header(copy, limits)
    return (found.width, found.height, found.orientation) == (header.width, header.height, header.orientation)


def _exif(orientation: int) -> bytes:
    """A TIFF structure that holds the orientation alone (CIPA DC-008, section 4.6)."""
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def _jpeg_orientation(orientation: int) -> bytes:
    if orientation == 1:
        return b""
    body = b"Exif\x00\x00" + _exif(orientation)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _png_chunks(data: bytes, orientation: int) -> Iterator[bytes]:
    at = len(PNG_START)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind in PNG_KEPT:
            yield data[at:end]
        if kind == b"IHDR" and orientation != 1:
            body = b"eXIf" + _exif(orientation)
            yield struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        if kind == b"IEND":  # what follows is no part of the photo
            return
        at = end


def _webp(data: bytes, orientation: int) -> bytes:
    parts = []
    at, last = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= last:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        kind, body = data[at : at + 4], bytearray(data[at:end])
        if kind == b"VP8X":
            body[8] &= ~(WEBP_EXIF | WEBP_XMP)
            body[8] |= WEBP_EXIF if orientation != 1 else 0
        if kind not in WEBP_DROPPED:
            parts.append(bytes(body))
        at = end
    if orientation != 1:
        exif = _exif(orientation)
        parts.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    whole = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(whole)) + whole
