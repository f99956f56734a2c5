"""Which part of a photo is named: the main car, all cars or the whole photo; on scenes made of the embedded renders."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nameplate.errors import UsageError
from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE, Pixels, crop, preprocess
from nameplate.model.bundle import Bundle, load_bundle
from nameplate.model.detector import NEARLY_ALL, LocatedCar, crop_box, locate
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.model.pipeline import EmbeddedPhoto, Settings, pixel_box
from nameplate.model.sources import PhotoLike
from nameplate.model.verification import prediction_json
from nameplate.types import Cars, Photo, PixelBox
from tests import scenes
from tests.scenes import FILES, GREY


def bundle_that(locate_: str) -> Bundle:
    """The shipped backbone and head in a bundle that locates cars or does not."""
    bundle = load_bundle("cars196")
    size = replace(bundle.manifest.preprocess, locate=locate_)  # type: ignore[arg-type]
    return replace(bundle, manifest=replace(bundle.manifest, preprocess=size))


def model_of(bundle: Bundle, cars: Cars = "main") -> Model:
    return Model(bundle, Settings("onnxruntime", 2, cars=cars))


@pytest.fixture(scope="module")
def locating() -> Bundle:
    return bundle_that("ssd")


@pytest.fixture(scope="module")
def model(locating: Bundle) -> Model:
    return model_of(locating)


@pytest.fixture(scope="module")
def scene() -> Pixels:
    """A large car to the left, and a smaller one in the right corner: two renders on grey, uint8 480×960×3."""
    return scenes.scene()


def inside(box: PixelBox, left: int, top: int, right: int, bottom: int) -> bool:
    return left <= box.left < box.right <= right and top <= box.top < box.bottom <= bottom


def test_the_main_car_is_named_from_its_crop(model: Model, locating: Bundle, scene: Pixels) -> None:
    [answer] = model.predict([scene])
    assert answer.box is not None
    assert inside(answer.box, 40, 40, 540, 440)
    cut = crop(scene, crop_box(locate(scene)[0]))
    [by_hand] = model_of(locating, "whole").predict([cut])
    assert answer.top == by_hand.top
    assert answer.cars is None


def test_a_bundle_of_earlier_names_the_whole_photo_as_before(locating: Bundle, scene: Pixels) -> None:
    earlier = model_of(bundle_that("none"))
    [answer], [turned_off] = earlier.predict([scene]), model_of(locating, "whole").predict([scene])
    assert answer == turned_off
    assert answer.box is None
    assert answer.cars is None
    assert answer.why is None
    [embedding] = earlier.embed([preprocess(scene, earlier.bundle.manifest.preprocess)])
    assert np.array_equal(embedding, earlier.embed([scene])[0])


@pytest.mark.parametrize("locate_", ["ssd", "none"])
def test_all_cars_are_named_each_from_its_crop(locate_: str, locating: Bundle, scene: Pixels) -> None:
    [answer] = model_of(bundle_that(locate_), "all").predict([scene])
    assert answer.cars is not None
    main, other = answer.cars
    assert (main.box, main.top, main.verdict) == (answer.box, answer.top, answer.verdict)
    assert other.box is not None
    assert inside(other.box, 700, 280, 960, 480)
    whole = model_of(locating, "whole")
    for car, found in zip(answer.cars, locate(scene), strict=True):
        [by_hand] = whole.predict([crop(scene, crop_box(found))])
        assert car.top == by_hand.top
        assert car.cars is None


def test_the_answer_of_the_main_car_does_not_depend_on_whether_the_others_are_asked_for(
    model: Model, locating: Bundle, scene: Pixels
) -> None:
    sources: list[PhotoLike] = [scene, *map(str, FILES), b"junk", np.full((50, 80, 3), GREY, np.uint8)]
    every = model_of(locating, "all").predict(sources)
    assert [replace(answer, cars=None) for answer in every] == model.predict(sources)
    assert [answer.cars is None for answer in every] == [answer.error is not None for answer in every]
    assert every[-1].cars == ()


@pytest.mark.parametrize("tta", ["mirror", "scales", "sharpen", "original"])
def test_each_car_gets_all_views(locating: Bundle, scene: Pixels, tta: str) -> None:
    settings = Settings("onnxruntime", 2, tta=tta, cars="all")
    [row] = Model(locating, settings).embedder.rows([scene])
    assert isinstance(row, EmbeddedPhoto)
    [alone] = Model(locating, replace(settings, cars="main")).embedder.rows([scene])
    assert isinstance(alone, EmbeddedPhoto)
    assert np.array_equal(row.car.views, alone.car.views)
    assert len(row.others) == 1
    whole = Model(locating, replace(settings, cars="whole"))
    [by_hand] = whole.embedder.rows([crop(scene, row.others[0].crop)])
    assert isinstance(by_hand, EmbeddedPhoto)
    if tta != "original":  # its random numbers are seeded by the photo, and this is another one
        assert np.array_equal(row.others[0].views, by_hand.car.views)


def test_boxes_are_in_pixels_of_the_upright_photo(model: Model, scene: Pixels, tmp_path: Path) -> None:
    """A large photo is decoded at a reduced scale, and a phone's photo is stored turned."""
    [plain] = model.predict([scene])
    assert plain.box is not None
    large = Image.fromarray(scene).resize((3840, 1920), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    [turned] = model.predict([tmp_path / "turned.jpg"])
    assert turned.box is not None
    for name in ("left", "top", "right", "bottom"):
        assert getattr(turned.box, name) == pytest.approx(4 * getattr(plain.box, name), abs=48)


def test_a_car_that_fills_its_photo_is_named_from_all_of_it(model: Model, locating: Bundle) -> None:
    photo = decode(FILES[0])
    top, left, bottom, right = locate(photo)[0].box
    tight = crop(photo, (top + 0.03, left + 0.03, bottom - 0.03, right - 0.03))
    assert locate(tight)[0].area > NEARLY_ALL
    [answer] = model.predict([tight])
    assert answer.box is None
    assert answer.top == model_of(locating, "whole").predict([tight])[0].top
    assert crop_box(LocatedCar((0.01, 0.01, 1, 1), 0.9)) == WHOLE


def test_data_sets_are_embedded_as_photos_are_named(model: Model, scene: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.fromarray(scene).save(path)
    found = embed_photos([Photo(str(path)), Photo(str(FILES[0]))], model)
    again = embed_photos([Photo(str(path)), Photo(str(FILES[0]))], model)  # from the cache
    named = model.embed([path, FILES[0]])
    assert np.array_equal(found.embeddings, named)
    assert np.array_equal(again.embeddings, named)
    whole = embed_photos([Photo(str(path))], model.with_settings(cars="whole"))
    assert not np.allclose(whole.embeddings, named[:1])
    for locate_, same in (("ssd", found), ("none", whole)):  # nor do the other cars enter a data set
        asked = embed_photos([Photo(str(path))], model_of(bundle_that(locate_), "all"))
        assert np.array_equal(asked.embeddings[0], same.embeddings[0])
    # Copies are sought by the whole photo, however it is cropped.
    assert np.array_equal(whole.hashes[0], found.hashes[0])


def test_a_photo_without_a_car_says_so(model: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    answers = model.predict([noise, np.zeros((200, 300, 3), np.uint8)])
    assert {answer.verdict for answer in answers} <= {"not a car", "unknown car", "poor photo"}
    for answer in answers:
        assert answer.box is None
        assert answer.why == (None if answer.verdict == "poor photo" else "no car found")
    assert prediction_json(answers[0]).box is None


def test_a_claim_is_not_rejected_where_the_background_may_show_it(model: Model, scene: Pixels) -> None:
    """The same answers, with and without a car in the background whose prediction set holds the claimed nameplate."""
    [(main, probs)] = list(model.all_cars().answers([scene]))
    assert probs is not None
    assert main.cars is not None
    claimed = model.nameplates[int(probs.argmin())]
    answer = replace(main, verdict="answer", candidates=(main.nameplate or "",))
    shown = replace(answer, candidates=(claimed,))
    alone = model.judge_claim(claimed, [(replace(answer, cars=(answer,)), probs)])
    beside = model.judge_claim(claimed, [(replace(answer, cars=(answer, shown)), probs)])
    assert alone.verdict == "reject"
    assert (beside.verdict, beside.code) == ("unsure", "background")
    assert "background of" in beside.reason
    # And what only the background shows is never accepted.
    surely = np.zeros_like(probs)
    surely[model.nameplates.index(claimed)] = 0.0
    assert model.judge_claim(claimed, [(replace(answer, cars=(answer, shown)), surely)]).verdict == "unsure"


def test_verify_looks_at_all_cars(model: Model, scene: Pixels) -> None:
    assert model.all_cars().settings.cars == "all"
    assert model.all_cars() is model.all_cars()
    found = model.verify([scene], model.nameplates[0])
    assert len(found.photos[0][0].cars or ()) == 2
    turned_off = model.with_settings(cars="whole")
    assert turned_off.all_cars() is turned_off
    assert turned_off.verify([scene], model.nameplates[0]).photos[0][0].cars is None
    earlier = model_of(bundle_that("none"))
    assert earlier.all_cars() is earlier


def test_pixel_boxes_hold_at_least_one_pixel() -> None:
    assert pixel_box((0.999, 0.999, 1.0, 1.0), 10, 10) == PixelBox(9, 9, 10, 10)
    assert pixel_box((0.0, 0.0, 0.001, 0.001), 10, 10) == PixelBox(0, 0, 1, 1)
    assert pixel_box((0.25, 0.5, 0.75, 1.0), 200, 100) == PixelBox(100, 25, 200, 75)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="cars is 'every'"):
        Model.load(cars="every")  # type: ignore[arg-type]


def test_an_array_and_a_file_of_the_same_pixels_have_the_same_box(model: Model, scene: Pixels) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "PNG")
    [one], [two] = model.predict([buffer.getvalue()]), model.predict([scene])
    assert (one.box, one.top) == (two.box, two.top)
