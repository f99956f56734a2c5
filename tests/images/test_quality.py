"""Quality of photos: what is measured, and which flaw each kind of bad photo has."""

from __future__ import annotations

import io
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nameplate.demo import photos_folder
from nameplate.images.decode import decode
from nameplate.images.quality import BLURRED, DARK, SMALL, VIEW, Quality, flaws, measure_quality
from nameplate.images.transforms import preprocess
from nameplate.model.pipeline import (
    DecodedPhoto,
    Settings,
    UnreadablePhoto,
    decode_photo,
    prepare_decoded,
    prepare_photo,
)
from nameplate.types import Flaw, Preprocess
from tests.outcomes import prepared

Pixels = NDArray[np.uint8]
PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))[::20]


def measured(pixels: Pixels, size: Preprocess = VIEW) -> Quality:
    """The quality of pixels that are a whole photo."""
    return measure_quality(pixels, preprocess(pixels, size), size, min(pixels.shape[:2]))


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_a_good_render_has_no_flaw_and_each_degraded_one_has_its_own(path: Path) -> None:
    photo = decode(path)
    image = Image.fromarray(photo)
    scale = (photo.shape[0] * photo.shape[1] / (VIEW.height * VIEW.width)) ** 0.5
    thumbnail = image.resize((SMALL * 2, SMALL - 1))
    night = (photo * 0.2).astype(np.uint8)
    assert flaws(measured(photo)) == ()
    assert flaws(measured(np.asarray(image.filter(ImageFilter.GaussianBlur(3 * scale))))) == ("blurred",)
    assert "small" in flaws(measured(np.asarray(thumbnail)))
    # Less light lowers the plain variance of the Laplacian, too, but a dark photo is not a blurred one.
    assert flaws(measured(night)) == ("dark",)
    assert flaws(measured(night[: SMALL - 1, :].copy()))[:2] == ("small", "dark")


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3))),
    st.sampled_from([VIEW, Preprocess(32, 48, "pad"), Preprocess(64, 64, "crop", "lanczos")]),
)
@settings(max_examples=60, deadline=None)
def test_any_pixels_are_measured_whatever_the_models_input(pixels: Pixels, size: Preprocess) -> None:
    found = measured(pixels, size)
    assert found == measured(pixels)  # the bundle does not change what is measured
    assert found.short_side == min(pixels.shape[:2])
    assert 0 <= found.light <= 1
    assert 0 <= found.sharpness < np.inf


@given(st.integers(0, 255), st.integers(1, 300), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_photo_of_one_colour_shows_nothing_and_is_blurred(value: int, length: int, upright: bool) -> None:
    shape = (length, 1, 3) if upright else (1, length, 3)
    found = measured(np.full(shape, value, np.uint8))
    assert found.light == pytest.approx(value / 255, abs=1e-6)
    assert "blurred" in flaws(found)
    assert ("dark" in flaws(found)) == (value / 255 < DARK)


def test_grey_cmyk_and_sixteen_bits_are_measured_as_the_same_photo() -> None:
    image = Image.open(PHOTOS[0]).convert("L")
    deep = Image.fromarray((np.asarray(image, np.uint16) * 257).astype(np.uint16))
    files = {
        "grey": file_of(image, "PNG"),
        "rgb": file_of(image.convert("RGB"), "PNG"),
        "cmyk": file_of(image.convert("CMYK"), "TIFF"),
        "16 bits": file_of(deep, "PNG"),
        "jpeg cmyk": file_of(image.convert("CMYK"), "JPEG", quality=98),
    }
    rows = {name: prepare_photo(data, VIEW, Settings()) for name, data in files.items()}
    for name, row in rows.items():
        if isinstance(row, UnreadablePhoto):  # a kind that is not read, and that is said
            assert name == "cmyk"
            continue
        assert row.car.quality is not None
        assert flaws(row.car.quality) == ()
        assert astuple(row.car.quality) == pytest.approx(
            astuple(prepared(rows["rgb"]).car.quality or Quality(0, 0, 0)), rel=0.15
        )


def test_a_jpeg_decoded_to_fewer_pixels_than_the_measure_needs_is_not_called_blurred() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (75, 75, 3), np.uint8)
    large = Image.fromarray(noise).resize((1200, 1200), Image.Resampling.NEAREST)
    decoded = decode_photo(file_of(large, "JPEG"), Settings(), (32, 32))
    assert isinstance(decoded, DecodedPhoto)
    row = prepare_decoded(decoded, Preprocess(32, 32), Settings())
    assert row.car.quality is not None
    assert min(decoded.pixels.shape[:2]) < VIEW.height
    assert row.car.quality == Quality(1200, row.car.quality.light, np.inf)
    assert flaws(row.car.quality) == ()


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (Quality(SMALL, DARK, BLURRED), ()),
        (Quality(SMALL - 1, DARK, BLURRED), ("small",)),
        (Quality(SMALL, DARK - 1e-6, BLURRED), ("dark",)),
        (Quality(SMALL, DARK, BLURRED - 1e-6), ("blurred",)),
        (Quality(1, 0, 0), ("small", "dark", "blurred")),
        (None, ()),
    ],
)
def test_a_photo_at_a_threshold_is_good_enough(quality: Quality | None, expected: tuple[Flaw, ...]) -> None:
    assert flaws(quality) == expected


def test_orientation_and_mirroring_change_no_flaw() -> None:
    photo = decode(PHOTOS[1])
    turned = np.ascontiguousarray(np.rot90(photo))
    assert measured(turned).light == pytest.approx(measured(photo).light, abs=0.02)
    assert measured(photo[:, ::-1].copy()).sharpness == pytest.approx(measured(photo).sharpness, rel=0.05)
