"""Augmentation: the effect of each amount, its range, and that the generator decides everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy import ndimage

from nameplate.demo import photo as demo_photo
from nameplate.images import decode, preprocess
from nameplate.images.augment import Augmentation, Fill, affine, augment
from nameplate.images.transforms import PAD_GREY
from nameplate.types import Doubles, Preprocess

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 96, 128
NOTHING = Augmentation(flip=0)
EVERYTHING = Augmentation(
    (0.35, 1), 1.333, 0.5, 10, 0.1, 10, 0.2, 0.5, 0.5, "scene", 0.35, 0.35, 0.4, 0.1, 0.1
)  # fmt: skip


@pytest.fixture(scope="module")
def car() -> Pixels:
    return decode(demo_photo())


def _draws(photo: Pixels, settings: Augmentation, count: int = 40, scenery: Pixels | None = None) -> list[Pixels]:
    draw = np.random.default_rng(7)
    return [augment(photo, HEIGHT, WIDTH, settings, draw, scenery) for _ in range(count)]


def _plain(photo: Pixels) -> Pixels:
    return preprocess(photo, Preprocess(HEIGHT, WIDTH))


def _places(height: int, width: int) -> Pixels:
    """Red tells the row, green the column, 20 to 235; blue is full, so that no background is taken for it."""
    photo = np.full((height, width, 3), 255, np.uint8)
    photo[..., 0] = np.linspace(20, 235, height)[:, None].round()
    photo[..., 1] = np.linspace(20, 235, width)[None].round()
    return photo


def _span(picture: Pixels, channel: int) -> float:
    """Share of `_places`' height (0) or width (1) that is seen."""
    return float(np.ptp(picture[..., channel])) / 215


def _flat(colour: tuple[int, int, int] = (200, 100, 50)) -> Pixels:
    return np.full((60, 90, 3), colour, np.uint8)


def test_without_any_amount_the_result_is_the_served_input(car: Pixels) -> None:
    draw = np.random.default_rng(0)
    before = draw.bit_generator.state
    assert np.array_equal(augment(car, HEIGHT, WIDTH, NOTHING, draw), _plain(car))
    assert draw.bit_generator.state == before, "amounts of zero draw nothing"


@pytest.mark.parametrize("fill", ["grey", "nearest", "scene"])
def test_the_generator_alone_decides(car: Pixels, fill: Fill) -> None:
    settings = replace(EVERYTHING, fill=fill)
    photo = car.copy()
    one, other = _draws(photo, settings, 12, car[::-1]), _draws(photo, settings, 12, car[::-1])
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({a.tobytes() for a in one}) == 12
    assert np.array_equal(photo, car), "the photo itself is left alone"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (400, 7)])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (24, 32)])
@pytest.mark.parametrize("fill", ["grey", "nearest", "scene"])
def test_every_shape_is_accepted(shape: tuple[int, int], size: tuple[int, int], fill: Fill) -> None:
    photo, draw = np.full((*shape, 3), 9, np.uint8), np.random.default_rng(3)
    for _ in range(12):
        picture = augment(photo, *size, replace(EVERYTHING, fill=fill, zoom_out_to=0.01), draw, photo)
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.uint8


@pytest.mark.parametrize("photo", [np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8), np.zeros((0, 9, 3), np.uint8)])
def test_other_arrays_are_refused(photo: Pixels) -> None:
    with pytest.raises(ValueError, match="augment takes uint8 H×W×3 pixels, got "):
        augment(photo, 8, 8, NOTHING, np.random.default_rng(0))


def test_a_crop_keeps_its_share_of_the_area_from_anywhere() -> None:
    pictures = _draws(_places(600, 800), Augmentation(crop=(0.3, 0.6), flip=0), 200)
    areas = np.array([_span(picture, 0) * _span(picture, 1) for picture in pictures])
    assert 0.27 < areas.min() < 0.34
    assert 0.55 < areas.max() < 0.63
    assert abs(areas.mean() - 0.45) < 0.03
    stretch = np.array([_span(picture, 1) / _span(picture, 0) for picture in pictures])
    assert abs(stretch - 1).max() < 0.05, "an aspect of 1 keeps the photo's own"
    lefts = np.array([picture[..., 1].min() for picture in pictures])
    assert lefts.min() < 35
    assert lefts.max() > 80


