"""Crops of photos, and photos as parts of a larger image."""

from __future__ import annotations

import numpy as np
import pytest

from nameplate.images.transforms import PAD_GREY, WHOLE, Box, centred, crop

PHOTO = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)


def test_the_whole_photo_is_itself() -> None:
    assert crop(PHOTO, WHOLE) is PHOTO
    assert centred(1) == WHOLE


def test_a_box_within_the_photo_is_that_part_of_it() -> None:
    assert np.array_equal(crop(PHOTO, (0.1, 0.25, 0.6, 0.75)), PHOTO[1:6, 5:15])
    assert np.array_equal(crop(PHOTO, centred(0.8)), PHOTO[1:9, 2:18])


def test_outside_the_photo_a_box_is_grey() -> None:
    framed = crop(PHOTO, centred(1.4))
    assert framed.shape == (14, 28, 3)
    assert np.array_equal(framed[2:12, 4:24], PHOTO)
    framed[2:12, 4:24] = PAD_GREY
    assert (framed == PAD_GREY).all()


@pytest.mark.parametrize("box", [(0.99, 0.99, 0.99, 0.99), (0, 0, 0.01, 0.01), (0.5, 0.5, 0.5, 1), (1, 1, 1, 1)])
def test_there_is_always_a_pixel(box: Box) -> None:
    assert min(crop(PHOTO, box).shape) >= 1
    assert min(crop(np.full((1, 1, 3), 7, np.uint8), box).shape) >= 1
