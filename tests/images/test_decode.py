"""A path or bytes → RGB pixels, and every limit on hostile input."""

from __future__ import annotations

import io
import os
import pickle
import stat
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from nameplate.errors import PhotoError, Reason
from nameplate.images import decode, read_bytes, read_header
from nameplate.types import Limits
from tests.images import torture
from tests.images.torture import encode, oriented, picture

SOUND = torture.sound()
BROKEN = torture.broken()
TORTURE = [*SOUND, *BROKEN, "too many bytes.jpg", "pipe.jpg", "link to nothing.jpg"]
JPEGS = [name for name, data in SOUND.items() if data.startswith(b"\xff\xd8\xff")]


def pillow(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def refusal(data: bytes, limits: Limits | None = None) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        decode(data, limits=limits or Limits())
    return caught.value


# --- the torture folder -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    made = tmp_path_factory.mktemp("torture")
    return made, torture.make_torture(made)


@pytest.mark.parametrize("name", TORTURE)
def test_each_photo_of_the_torture_folder_is_read_or_refused_with_its_reason(
    name: str, folder: tuple[Path, dict[str, str | None]]
) -> None:
    path, reason = folder[0] / name, folder[1][name]
    if reason is None:
        pixels = decode(path)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.flags.c_contiguous
    else:
        with pytest.raises(PhotoError) as caught:
            decode(path)
        assert caught.value.reason == reason
        assert str(caught.value) == f"{reason}: {caught.value.detail}"


def test_the_torture_folder_shows_every_reason_but_slowness(
    folder: tuple[Path, dict[str, str | None]],
) -> None:
    assert set(folder[1]) == set(TORTURE) == {entry.name for entry in folder[0].iterdir()}
    assert set(folder[1].values()) - {None} == set(get_args(Reason)) - {"too slow", "not computed"}


# --- formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_has_pillows_pixels(name: str) -> None:
    assert np.array_equal(decode(SOUND[name]), pillow(SOUND[name]))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (16, 16), (33, 17), (61, 47)])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_has_pillows_pixels_at_every_size_and_sampling(
    size: tuple[int, int], sampling: str, progressive: bool
) -> None:
    data = encode(picture(*size), "JPEG", subsampling=sampling, progressive=progressive)
    assert decode(data).shape == (*size, 3)
    assert np.array_equal(decode(data), pillow(data))


@pytest.mark.parametrize("name", ["cmyk.jpg", "ycck.jpg"])
def test_cmyk_becomes_the_printed_colours(name: str) -> None:
    expected = np.asarray(picture().convert("CMYK").convert("RGB")).astype(int)
    if name == "cmyk.jpg":
        assert abs(decode(SOUND[name]) - expected).mean() < 8
    else:  # the same bytes, read as luma and chroma
        assert abs(decode(SOUND[name]) - expected).mean() > 20


LOSSLESS = (
    *("rgb.png", "rgb.bmp", "lossless.webp", "animated.png", "png by another name.jpg"),
    *("plain.tiff", "lzw.tiff", "deflated.tiff", "pages.tiff"),
)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_back_the_same_pixels(name: str) -> None:
    assert np.array_equal(decode(SOUND[name]), np.asarray(picture()))


@pytest.mark.parametrize("name", ["lossy.webp", "still.avif", "animated.webp", "animated.avif"])
def test_lossy_formats_give_nearly_the_first_image(name: str) -> None:
    pixels = decode(SOUND[name]).astype(int)
    assert abs(pixels - np.asarray(picture())).mean() < 8
    assert abs(pixels - np.asarray(picture(seed=1))).mean() > 8


def test_the_first_image_of_an_animated_gif_and_of_a_stereo_photo_is_taken() -> None:
    first = np.asarray(picture().quantize(64).convert("RGB"))
    assert np.array_equal(decode(SOUND["animated.gif"]), first)
    assert np.array_equal(decode(SOUND["still.gif"]), first)
    assert np.array_equal(decode(SOUND["interlaced.gif"]), first)
    assert np.array_equal(decode(SOUND["stereo.mpo"]), decode(SOUND["baseline.jpg"]))
    assert read_header(SOUND["stereo.mpo"]).format == "JPEG"


def test_a_run_length_encoded_bitmap_is_read() -> None:
    pixels = decode(SOUND["rle.bmp"])
    assert pixels.shape == (10, 20, 3)
    assert (pixels[:, :12] == (255, 0, 0)).all()
    assert (pixels[:, 12:] == (0, 0, 255)).all()