def test_the_aspect_is_drawn_on_both_sides_of_the_photos_own() -> None:
    settings = Augmentation(crop=(0.2, 0.4), aspect=2, flip=0)
    pictures = _draws(_places(300, 900), settings, 200)
    stretch = np.log2([_span(picture, 1) / _span(picture, 0) for picture in pictures])
    assert -1.1 < stretch.min() < -0.8
    assert 0.8 < stretch.max() < 1.1
    assert abs(stretch.mean()) < 0.15


def test_where_no_crop_fits_the_whole_photo_is_taken() -> None:
    for picture in _draws(_places(300, 400), Augmentation(crop=(1, 1), aspect=1.5, flip=0), 5):
        assert _span(picture, 0) > 0.97
        assert _span(picture, 1) > 0.97


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_the_given_share_is_mirrored(chance: float) -> None:
    photo = _places(HEIGHT, WIDTH)
    pictures = _draws(photo, Augmentation(flip=chance), 200)
    assert all(np.array_equal(p, photo) or np.array_equal(p, photo[:, ::-1]) for p in pictures)
    assert abs(np.mean([p[0, 0, 1] > 128 for p in pictures]) - chance) < 0.1


KINDS: dict[str, Augmentation] = {
    "rotate": Augmentation(rotate=25, flip=0),
    "shift": Augmentation(shift=0.2, flip=0),
    "shear": Augmentation(shear=20, flip=0),
    "zoom": Augmentation(zoom=0.3, flip=0),
    "all": Augmentation(rotate=25, shift=0.2, shear=20, zoom=0.3, flip=0),
}


