"""Two images under the best crop of one to the other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images.phash import SIDE, alignment

PHOTOS = sorted(photos_folder("train").rglob("*.jpg"))[::9]


def grey(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def varied(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.crop(box).resize((150, 97))


@pytest.mark.parametrize("crop", [(0, 0, 0, 0), (0.05, 0, 0, 0.05), (0.08, 0.08, 0.08, 0.08), (0, 0.1, 0.03, 0)])
def test_a_crop_of_an_image_is_that_image_whichever_comes_first(crop: tuple[float, float, float, float]) -> None:
    images = [Image.open(path) for path in PHOTOS]
    whole, cropped = (np.stack(part) for part in ([grey(i) for i in images], [grey(varied(i, *crop)) for i in images]))
    for found in (alignment(whole, cropped), alignment(cropped, whole)):
        assert (found > 0.945).mean() >= 0.9
        assert np.median(found) > 0.97
        assert found.max() <= 1.0001


def test_different_images_are_not_copies() -> None:
    pictures = np.stack([grey(Image.open(path)) for path in PHOTOS])
    first, second = np.triu_indices(len(pictures), 1)
    found = alignment(pictures[first], pictures[second])
    assert (found < 0.945).all()


def test_brightness_and_contrast_do_not_matter_and_flat_images_match_nothing() -> None:
    picture = grey(Image.open(PHOTOS[0]))
    dim = (picture * 0.4 + 60).astype(np.uint8)
    flat = np.full_like(picture, 128)
    found = alignment(np.stack([picture, picture, flat]), np.stack([dim, flat, flat]))
    assert found[0] > 0.99
    assert (found[1:] < 0.1).all()


def test_no_pairs_give_no_answers() -> None:
    none = np.zeros((0, SIDE, SIDE), np.uint8)
    assert alignment(none, none).shape == (0,)
