"""JPEGs and PNGs that every viewer shows completely are read; those that lost pixels are refused."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images import decode, read_header
from nameplate.images.jpeg_file import SOS, SlowTailError, is_stray, scan_end, segments
from tests.images import torture
from tests.images.torture import chunk, encode, picture, png, segment

SOUND = torture.sound()
KINDS = ("baseline.jpg", "progressive.jpg", "grey.jpg", "444.jpg", "422.jpg", "restart.jpg", "cmyk.jpg")
ICC = b"ICC_PROFILE\0"
TRAILER = b"\0\0\x01\nImage_UTC_Data1700000000000SEFT\x05"


def behind_scan(data: bytes) -> int:
    """Where the first scan's data end."""
    return next(scan_end(data, end) for marker, _, end in segments(data) if marker == SOS)


def before(data: bytes, marker: int) -> int:
    """Where the first such segment begins."""
    return next(start - 4 for found, start, _ in segments(data) if found == marker)


def without_spectrum(data: bytes) -> bytes:
    """Ss, Se, Ah and Al all 0, as Samsung's cameras have them."""
    start = before(data, SOS) + 4
    at = start + 1 + 2 * data[start]
    return data[:at] + bytes(3) + data[at + 3 :]


CHANGES = {
    "stray bytes before the end mark": lambda data: data[:-2] + b"\x17abcd" * 15 + data[-2:],
    "one stray byte before the end mark": lambda data: data[:-2] + b"\x17" + data[-2:],
    "many stray bytes before the end mark": lambda data: data[:-2] + random.Random(5).randbytes(5000).replace(
        b"\xff", b"\xfe"
    ) + data[-2:],
    "many zeros before the end mark": lambda data: data[:-2] + bytes(5000) + data[-2:],
    "a marker without its first half": lambda data: data[: before(data, 0xDB)]
    + b"\0\xe1\0\x10Exif"
    + data[before(data, 0xDB) :],
    "an empty APP1 segment": lambda data: data[:2] + b"\xff\xe1\0\x02" + data[2:],
    "stray bytes between segments": lambda data: data[: before(data, 0xDB)] + b"stray\0" + data[before(data, 0xDB) :],
    "stray bytes before the scan": lambda data: data[: before(data, SOS)] + b"stray\0" + data[before(data, SOS) :],
    "fill bytes": lambda data: data[: before(data, SOS)] + b"\xff" * 9000 + data[before(data, SOS) :],
    "no end mark": lambda data: data[:-2],
    "no end mark, and a trailer": lambda data: data[:-2] + TRAILER,
    "a trailer": lambda data: data + TRAILER,
    "one of two parts of a profile": lambda data: data[:2] + segment(0xE2, ICC + b"\x01\x02abc") + data[2:],
    "a profile behind the frame header": lambda data: data[: before(data, SOS)]
    + segment(0xE2, ICC + b"\x01\x01abc")
    + data[before(data, SOS) :],
    "a part of a profile behind the frame header": lambda data: data[: before(data, SOS)]
    + segment(0xE2, ICC + b"\x02\x03abc")
    + data[before(data, SOS) :],
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_bytes_outside_the_image_are_no_damage(name: str, change: str) -> None:
    data = SOUND[name]
    changed = CHANGES[change](data)
    assert changed != data
    if (name, change) == ("progressive.jpg", "many zeros before the end mark"):
        with pytest.raises(PhotoError):  # as well a hole in its last scan
            decode(changed)
        return
    assert np.array_equal(decode(changed), decode(data))
    assert np.array_equal(decode(changed, at_least=(4, 4)), decode(data, at_least=(4, 4)))
    assert read_header(changed).width == 61


@pytest.mark.parametrize("name", [name for name in KINDS if name != "progressive.jpg"])
def test_a_scan_header_that_cameras_leave_at_zero_is_no_damage(name: str) -> None:
    changed = without_spectrum(SOUND[name])
    with pytest.raises(ValueError, match="SOS"):
        simplejpeg.decode_jpeg(changed, colorspace="CMYK" if name == "cmyk.jpg" else "RGB")
    assert np.array_equal(decode(changed), decode(SOUND[name]))


def test_several_harmless_oddities_at_once_are_no_damage() -> None:
    data = SOUND["baseline.jpg"]
    changed = without_spectrum(CHANGES["stray bytes between segments"](CHANGES["a trailer"](data)))
    changed = changed[: behind_scan(changed)] + b"\x17 odd" + changed[behind_scan(changed) :]
    assert np.array_equal(decode(changed), decode(data))


def damaged(data: bytes, kind: str, draw: random.Random) -> bytes:
    """A JPEG whose scan's data were changed somewhere."""
    start = next(end for marker, _, end in segments(data) if marker == SOS)
    at = draw.randrange(start, behind_scan(data) - 8)
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == "insert":
        return data[:at] + draw.randbytes(draw.randrange(1, 9)) + data[at:]
    if kind == "cut":
        return data[:at] + data[at + draw.randrange(1, 9) :]
    return data[:at] + bytes(40) + data[at + 40 :]


@pytest.mark.parametrize("name", ["colour", "grey", "restart"])
@pytest.mark.parametrize("kind", ["flip", "insert", "cut", "zeros"])
def test_damage_in_a_scan_that_libjpeg_complains_of_is_refused(name: str, kind: str) -> None:
    image = picture(240, 320)
    data = encode(image.convert("L") if name == "grey" else image, "JPEG", restart_marker_rows=4 * (name == "restart"))
    draw = random.Random(f"{name} {kind}")
    refused = 0
    for _ in range(60):
        changed = damaged(data, kind, draw)
        try:
            pixels = simplejpeg.decode_jpeg(changed)
        except ValueError:
            refused += 1
            with pytest.raises(PhotoError):
                decode(changed)
        else:
            assert np.array_equal(decode(changed), pixels)
    assert refused > 3


@pytest.mark.parametrize("name", ["baseline.jpg", "grey.jpg", "progressive.jpg", "restart.jpg"])
def test_a_photo_whose_rest_is_zeros_is_refused(name: str) -> None:
    data = SOUND[name]
    start = next(end for marker, _, end in segments(data) if marker == SOS)
    for end in range(start + 5, len(data) - 20, 41):
        with pytest.raises(PhotoError):
            decode(data[:end] + bytes(len(data) - end))
        with pytest.raises(PhotoError):
            decode(data[:end] + bytes(5000))


def test_a_missing_huffman_table_is_damage_though_libjpeg_has_a_default() -> None:
    data = encode(picture(), "JPEG", optimize=True)
    at = before(data, 0xC4)
    with pytest.raises(PhotoError, match="damaged"):
        decode(data[:at] + b"\0" + data[at + 1 :])


def test_a_large_photo_with_stray_bytes_is_checked_in_another_process() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 1000, 3), dtype=np.uint8))
    data = encode(noise, "JPEG", quality=85)
    changed = data[:-2] + b"\x17abc" * 15 + data[-2:]
    with pytest.raises(SlowTailError):
        is_stray(changed, patient=False)
    assert np.array_equal(decode(changed), decode(data))