def _keras(settings: Augmentation, draw: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Matrix and offset as Keras' `apply_affine_transform` hands them to scipy, for a HEIGHT×WIDTH picture."""

    def either(most: float) -> float:
        return float(draw.uniform(-most, most)) if most else 0.0

    theta, shear = np.deg2rad(either(settings.rotate)), np.deg2rad(either(settings.shear))
    tx, ty = either(settings.shift) * HEIGHT, either(settings.shift) * WIDTH
    zx, zy = 1 + either(settings.zoom), 1 + either(settings.zoom)
    matrix = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    matrix = matrix @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    matrix = matrix @ np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    matrix = matrix @ np.array([[zx, 0, 0], [0, zy, 0], [0, 0, 1]])
    x, y = HEIGHT / 2 - 0.5, WIDTH / 2 - 0.5
    matrix = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) @ matrix @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    return matrix[:2, :2], matrix[:2, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", ["nearest", "grey"])
def test_rotations_are_those_of_keras_by_scipy(car: Pixels, kind: str, fill: Fill) -> None:
    photo, settings = _plain(car), replace(KINDS[kind], fill=fill)
    for seed in range(8):
        ours = augment(photo, HEIGHT, WIDTH, settings, np.random.default_rng(seed)).astype(int)
        matrix, offset = _keras(settings, np.random.default_rng(seed))
        turned = partial(ndimage.affine_transform, matrix=matrix, offset=offset, order=1)
        mode = "nearest" if fill == "nearest" else "constant"
        channels = photo.transpose(2, 0, 1).astype(float)
        scipys = np.dstack([turned(channel, mode=mode, cval=PAD_GREY) for channel in channels])
        if fill == "grey":  # on the half pixel around the photo Pillow repeats its edge, where scipy has grey already
            edge = np.pad(np.zeros((HEIGHT - 2, WIDTH - 2)), 1, constant_values=1)
            outside = turned(np.ones_like(edge), mode="grid-constant", cval=0) == 0
            assert (ours[outside] == PAD_GREY).all()
            inside = turned(edge, mode="constant", cval=1) == 0
            assert inside.mean() > 0.4
            ours, scipys = ours[inside], scipys[inside]
        assert abs(ours - scipys).max() <= 1


def test_an_affine_map_may_leave_the_photo_altogether() -> None:
    far = np.array([[1.0, 0, 500], [0, 1, -700], [0, 0, 1]])
    photo = Image.fromarray(_places(40, 60))
    assert (np.asarray(affine(photo, far, "grey")) == PAD_GREY).all()
    assert (np.asarray(affine(photo, far, "nearest")) == np.asarray(photo)[-1, 0]).all()


def test_a_shift_reaches_its_share_both_ways() -> None:
    middles = [p[HEIGHT // 2, WIDTH // 2] for p in _draws(_places(HEIGHT, WIDTH), KINDS["shift"], 200)]
    for channel in (0, 1):
        shifts = (np.array(middles, float)[:, channel] - 127.5) / 215
        assert -0.21 < shifts.min() < -0.18
        assert 0.18 < shifts.max() < 0.21


def _part(picture: Pixels) -> tuple[float, float]:
    """Shares of the frame's height and width that `_places` takes."""
    seen = picture[..., 2] == 255
    return float(seen.any(1).mean()), float(seen.any(0).mean())


def test_a_zoomed_out_photo_takes_its_share_of_the_frame_anywhere() -> None:
    settings = Augmentation(zoom_out=1, zoom_out_to=0.4, flip=0)
    pictures = _draws(_places(300, 400), settings, 200)
    shares = np.array([_part(picture) for picture in pictures])
    assert 0.38 < shares.min() < 0.45
    assert shares.max() > 0.97
    assert abs(shares.mean() - 0.7) < 0.05
    assert abs(shares[:, 0] - shares[:, 1]).max() < 0.02, "the aspect stays"
    assert all(_span(p[p[..., 2] == 255][None], 0) > 0.93 for p in pictures), "without a crop it is all there"
    assert all((p[p[..., 2] != 255] == PAD_GREY).all() for p in pictures)
    corners = np.array([np.argwhere(p[..., 2] == 255)[0] for p in pictures])
    assert (corners.min(0) <= 1).all()
    assert (corners.max(0) > 0.4 * np.array([HEIGHT, WIDTH])).all()


def test_a_zoomed_out_photo_is_cropped_mildly() -> None:
    settings = Augmentation(crop=(0.1, 1), zoom_out=1, zoom_out_to=0.8, flip=0)
    seen = [p[p[..., 2] == 255][None] for p in _draws(_places(300, 400), settings, 100)]
    areas = np.array([_span(part, 0) * _span(part, 1) for part in seen])
    assert 0.65 < areas.min() < 0.78


def test_the_given_share_is_zoomed_out() -> None:
    settings = Augmentation(zoom_out=0.25, zoom_out_to=0.5, flip=0)
    assert abs(np.mean([min(_part(p)) < 1 for p in _draws(_places(300, 400), settings, 300)]) - 0.25) < 0.07


def test_the_nearest_background_is_of_the_photos_own_colours() -> None:
    photo = _places(300, 400)
    photo[:150, :, 2] = 254
    for picture in _draws(photo, Augmentation(zoom_out=1, fill="nearest", flip=0), 20):
        assert picture[..., 2].min() >= 245
        assert picture[-1].astype(int)[:, 0].mean() > picture[0].astype(int)[:, 0].mean()


def test_a_scene_is_one_colour_blurred_or_sharp_a_third_each() -> None:
    scenery = np.zeros((100, 100, 3), np.uint8)
    scenery[:20:2] = 90  # stripes in the top fifth
    scenery[20:, :50] = 160
    settings = Augmentation(zoom_out=1, zoom_out_to=0.3, fill="scene", flip=0)
    kinds = []
    for picture in _draws(_places(300, 400), settings, 240, scenery):
        rows = picture[:, :, 2].astype(int)
        around = np.where(rows == 255, -1, rows)
        column = around[:, [0, -1]].T
        lines = [line for line in column if (line >= 0).all()]
        if not lines:
            continue
        steps = np.abs(np.diff(lines[0]))
        kinds.append("flat" if steps.max() == 0 else "sharp" if (steps > 5).mean() > 0.5 else "soft")
    assert {kind: round(kinds.count(kind) / len(kinds), 1) for kind in ("flat", "soft", "sharp")} == {
        "flat": 0.3,
        "soft": 0.3,
        "sharp": 0.3,
    }


def test_red_and_blue_are_swapped_with_the_given_probability() -> None:
    pictures = _draws(_flat((200, 100, 50)), Augmentation(swap=0.25, flip=0), 200)
    colours = [tuple(picture[0, 0].tolist()) for picture in pictures]
    assert set(colours) == {(200, 100, 50), (50, 100, 200)}
    assert 0.15 < colours.count((50, 100, 200)) / 200 < 0.35


def test_a_scene_without_scenery_is_grey() -> None:
    for picture in _draws(_places(300, 400), Augmentation(zoom_out=1, fill="scene", flip=0), 20):
        assert (picture[picture[..., 2] != 255] == PAD_GREY).all()


ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@pytest.mark.parametrize("name", ENHANCERS)
def test_colour_changes_are_those_of_pillow(car: Pixels, name: str) -> None:
    settings = Augmentation(flip=0, **{name: 0.6})  # type: ignore[arg-type]
    factors = []
    for seed in range(40):
        ours = augment(car, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
        factors.append(1 + np.random.default_rng(seed).uniform(-0.6, 0.6))
        pillows = np.asarray(ENHANCERS[name](Image.fromarray(_plain(car))).enhance(factors[-1]))
        assert abs(ours.astype(int) - pillows).max() <= 2
    assert min(factors) < 0.5
    assert max(factors) > 1.5


def test_brightness_beyond_black_is_allowed(car: Pixels) -> None:
    assert any((picture == 0).all() for picture in _draws(car, Augmentation(brightness=3, flip=0), 40))


def test_colour_changes_have_one_order(car: Pixels) -> None:
    settings = Augmentation(flip=0, brightness=0.3, contrast=0.3, saturation=0.3)
    mild = _plain(car) // 3 + np.uint8(80)  # far from 0 and 255: nothing is cut
    for seed in range(10):
        image = Image.fromarray(mild)
        for enhancer, change in zip(ENHANCERS.values(), np.random.default_rng(seed).uniform(-0.3, 0.3, 3), strict=True):
            image = enhancer(image).enhance(1 + change)
        ours = augment(mild, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
        assert abs(ours.astype(int) - np.asarray(image)).max() <= 3


def test_hue_turns_the_colour_circle_by_the_amount_and_leaves_greys() -> None:
    hues = []
    for picture in _draws(_flat(), Augmentation(hue=0.1, flip=0), 200):
        hue = int(np.asarray(Image.fromarray(picture).convert("HSV"))[0, 0, 0])
        hues.append((hue / 256 - 20 / 360 + 0.5) % 1 - 0.5)  # (200, 100, 50) is at 20 degrees
    assert -0.12 < min(hues) < -0.08
    assert 0.08 < max(hues) < 0.12
    grey = _flat((90, 90, 90))
    assert all(abs(p.astype(int) - 90).max() <= 1 for p in _draws(grey, Augmentation(hue=0.5, flip=0)))


def test_a_third_of_a_turn_makes_red_green() -> None:
    class Always(np.random.Generator):
        def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
            return max(low, high)

    draw = Always(np.random.PCG64(0))
    turned = augment(_flat((250, 0, 0)), 8, 8, Augmentation(hue=1 / 3, flip=0), draw)
    assert abs(turned.astype(int) - [0, 250, 0]).max() <= 1


def test_the_given_share_becomes_grey(car: Pixels) -> None:
    pictures = _draws(_flat(), Augmentation(grey=0.3, flip=0), 200)
    colourless = [np.ptp(picture[0, 0]) <= 1 for picture in pictures]
    assert abs(np.mean(colourless) - 0.3) < 0.08
    grey = augment(car, HEIGHT, WIDTH, Augmentation(grey=1, flip=0), np.random.default_rng(0))
    assert abs(grey.astype(int)[..., 0] - np.asarray(Image.fromarray(_plain(car)).convert("L"))).max() <= 1
