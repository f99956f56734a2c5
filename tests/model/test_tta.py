"""Test-time augmentation: the content of each view, independence of the order of photos, and the average."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nameplate.demo import photos_folder
from nameplate.errors import UsageError
from nameplate.fit.recipe import Recipe, load_recipe
from nameplate.images import decode, preprocess
from nameplate.images.transforms import PAD_GREY, centred, crop, sharpened, sharpness_of
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto, Settings, Source
from nameplate.model.tta import (
    ADDED_VIEWS,
    ORIGINAL_AUGMENTATION,
    PASSES,
    SHARP,
    WAYS,
    ZOOMS,
    TTAEmbedder,
    TTAPlan,
    TTAView,
    make_view,
    parse_tta,
    random_passes,
)
from nameplate.runtime.base import BATCH, Batch, Embedding
from nameplate.types import Preprocess
from tests.outcomes import all_embedded, embedded

PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))[::24][:6]
SIZE = Preprocess(192, 288)
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> Model:
    """It takes whole photos, so that views made by hand can be embedded; test_pipeline_cars.py has views of crops."""
    return Model.load(runtime="onnxruntime", threads=2, cars="whole")


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return decode(PHOTOS[0])


def _scene(path: Path) -> Pixels:
    """A photo in the upper left quarter of a grey frame."""
    photo = decode(path)
    scene = np.full((2 * photo.shape[0], 2 * photo.shape[1], 3), PAD_GREY, np.uint8)
    scene[: photo.shape[0], : photo.shape[1]] = photo
    return scene


# Names


@pytest.mark.parametrize("name", ["", "Mirror", "mirror,", "mirror,mirror", "none,mirror", "original,mirror", "crop"])
def test_unknown_names_are_refused_and_the_known_ones_listed(name: str) -> None:
    with pytest.raises(UsageError, match=r"There are none, mirror, scales, sharpen, full, original"):
        parse_tta(name)
    with pytest.raises(UsageError):
        Model.load(tta=name)


def test_what_took_the_place_of_closer_is_named() -> None:
    with pytest.raises(UsageError, match=r"'closer' has been removed: bundles now locate the car"):
        parse_tta("mirror,closer")


def test_names_join_in_any_order() -> None:
    assert parse_tta("none") == TTAPlan() == TTAPlan((TTAView(),), 0)
    assert parse_tta("scales,mirror") == parse_tta("mirror,scales") == parse_tta("full")
    assert {parse_tta(name).view_count for name in WAYS} == {1, 2, 3, 4, PASSES}
    assert parse_tta("full").views == (TTAView(), *ADDED_VIEWS["mirror"], *ADDED_VIEWS["scales"])
    assert parse_tta("sharpen,mirror").views == (TTAView(), *ADDED_VIEWS["mirror"], TTAView(sharpen=True))


# Views


def test_a_mirrored_view_is_the_mirror_image(photo: Pixels) -> None:
    mirrored = make_view(photo, ADDED_VIEWS["mirror"][0], SIZE)
    assert np.array_equal(mirrored[:, ::-1], preprocess(photo, SIZE))
    assert np.array_equal(make_view(photo, TTAView(), SIZE), preprocess(photo, SIZE))


def test_scales_are_a_crop_of_the_photo_and_the_photo_in_a_frame(photo: Pixels) -> None:
    nearer, farther = (make_view(photo, view, SIZE) for view in ADDED_VIEWS["scales"])
    assert np.array_equal(nearer, preprocess(crop(photo, centred(ZOOMS[0])), SIZE))
    assert ZOOMS[0] < 1 < ZOOMS[1]
    edge = round((1 - 1 / ZOOMS[1]) / 2 * SIZE.height) - 2
    assert (farther[:edge] == PAD_GREY).all()
    assert (farther[:, :edge] == PAD_GREY).all()
    assert np.ptp(farther[SIZE.height // 2]) > 50


def test_random_passes_are_those_of_the_notebook_and_the_same_for_the_same_photo(photo: Pixels) -> None:
    settings = ORIGINAL_AUGMENTATION
    recipe = load_recipe("original")
    assert isinstance(recipe, Recipe)
    assert settings == recipe.augmentation
    assert (settings.rotate, settings.shear, settings.shift, settings.zoom) == (15, 15, 0.15, 0.15)
    assert (settings.brightness, settings.flip, settings.fill) == (0.5, 0.5, "nearest")
    passes = random_passes(photo, SIZE, "ab" * 32)
    assert len(passes) == PASSES == 5
    assert {each.shape for each in passes} == {(192, 288, 3)}
    assert len({each.tobytes() for each in passes}) == PASSES
    again, other = random_passes(photo, SIZE, "ab" * 32), random_passes(photo, SIZE, "ac" * 32)
    assert all(np.array_equal(one, two) for one, two in zip(passes, again, strict=True))
    assert not any(np.array_equal(one, two) for one, two in zip(passes, other, strict=True))


def test_random_passes_keep_the_bundles_fit() -> None:
    tall = np.full((400, 100, 3), 250, np.uint8)
    [padded] = random_passes(tall, replace(SIZE, fit="pad"), "00", 1)
    assert (padded[96, :20] == padded[96, 0]).all()
    assert np.ptp(padded[96].astype(int).sum(1)) > 100


# Averages


def test_one_view_gives_the_usual_answer(model: Model) -> None:
    answers = model.predict(PHOTOS)
    probs = model.probabilities(model.embed(PHOTOS), "onnxruntime")
    for answer, row in zip(answers, probs, strict=True):
        assert answer.confidence == pytest.approx(float(row.max()), rel=1e-5)
    assert [len(photo.car.views) for photo in all_embedded(model.embedder.rows(PHOTOS[:2]))] == [1, 1]


@pytest.mark.parametrize("way", ["mirror", "mirror,scales"])
def test_probabilities_are_averaged_over_the_views(model: Model, way: str) -> None:
    size = model.bundle.manifest.preprocess
    pictures = [
        [make_view(decode(path, at_least=(size.height, size.width)), view, size) for view in parse_tta(way).views]
        for path in PHOTOS
    ]
    for answer, looks in zip(model.with_settings(tta=way).predict(PHOTOS, top=206), pictures, strict=True):
        mean = model.probabilities(model.embed(looks), "onnxruntime").mean(0)
        found = dict(answer.top)
        assert [found[name] for name in model.nameplates] == pytest.approx(mean.tolist(), rel=1e-3, abs=1e-6)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_embeddings_are_of_the_unchanged_photo_with_any_tta(model: Model) -> None:
    plain = model.embed(PHOTOS[:3])
    assert np.array_equal(model.with_settings(tta="full").embed(PHOTOS[:3]), plain)
    rows = all_embedded(model.with_settings(tta="mirror").embedder.rows(PHOTOS[:3]))
    for embedding, row in zip(plain, rows, strict=True):
        assert row.embedding == pytest.approx(embedding, abs=1e-3)


@pytest.mark.parametrize("way", ["mirror", "scales", "full", "original"])
def test_the_order_of_photos_decides_nothing(model: Model, way: str) -> None:
    sources: list[Source] = [*PHOTOS[:2], b"junk", *(_scene(path) for path in PHOTOS[:2]), "gone.jpg"]
    looking = model.with_settings(tta=way)
    first = [replace(answer, photo="") for answer in looking.predict(sources)]
    order = list(range(len(sources)))
    random.Random(3).shuffle(order)
    second = [replace(answer, photo="") for answer in looking.predict([sources[place] for place in order])]
    for place, answer in zip(order, second, strict=True):
        assert answer.error == first[place].error
        assert answer.nameplate == first[place].nameplate
        assert [chance for _, chance in answer.top] == pytest.approx([c for _, c in first[place].top], rel=1e-3)
    assert [answer.error is not None for answer in first] == [False, False, True, False, False, True]
    assert str(first[2].error).startswith("not a photo: ")
    assert str(first[5].error).startswith("missing: ")


# Sharpen


def _blurred(photo: Pixels, sigma: float = 4) -> Pixels:
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma)))


def test_a_sharp_photo_gets_one_view_and_a_blurred_or_a_small_one_two(model: Model, photo: Pixels) -> None:
    """Whatever stands beside it, and with the bits that it has without."""
    small = np.asarray(Image.fromarray(photo).resize((60, 40)))
    sources = [photo, _blurred(photo), small, photo]
    assert [sharpness_of(each) < SHARP for each in sources] == [False, True, True, False]
    rows = all_embedded(model.with_settings(tta="sharpen").embedder.rows(sources))
    assert [len(row.car.views) for row in rows] == [1, 2, 2, 1]
    [plain] = model.embed([photo])
    for row in (rows[0], rows[3]):
        assert row.embedding.tobytes() == plain.tobytes()
        assert model.probs(row).tobytes() == model.probabilities(plain[None], "onnxruntime")[0].tobytes()
    for row, source in zip(rows[1:3], sources[1:3], strict=True):
        looks = [preprocess(source, SIZE), sharpened(preprocess(source, SIZE))]
        assert row.car.views == pytest.approx(model.embed(looks), rel=1e-3, abs=1e-4)


def test_sharpening_is_combined_with_the_other_views(model: Model, photo: Pixels) -> None:
    rows = model.with_settings(tta="sharpen,mirror").embedder.rows([photo, _blurred(photo), b"junk", photo])
    assert [len(row.car.views) if isinstance(row, EmbeddedPhoto) else None for row in rows] == [2, 3, None, 2]


def test_a_sharpened_input_is_sharper(photo: Pixels) -> None:
    blurred = preprocess(_blurred(photo, 2), SIZE)
    again = make_view(_blurred(photo, 2), TTAView(sharpen=True), SIZE)
    assert sharpness_of(again) > 2 * sharpness_of(blurred)
    flat = np.full((192, 288, 3), 90, np.uint8)
    assert np.array_equal(sharpened(flat), flat)


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 400), st.just(3))


@settings(max_examples=40, deadline=None)
@given(st.one_of(SHAPES, SHAPES.map(lambda s: (s[1], s[0], 3))).flatmap(lambda shape: arrays(np.uint8, shape)))
def test_views_of_photos_one_pixel_high_are_inputs_too(pixels: Pixels) -> None:
    """Of photos of 1×N pixels each look is a whole picture too."""
    views = parse_tta("mirror,scales,sharpen").views_of(pixels)
    assert TTAView() == views[0]
    assert (TTAView(sharpen=True) in views) is (sharpness_of(pixels) < SHARP)
    for view in views:
        picture = make_view(pixels, view, SIZE)
        assert picture.shape == (192, 288, 3)
        assert picture.dtype == np.uint8
    assert np.isfinite(sharpness_of(pixels))


# Memory


class Counting:
    """A backbone of three numbers that lets photos through one batch after another."""

    name = "counting"

    def embed(self, batches: Iterable[Batch]) -> Iterator[Embedding]:
        for batch in batches:
            assert len(batch) <= BATCH
            yield batch.mean((1, 2), dtype=np.float64).astype(np.float32)


def test_memory_does_not_grow_with_the_photos(model: Model) -> None:
    small = replace(model.bundle, manifest=replace(model.bundle.manifest, embedding=3, preprocess=Preprocess(32, 48)))
    looks = TTAEmbedder(small, Settings(threads=2, tta="mirror,scales"), Counting())
    photo = preprocess(decode(PHOTOS[0]), Preprocess(64, 96))

    def peak(count: int) -> int:
        tracemalloc.start()
        for row in looks.rows(photo for _ in range(count)):
            assert embedded(row).car.views.shape == (4, 3)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(8)
    all_pictures = 600 * 4 * 32 * 48 * 3
    assert peak(600) < all_pictures / 4  # how many wait at once is for the threads to say