def test_16_bit_samples_keep_their_high_byte() -> None:
    ramp = np.arange(20 * 30).reshape(20, 30) * 109
    assert ramp.max() > 65000
    assert np.array_equal(decode(SOUND["grey16.png"]), np.repeat((ramp >> 8)[..., None], 3, axis=2))
    assert np.array_equal(decode(SOUND["grey16.tiff"]), decode(SOUND["grey16.png"]))
    assert np.array_equal(decode(SOUND["rgb16.png"]), np.stack([ramp >> 8, ramp[::-1] >> 8, ramp // 2 >> 8], axis=-1))


def test_grey_palette_and_1_bit_images_become_rgb() -> None:
    assert np.array_equal(decode(SOUND["grey.png"]), np.asarray(picture().convert("L").convert("RGB")))
    assert np.array_equal(decode(SOUND["palette.png"]), np.asarray(picture().quantize(64).convert("RGB")))
    assert np.array_equal(decode(SOUND["palette.bmp"]), decode(SOUND["palette.png"]))
    bits = decode(SOUND["bits.png"])
    assert np.array_equal(bits, np.asarray(picture().convert("1").convert("RGB")))
    assert np.array_equal(bits, decode(SOUND["bits.bmp"]))
    assert set(np.unique(bits)) == {0, 255}


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_transparency_is_blended_with_white(format_: str) -> None:
    image = Image.new("RGBA", (4, 1))
    for x, pixel in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128), (200, 100, 0, 51)]):
        image.putpixel((x, 0), pixel)
    data = encode(image, format_, lossless=True, exact=True)
    assert decode(data).tolist() == [[[10, 20, 30], [255] * 3, [127] * 3, [244, 224, 204]]]


def test_grey_with_transparency_is_blended_with_white() -> None:
    assert decode(encode(Image.new("LA", (1, 1), (0, 128)), "PNG")).tolist() == [[[127] * 3]]


@pytest.mark.parametrize(
    ("mode", "colour", "clear"),
    [("L", 9, 9), ("RGB", (9, 8, 7), (9, 8, 7)), ("I;16", 0x1234, 0x1234)],
)
def test_a_colour_that_is_named_transparent_is_white(mode: str, colour: int | tuple[int, ...], clear: object) -> None:
    assert decode(encode(Image.new(mode, (2, 2), colour), "PNG", transparency=clear)).min() == 255
    assert decode(encode(Image.new(mode, (2, 2), colour), "PNG")).max() < 0x13


