"""EXIF orientation, as Pillow and image viewers apply it."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from nameplate.images import decode, read_header
from nameplate.images.header import read_orientation
from tests.images.torture import ORIENTATION, chunk, encode, oriented, picture, segment

XMP = b"<x:xmpmeta><rdf:Description tiff:Orientation=%s/></x:xmpmeta>"
XMP_JPEG = b"http://ns.adobe.com/xap/1.0/\0"


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def jpeg(*segments: bytes) -> bytes:
    plain = encode(picture(), "JPEG")
    return plain[:2] + b"".join(segment(0xE1, body) for body in segments) + plain[2:]


def png(*chunks: bytes) -> bytes:
    plain = encode(picture(), "PNG")
    return plain[:33] + b"".join(chunks) + plain[33:]


def raw_profile(orientation: int, name: str = "exif") -> bytes:
    body = exif(orientation)
    digits = body.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{name}\n{len(body):8}\n{lines}\n".encode()


def said(data: bytes) -> int:
    assert np.array_equal(decode(data), pillow(data))
    return read_header(data).orientation


@pytest.mark.parametrize("first", [1, 3, 6])
@pytest.mark.parametrize("second", [1, 5, 8])
def test_the_first_of_two_exif_segments_counts(first: int, second: int) -> None:
    assert said(jpeg(exif(first), exif(second))) == first


@pytest.mark.parametrize("orientation", range(1, 9))
def test_xmp_is_used_where_exif_has_no_orientation(orientation: int) -> None:
    quoted = XMP % f'"{orientation}"'.encode()
    assert said(jpeg(XMP_JPEG + quoted)) == orientation
    element = b"<tiff:Orientation>%d</tiff:Orientation>" % orientation
    assert said(jpeg(XMP_JPEG + element)) == orientation
    assert said(png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + quoted))) == orientation
    assert said(encode(picture(), "WEBP", lossless=True, xmp=quoted)) == orientation


def test_exif_takes_precedence_over_xmp() -> None:
    quoted = XMP % b'"6"'
    assert said(jpeg(XMP_JPEG + quoted, exif(3))) == 3
    assert said(jpeg(exif(1), XMP_JPEG + quoted)) == 1
    assert said(png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + quoted), chunk(b"eXIf", exif(8)[6:]))) == 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_a_raw_profile_in_a_png_gives_the_orientation(orientation: int, kind: bytes) -> None:
    text = raw_profile(orientation)
    body = text if kind == b"tEXt" else b"\0" + zlib.compress(text)
    assert said(png(chunk(kind, b"Raw profile type exif\0" + body))) == orientation
    older = text.replace(b"exif", b"APP1")
    body = older if kind == b"tEXt" else b"\0" + zlib.compress(older)
    assert read_header(png(chunk(kind, b"Raw profile type APP1\0" + body))).orientation == orientation


def test_an_invalid_raw_profile_is_ignored() -> None:
    for text in (b"", b"\nexif\n", b"\nexif\n 8\nzz", b"\nexif\n 8\n123", b"\xff" * 40):
        assert read_header(png(chunk(b"tEXt", b"Raw profile type exif\0" + text))).orientation == 1
    assert read_header(png(chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"))).orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation: int) -> None:
    data = encode(picture(), "TIFF", tiffinfo={ORIENTATION: orientation})
    upright = decode(data)
    assert np.array_equal(upright, pillow(data))
    assert np.array_equal(upright, decode(oriented("PNG", orientation)))
    assert (read_header(data).height, read_header(data).width) == upright.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_photo_is_turned_once(orientation: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    image = picture()
    image.getexif()[ORIENTATION] = orientation
    data = encode(image, "HEIF")  # with the box that turns it, beside EXIF
    upright = decode(data)
    assert np.array_equal(upright, pillow(data))
    assert decode(oriented("HEIF", orientation)).shape == (
        47,
        61,
        3,
    )  # without it EXIF means nothing (ISO/IEC 23008-12)
    assert abs(upright.astype(int) - decode(oriented("PNG", orientation))).mean() < 8


def test_the_tag_is_found_whatever_its_number_s_type_and_byte_order() -> None:
    for order, head in (("little", b"II*\0"), ("big", b"MM\0*")):
        for kind, width in ((1, 1), (3, 2), (4, 4)):
            entry = b"".join(
                number.to_bytes(size, order)  # type: ignore[arg-type]
                for number, size in ((ORIENTATION, 2), (kind, 2), (1, 4), (6, width))
            )
            body = head + (8).to_bytes(4, order) + (1).to_bytes(2, order) + entry.ljust(12, b"\0")  # type: ignore[arg-type]
            assert read_orientation(body, None) == 6
            assert read_orientation(b"Exif\0\0" + body, None) == 6
            assert read_orientation(body[:-5], None) == 1


def test_a_directory_of_any_size_is_read_at_once() -> None:
    entry = b"\x01\x00\x00\x07\x03\xff\xff\0\0\0\0\x08"  # claims fifty megabytes each
    body = b"MM\0*\0\0\0\x08\xff\xff" + entry * (1 << 20)
    assert decode(png(chunk(b"eXIf", body))).shape == (47, 61, 3)
    assert decode(encode(picture(), "WEBP", exif=b"Exif\0\0" + body)).shape == (47, 61, 3)
