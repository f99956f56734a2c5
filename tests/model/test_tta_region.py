"""The region of the car: planted in maps, in every fit, and in a made scene through the model that ships."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.demo import photos_folder
from nameplate.images import decode, preprocess
from nameplate.images.transforms import PAD_GREY, frame
from nameplate.model.bundle import load_bundle
from nameplate.model.tta import LEAST, NEARLY_ALL, STRETCH, region
from nameplate.runtime.ort import OnnxRuntime
from nameplate.types import Fit, Floats, Preprocess

SIZE = Preprocess(192, 288)


def _planted(height: int, width: int, rows: slice, columns: slice) -> Floats:
    places = np.random.default_rng(0).normal(size=(height, width, 32)).astype(np.float32)
    places /= np.linalg.norm(places, axis=-1, keepdims=True)
    places[rows, columns] *= 20
    return places


def test_it_holds_what_is_planted_and_little_else() -> None:
    box = region(_planted(12, 18, slice(6, 10), slice(1, 7)), 400, 600, SIZE)
    assert box is not None
    top, left, bottom, right = box
    assert (top, left) < (6.4 / 12, 1.4 / 18)
    assert bottom > 9.6 / 12
    assert right > 6.6 / 18
    assert (bottom - top) * (right - left) < 0.25


def test_a_car_that_fills_the_photo_is_not_looked_at_again() -> None:
    assert region(_planted(6, 9, slice(0, 6), slice(0, 9)), 400, 600, SIZE) is None


def test_a_map_of_one_level_points_nowhere() -> None:
    assert region(np.ones((6, 9, 4), np.float32), 400, 600, SIZE) is None
    assert region(np.zeros((6, 9, 4), np.float32), 400, 600, SIZE) is None


@given(
    places=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)),
    photo=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    fit=st.sampled_from(["squash", "pad", "crop"]),
)
def test_it_lies_within_the_photo_and_is_neither_tiny_nor_all(
    places: tuple[int, int, int], photo: tuple[int, int], fit: Fit
) -> None:
    height, width, seed = places
    drawn = np.random.default_rng(seed).exponential(size=(height, width, 3)).astype(np.float32) ** 3
    box = region(drawn, photo[0], photo[1], Preprocess(192, 288, fit))
    if box is not None:
        top, left, bottom, right = box
        assert -1e-9 <= top < bottom <= 1 + 1e-9
        assert -1e-9 <= left < right <= 1 + 1e-9
        assert min(bottom - top, right - left) >= LEAST - 1e-9
        assert (bottom - top) * (right - left) <= NEARLY_ALL + 1e-9


def test_its_shape_is_near_the_pictures() -> None:
    """A pole and a plank in a square photo are both widened; with crop to the very shape."""
    for rows, columns in ((slice(3, 8), slice(8, 10)), (slice(5, 6), slice(6, 13))):
        for fit, stretch in (("squash", STRETCH), ("crop", 1.0)):
            box = region(_planted(12, 18, rows, columns), 1000, 1000, Preprocess(192, 288, fit))  # type: ignore[arg-type]
            assert box is not None
            shape = (box[3] - box[1]) / (box[2] - box[0])
            assert 1.5 / stretch - 1e-6 <= shape <= 1.5 * stretch + 1e-6


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(300, 900), (900, 700)])
def test_every_fit_is_undone(fit: Fit, shape: tuple[int, int]) -> None:
    """A car in the middle of the photo's upper left quarter stays there, however the photo was fitted."""
    height, width = shape
    size = Preprocess(192, 288, fit)
    left, top, right, bottom = frame(width, height, size)
    rows = (np.linspace(top, bottom, 49)[:-1] + (bottom - top) / 96) / height
    columns = (np.linspace(left, right, 73)[:-1] + (right - left) / 144) / width
    inside = (abs(rows - 0.4) < 0.08)[:, None] & (abs(columns - 0.4) < 0.08)[None]
    assert inside.any()
    places = np.where(inside, 20, 1)[..., None].astype(np.float32)
    box = region(places, height, width, size)
    assert box is not None
    assert abs((box[0] + box[2]) / 2 - 0.4) < 0.03
    assert abs((box[1] + box[3]) / 2 - 0.4) < 0.03


def test_the_model_that_ships_points_at_the_car_in_a_scene() -> None:
    bundle = load_bundle("cars196")
    size, runtime = bundle.manifest.preprocess, OnnxRuntime(bundle.backbone, 1, maps=True)
    scenes = []
    for path, (down, across) in zip(
        sorted(photos_folder("test").glob("*/*.jpg"))[::60], ((0, 0), (1, 1), (0, 1), (1, 0)), strict=False
    ):
        photo = decode(path)
        high, wide = photo.shape[:2]
        scene = np.full((2 * high, 2 * wide, 3), PAD_GREY, np.uint8)
        scene[down * high : (down + 1) * high, across * wide : (across + 1) * wide] = photo
        scenes.append((scene, down / 2, across / 2))
    assert len(scenes) == 4
    [(_, maps)] = runtime.maps([np.stack([preprocess(scene, size) for scene, _, _ in scenes])])
    for (scene, top, left), places in zip(scenes, maps, strict=True):
        box = region(places, scene.shape[0], scene.shape[1], size)
        assert box is not None
        assert box[0] <= top + 0.1
        assert box[2] >= top + 0.4
        assert box[1] <= left + 0.1
        assert box[3] >= left + 0.4