def test_a_transparent_palette_entry_is_white() -> None:
    for format_ in ("PNG", "GIF"):
        indices = Image.new("P", (2, 1))
        indices.putpalette([0, 0, 0, 200, 0, 0])
        indices.putpixel((1, 0), 1)
        assert decode(encode(indices, format_, transparency=1)).tolist() == [[[0] * 3, [255] * 3]]
        assert decode(encode(indices, format_)).tolist() == [[[0] * 3, [200, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_orientation_is_applied_as_pillow_does(format_: str, orientation: int) -> None:
    data = oriented(format_, orientation)
    assert read_header(data).orientation == orientation
    assert (read_header(data).height, read_header(data).width) == (47, 61) or format_ == "AVIF"
    upright = decode(data)
    assert upright.shape == ((61, 47, 3) if orientation >= 5 else (47, 61, 3))
    assert np.array_equal(upright, pillow(data))


def test_the_eight_orientations_differ() -> None:
    assert len({decode(oriented("PNG", orientation)).tobytes() for orientation in range(1, 9)}) == 8


def test_orientation_after_the_image_data_counts_too() -> None:
    data = oriented("PNG", 6)
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    moved = data[:at] + data[end:-12] + data[at:end] + data[-12:]
    assert np.array_equal(decode(moved), decode(data))
    assert decode(moved).shape == (61, 47, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_turns_nothing(orientation: int) -> None:
    data = oriented("JPEG", orientation)
    assert read_header(data).orientation == 1
    assert decode(data).shape == (47, 61, 3)


def test_damaged_exif_is_no_reason_to_refuse_a_photo() -> None:
    data = oriented("JPEG", 6)
    at = data.index(b"Exif\0\0") + 6
    assert decode(data[:at] + b"\xff" * 8 + data[at + 8 :]).shape == (47, 61, 3)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_colour_profile_is_reported_and_not_applied(format_: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, tagged = encode(picture(), format_), encode(picture(), format_, icc_profile=profile)
    assert not read_header(plain).icc
    assert read_header(tagged).icc
    assert np.array_equal(decode(tagged), decode(plain))


def test_a_header_says_what_is_stored() -> None:
    assert [read_header(SOUND[name]).format for name in ("rgb.png", "lossy.webp", "still.avif", "rgb.bmp")] == [
        "PNG",
        "WEBP",
        "AVIF",
        "BMP",
    ]
    header = read_header(SOUND["orientation-6.jpg"])
    assert (header.format, header.width, header.height, header.orientation, header.icc) == (
        *("JPEG", 61, 47, 6),
        False,
    )


def test_a_path_a_string_and_bytes_are_the_same_photo(tmp_path: Path) -> None:
    path = tmp_path / "НИВА – ёлка.jpg"
    path.write_bytes(SOUND["baseline.jpg"])
    assert read_bytes(path) == SOUND["baseline.jpg"]
    assert np.array_equal(decode(path), decode(SOUND["baseline.jpg"]))
    assert np.array_equal(decode(str(path)), decode(SOUND["baseline.jpg"]))


# --- damage -------------------------------------------------------------------------------------------

CUT = (
    *("baseline.jpg", "progressive.jpg", "restart.jpg", "cmyk.jpg", "orientation-6.jpg"),
    *("rgb.png", "palette.png", "grey16.png", "lossy.webp", "lossless.webp", "animated.webp"),
    *("still.gif", "interlaced.gif", "rgb.bmp", "palette.bmp", "still.avif", "animated.avif", "stereo.mpo"),
    *("plain.tiff", "lzw.tiff", "deflated.tiff", "jpeg.tiff", "grey16.tiff", "pages.tiff"),
)


@pytest.mark.parametrize("name", CUT)
def test_a_truncated_photo_is_refused_unless_every_pixel_is_there(name: str) -> None:
    data = SOUND[name]
    whole = decode(data)
    reasons = set()
    for end in range(1, len(data), 37):
        try:
            pixels = decode(data[:end])
        except PhotoError as error:
            reasons.add(error.reason)
        else:
            assert np.array_equal(pixels, whole), f"silently wrong after {end} of {len(data)} bytes"
    assert "truncated" in reasons
    assert reasons <= {"truncated", "not a photo", "damaged"}


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "grey.jpg", "restart.jpg", "cmyk.jpg"])
def test_a_truncated_jpeg_with_an_end_marker_is_refused(name: str) -> None:
    data = SOUND[name]
    ends = {*range(2, len(data) - 2, 37), *torture.scan_starts(data)}
    for end in ends:
        refusal(data[:end] + b"\xff\xd9")


def test_a_jpeg_that_lacks_scans_is_refused_at_every_scale() -> None:
    data = SOUND["progressive.jpg"]
    starts = torture.scan_starts(data)
    assert refusal(data[: starts[-1]] + b"\xff\xd9").reason == "truncated"
    for at_least in (None, (2, 2)):
        with pytest.raises(PhotoError, match="ends before all of its scans"):
            decode(data[: starts[1]] + b"\xff\xd9", at_least=at_least)


def test_filler_before_the_end_mark_is_no_damage() -> None:
    data = SOUND["baseline.jpg"]
    whole = decode(data)
    for filler in (b"\0" * 40, b"\xff" * 40):
        assert np.array_equal(decode(data[:-2] + filler + data[-2:]), whole)


@pytest.mark.parametrize("name", ["rgb.png", "palette.png"])
def test_one_wrong_bit_in_the_image_data_of_a_png_is_found(name: str) -> None:
    data = SOUND[name]
    begin, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 4
    for at in {*range(begin, end, 37), *range(end - 40, end)}:
        assert refusal(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :]).reason == "damaged"


SMALL = {
    "jpeg": encode(picture(20, 24), "JPEG"),
    "progressive": encode(picture(20, 24), "JPEG", progressive=True),
    "turned": oriented("JPEG", 5, picture(20, 24)),
    "cmyk": torture.cmyk_jpeg(),
    "png": encode(picture(20, 24), "PNG"),
    "palette": encode(picture(20, 24).quantize(16), "PNG", transparency=2),
    "webp": encode(picture(20, 24), "WEBP"),
    "lossless": encode(picture(20, 24), "WEBP", lossless=True),
    "avif": encode(picture(20, 24), "AVIF", speed=10),
    "bmp": encode(picture(20, 24), "BMP"),
    "rle": torture.rle_bmp(),
    "gif": encode(picture(20, 24).quantize(16), "GIF"),
    "animated": encode(picture(20, 24).quantize(16), "GIF", save_all=True, append_images=[picture(20, 24, 1)]),
    "mpo": encode(picture(20, 24), "MPO", save_all=True, append_images=[picture(20, 24, 1)]),
}
TIGHT = Limits(pixels=1_000_000)  # so that a damaged size costs no time


@settings(max_examples=500, deadline=None)
@given(
    name=st.sampled_from(sorted(SMALL)),
    damages=st.lists(
        st.tuples(
            st.sampled_from(["flip", "cut", "insert"]),
            st.floats(0, 1, exclude_max=True),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_damage_of_any_kind_gives_a_photo_error_or_an_image(name: str, damages: list[tuple[str, float, bytes]]) -> None:
    data = SMALL[name]
    for kind, where, extra in damages:
        at = int(where * len(data))
        if kind == "flip":
            data = data[:at] + bytes([(data[at] if at < len(data) else 0) ^ extra[0]]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at] + data[at + extra[0] :]
        else:
            data = data[:at] + extra + data[at:]
    try:
        header = read_header(data, TIGHT)
        pixels = decode(data, limits=TIGHT)
    except PhotoError as error:
        reason, detail = error.reason, error.detail
    else:
        sides = (header.height, header.width)
        assert pixels.shape == (*(sides if header.orientation < 5 else sides[::-1]), 3)
        assert pixels.dtype == np.uint8
        return
    assert reason in get_args(Reason)
    assert detail


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:12] for data in SMALL.values())]))
def test_bytes_that_only_begin_like_a_photo_are_refused(noise: bytes, magic: bytes) -> None:
    with pytest.raises(PhotoError):
        decode(magic + noise, limits=TIGHT)


