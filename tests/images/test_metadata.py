"""Copies of photos without metadata: the same pixels, and nothing that says where, when or by whom."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nameplate.images import isolated
from nameplate.images.decode import decode, read_header
from nameplate.images.metadata import without_metadata
from nameplate.types import Limits
from tests.images import torture

SECRET = b"51.5007 N, taken by Anna"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")


def telling(format_: str, orientation: int = 1) -> bytes:
    """A photo that says where it was taken, in every place that its format has for it."""
    noise = np.random.default_rng(5).integers(0, 255, (31, 47, 3), np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, SECRET.decode()
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 2.5)
    text = PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("Author", SECRET.decode())
    options: dict[str, dict[str, object]] = {
        "JPEG": {"exif": exif, "comment": SECRET, "xmp": SECRET, "icc_profile": SECRET},
        "PNG": {"exif": exif, "pnginfo": text},
        "WEBP": {"exif": exif, "xmp": SECRET, "lossless": True},
        "TIFF": {"exif": exif},
        "GIF": {"comment": SECRET},
        "BMP": {},
        "AVIF": {"exif": exif, "xmp": SECRET},
    }
    file = io.BytesIO()
    image.save(file, format_, **options[format_])
    return file.getvalue() + (SECRET if format_ in ("JPEG", "PNG") else b"")  # behind its end, too


@pytest.mark.parametrize("format_", FORMATS)
def test_a_copy_has_the_same_pixels_and_tells_nothing(format_: str) -> None:
    data = telling(format_)
    assert format_ == "BMP" or SECRET in data
    copy = without_metadata(data, read_header(data, Limits()), Limits())
    assert SECRET not in copy
    assert b"GPS" not in copy
    with Image.open(io.BytesIO(copy)) as image:
        assert not image.getexif().get_ifd(0x8825)
        assert "exif" not in image.info
    assert np.array_equal(decode(copy), decode(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_the_photo_stays_upright(format_: str, orientation: int) -> None:
    data = telling(format_, orientation)
    header = read_header(data, Limits())
    assert header.orientation == orientation
    copy = without_metadata(data, header, Limits())
    assert SECRET not in copy
    assert np.array_equal(decode(copy), decode(data))


@pytest.mark.parametrize("name", torture.sound())
def test_every_photo_that_is_read_has_a_copy(name: str) -> None:
    data = torture.sound()[name]
    copy = without_metadata(data, read_header(data, Limits()), Limits())
    assert np.array_equal(decode(copy), decode(data))
    again = without_metadata(copy, read_header(copy, Limits()), Limits())
    assert again == copy, "the same photo sent twice is stored once"


def test_a_photo_that_is_written_anew_is_decoded_in_another_process() -> None:
    isolated.end_all()
    isolated.idle.clear()
    data = telling("BMP")
    without_metadata(data, read_header(data, Limits()), Limits())
    assert len(isolated.idle) == 1