def test_the_tail_of_no_jpeg_is_not_stray() -> None:
    data = SOUND["baseline.jpg"]
    for broken in (b"", data[:100], data[: before(data, SOS)], data[: before(data, SOS) + 6]):
        assert not is_stray(broken)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP", b"tEXt"])
@pytest.mark.parametrize("bad", [False, True])
def test_texts_and_profiles_of_a_png_are_no_reason_to_refuse_it(kind: bytes, bad: bool) -> None:
    body = b"Comment\0\0" + b"\1\0\0\0" * (kind == b"iTXt") + zlib.compress(bytes(70_000_000), 9)
    extra = chunk(kind, body)
    if bad:
        extra = extra[:-1] + bytes([extra[-1] ^ 1])
    data = SOUND["rgb.png"]
    assert np.array_equal(decode(data[:33] + extra + data[33:]), decode(data))
    assert np.array_equal(decode(data[:-12] + extra + data[-12:]), decode(data))


def test_a_png_in_many_chunks_is_read_and_one_with_too_many_refused() -> None:
    rows = b"".join(b"\0" + bytes([row] * 300) for row in range(100))
    packed = zlib.compress(rows, 0)
    whole = png(100, 100, 8, 2, rows)
    pieces = b"".join(chunk(b"IDAT", packed[at : at + 10]) for at in range(0, len(packed), 10))
    assert pieces.count(b"IDAT") > 1000
    data = whole[:33] + pieces + whole[-12:]
    assert np.array_equal(decode(data), decode(whole))
    for end in range(34, len(data) - 60, 1777):
        with pytest.raises(PhotoError, match="truncated"):
            decode(data[:end])
    with pytest.raises(PhotoError, match="too slow: PNG: more than 100,000 chunks"):
        decode(whole[:33] + chunk(b"tEXt", b"") * 100_001 + whole[33:])
