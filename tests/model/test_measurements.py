"""The measurements of one photo."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nameplate.demo import photos_folder
from nameplate.errors import PhotoError
from nameplate.model.measurements import measure_photo, measure_photos
from nameplate.storage import sha256
from nameplate.types import Photo

PHOTO = next(photos_folder("train").rglob("*.jpg"))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_blur_and_darkness_are_measured_whatever_the_size() -> None:
    image = Image.open(PHOTO).convert("RGB")
    plain = measure_photo(encoded(image))
    large = measure_photo(encoded(image.resize((image.width * 3, image.height * 3))))
    blurred = measure_photo(encoded(image.filter(ImageFilter.GaussianBlur(4))))
    dark = measure_photo(encoded(image.point(lambda value: value // 4)))
    assert blurred.sharpness < 0.3 * plain.sharpness
    assert large.sharpness == pytest.approx(plain.sharpness, rel=0.5)
    assert dark.brightness == pytest.approx(plain.brightness / 4, abs=0.01)
    assert plain.grey.shape == (64, 64)


def test_format_orientation_and_size_are_those_of_the_file() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.open(PHOTO), "JPEG", exif=exif)
    look = measure_photo(data)
    assert (look.format, look.orientation, look.bytes) == ("JPEG", 6, len(data))
    with pytest.raises(PhotoError):
        measure_photo(data[: len(data) // 2])


def test_measurements_come_from_the_cache_and_a_changed_photo_has_none(tmp_path: Path) -> None:
    data = encoded(Image.open(PHOTO))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
    here = Photo(str(tmp_path / "a.png"), sha256=sha256(data))
    gone = Photo(str(tmp_path / "gone.png"), sha256="0" * 64)
    changed = Photo(str(tmp_path / "b.png"), sha256="1" * 64)
    done: list[int] = []
    first = measure_photos([here, gone, changed], 2, lambda number, _: done.append(number))
    assert first[0] is not None
    assert first[1:] == [None, None]
    assert done == [1, 2, 3]
    (tmp_path / "a.png").unlink()
    again = measure_photos([here], 1, lambda *_: None)[0]
    assert again is not None
    assert np.array_equal(again.grey, first[0].grey)
    assert again.sharpness == first[0].sharpness