# --- what is no photo ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("xl.jpg", "this is a JPEG XL picture: save it as JPEG or PNG"),
        ("xl in boxes.jpg", "this is a JPEG XL picture"),
        ("jpeg 2000.jpg", "this is a JPEG 2000 picture"),
        ("layers.jpg", "this is a Photoshop picture"),
        ("raw.cr2", "this is a camera raw picture"),
        ("pdf.jpg", "this is a PDF document"),
        ("svg.jpg", "this is a web page, XML or SVG"),
        ("zip.jpg", "this is a zip archive"),
        ("text.jpg", "TIFF are read"),
    ],
)
def test_a_refusal_says_what_the_file_is_and_what_is_read(name: str, text: str) -> None:
    error = refusal(BROKEN[name][0])
    assert text in error.detail
    assert error.detail.endswith("are read")


def test_a_folder_a_pipe_and_a_missing_path_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="is a folder") as folder:
        decode(tmp_path)
    assert folder.value.reason == "not a photo"
    with pytest.raises(PhotoError, match=r"no photo\.jpg") as missing:
        decode(tmp_path / "no photo.jpg")
    assert missing.value.reason == "missing"
    with pytest.raises(PhotoError, match="cannot open") as nul:
        decode("a\0b.jpg")
    assert nul.value.reason == "missing"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(PhotoError, match="is not a regular file") as pipe:
            decode(tmp_path / "pipe")
        assert pipe.value.reason == "not a photo"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(SOUND["baseline.jpg"])
    path.chmod(stat.S_IWUSR)
    with pytest.raises(PhotoError, match="ermission") as caught:
        decode(path)
    assert caught.value.reason == "missing"


def test_a_photo_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(PhotoError("too large", "12 bytes")))
    assert (error.reason, error.detail, str(error)) == ("too large", "12 bytes", "too large: 12 bytes")


# --- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["huge.jpg", "huge.png", "huge.gif", "huge.bmp", "huge.webp"])
def test_a_claim_of_gigapixels_is_refused_from_the_header(name: str) -> None:
    data = BROKEN[name][0]
    started = time.perf_counter()
    assert refusal(data).reason == "too large"
    with pytest.raises(PhotoError, match="too large"):
        read_header(data)
    assert time.perf_counter() - started < 1
    assert name != "huge.jpg" or len(data) == 118


def test_the_pixel_limit_is_exact_for_every_format() -> None:
    for name in ("baseline.jpg", "rgb.png", "lossy.webp", "still.avif", "rgb.bmp", "still.gif"):
        assert decode(SOUND[name], limits=Limits(pixels=61 * 47)).shape == (47, 61, 3)
        error = refusal(SOUND[name], Limits(pixels=61 * 47 - 1))
        assert error.reason == "too large"
        assert "61×47 = 2,867 pixels, the limit is 2,866" in error.detail


def test_pillows_own_pixel_limit_is_a_refusal_and_not_a_warning_lost() -> None:
    data = torture.png(10000, 9000, 8, 0, b"")
    for action in ("error", "ignore"):
        with warnings.catch_warnings():
            warnings.simplefilter("error" if action == "error" else "ignore", Image.DecompressionBombWarning)
            assert refusal(data).reason == "too large"


def test_the_byte_limit_is_exact_and_holds_for_paths_and_bytes(tmp_path: Path) -> None:
    data = SOUND["baseline.jpg"]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for source in (data, path):
        assert decode(source, limits=Limits(bytes=len(data))).shape == (47, 61, 3)
        with pytest.raises(PhotoError, match="the limit is") as caught:
            decode(source, limits=Limits(bytes=len(data) - 1))
        assert caught.value.reason == "too large"


def test_a_large_file_is_not_read_to_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(PhotoError, match="68,719,476,736 bytes, the limit is 67,108,864"):
        decode(path)


def test_a_photo_of_hundreds_of_scans_is_given_up_in_time() -> None:
    data = torture.many_scans(planes=8)
    started = time.perf_counter()
    error = refusal(data, Limits(seconds=0.02))
    assert time.perf_counter() - started < 5
    assert error.reason == "too slow"
    assert "0.02 s" in error.detail
    for thread in threading.enumerate():
        if thread.name == "nameplate-decode":
            assert thread.daemon
            thread.join(30)


def test_a_slow_photo_within_its_time_is_read_and_its_damage_reported() -> None:
    data = torture.many_scans(side=1024, planes=4)
    assert decode(data, limits=Limits(seconds=60)).shape == (1024, 1024, 3)
    assert refusal(data[:-40], Limits(seconds=60)).reason == "truncated"


def test_an_ordinary_photo_needs_no_watch() -> None:
    assert decode(SOUND["baseline.jpg"], limits=Limits(seconds=0)).shape == (47, 61, 3)


def test_a_png_whose_text_inflates_without_end_does_no_harm() -> None:
    bomb = torture.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    started = time.perf_counter()
    assert decode(torture.png(1, 1, 8, 2, bytes(4), bomb)).tolist() == [[[0, 0, 0]]]
    assert time.perf_counter() - started < 5


# --- smaller decodes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 900), (900, 1), (301, 517), (640, 640), (255, 1001)])
@pytest.mark.parametrize("at_least", [(32, 32), (16, 40), (40, 16), (1, 1), (224, 224)])
def test_a_smaller_decode_keeps_twice_what_the_model_needs(
    size: tuple[int, int], orientation: int, at_least: tuple[int, int]
) -> None:
    data = oriented("JPEG", orientation, Image.new("RGB", size[::-1], (90, 120, 30)))
    full = size if orientation < 5 else size[::-1]
    pixels = decode(data, at_least=at_least)
    scales = [s for s in (8, 4, 2) if all(f >= 2 * a * s for f, a in zip(full, at_least, strict=True))]
    scale = scales[0] if scales else 1
    assert pixels.shape == (-(-full[0] // scale), -(-full[1] // scale), 3)
    if scale > 1:
        assert all(side >= 2 * needed for side, needed in zip(pixels.shape, at_least, strict=False))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_smaller_decode_shows_the_same_image(scale: int, progressive: bool) -> None:
    data = encode(picture(480, 640), "JPEG", quality=90, progressive=progressive)
    pixels = decode(data, at_least=(480 // scale // 2, 640 // scale // 2))
    assert pixels.shape == (480 // scale, 640 // scale, 3)
    reference = Image.fromarray(pillow(data)).resize((640 // scale, 480 // scale), Image.Resampling.BOX)
    assert abs(pixels.astype(int) - np.asarray(reference)).mean() < 1.5


def test_only_jpeg_decodes_smaller() -> None:
    for name in ("rgb.png", "lossy.webp", "rgb.bmp", "still.gif", "still.avif"):
        assert np.array_equal(decode(SOUND[name], at_least=(1, 1)), decode(SOUND[name]))


# --- threads, and real photos -------------------------------------------------------------------------


def test_four_threads_see_the_same_pixels() -> None:
    names = [name for name in SOUND for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for name, pixels in zip(names, pool.map(lambda name: decode(SOUND[name]), names), strict=True):
            assert np.array_equal(pixels, decode(SOUND[name])), name


@pytest.mark.photos
@pytest.mark.parametrize("fixture", ["cars196", "russian10"])
def test_real_photos_have_pillows_pixels(fixture: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(fixture)
    photos = list(islice(sorted(folder.glob("*/*.jp*g"))[::150], 12))
    assert photos
    for photo in photos:
        assert np.array_equal(decode(photo), pillow(photo.read_bytes())), photo
        header = read_header(photo.read_bytes())
        smaller = decode(photo, at_least=(48, 48))
        assert min(smaller.shape[:2]) >= 96 or smaller.shape[:2] == (header.height, header.width)
