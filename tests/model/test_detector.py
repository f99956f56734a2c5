"""The car detector: joined photos of several cars, golden boxes, photos of any shape, and which car is the main one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nameplate.data.dataset import list_photos
from nameplate.demo import photos_folder
from nameplate.errors import BundleError
from nameplate.images.decode import decode
from nameplate.images.transforms import WHOLE, Box, Pixels, crop
from nameplate.model import detector
from nameplate.model.detector import (
    CLEAR,
    LEAST_SCORE,
    MOST_CARS,
    MOST_WINDOWS,
    NEARLY_ALL,
    CarDetector,
    LocatedCar,
    crop_box,
    in_order,
    locate,
    windows,
)

RENDERS = sorted(photos_folder("test").glob("*/*.jpg"))
GREY = 127
TOLERANCE = 0.01
"""How far a side of a golden box may move from one processor to another, as a share of the photo's."""
# Of each photo: score, top, left, bottom and right of its main car.
GOLDEN: dict[str, tuple[float, ...]] = {
    "golden.jpg": (0.765, 0.279, 0.065, 0.739, 0.817),
    "Corvane Lark/007.jpg": (0.739, 0.344, 0.199, 0.701, 0.824),
    "Halden Pine/012.jpg": (0.796, 0.184, 0.102, 0.694, 0.803),
    "Ostrel Cadence/017.jpg": (0.719, 0.336, 0.210, 0.606, 0.844),
    "Tamblin Wisp/002.jpg": (0.766, 0.252, 0.161, 0.732, 0.878),
    "Vessoro Cala/007.jpg": (0.788, 0.255, 0.072, 0.730, 0.975),
}


def overlap(first: Box, second: Box) -> float:
    """Intersection over union."""
    high, wide = (min(first[2 + a], second[2 + a]) - max(first[a], second[a]) for a in (0, 1))
    both = max(high, 0) * max(wide, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def joined(photos: list[Pixels], heights: list[int]) -> tuple[Pixels, list[Box]]:
    """Photos beside each other on grey, each at its height in pixels, and where they are in the result."""
    sized = [
        np.asarray(Image.fromarray(photo).resize((round(photo.shape[1] * high / photo.shape[0]), high)))
        for photo, high in zip(photos, heights, strict=True)
    ]
    whole = np.full((max(heights) + 40, sum(photo.shape[1] + 20 for photo in sized) + 20, 3), GREY, np.uint8)
    places, left = [], 20
    for number, photo in enumerate(sized):
        high, wide = photo.shape[:2]
        top = 20 if number % 2 else whole.shape[0] - 20 - high
        whole[top : top + high, left : left + wide] = photo
        sides = whole.shape[0], whole.shape[1]
        places.append((top / sides[0], left / sides[1], (top + high) / sides[0], (left + wide) / sides[1]))
        left += wide + 20
    return whole, places


def within(box: Box, place: Box) -> Box:
    """A box of a photo, in shares of the photo that it was joined into."""
    high, wide = place[2] - place[0], place[3] - place[1]
    return place[0] + box[0] * high, place[1] + box[1] * wide, place[0] + box[2] * high, place[1] + box[3] * wide


def several_cars(photos: list[Pixels]) -> list[tuple[Pixels, list[Box]]]:
    """Ten photos of two or three cars each; of each also the boxes of its cars, the largest car first."""
    made = []
    for number in range(10):
        count = 2 + number % 2
        few = [photos[(3 * number + k) % len(photos)] for k in range(count)]
        heights = [300, 190, 170][:count]
        if number % 4 >= 2:
            few, heights = few[::-1], heights[::-1]
        whole, places = joined(few, heights)
        boxes = [within(locate(photo)[0].box, place) for photo, place in zip(few, places, strict=True)]
        made.append((whole, sorted(boxes, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))))
    return made


def check_several_cars(photos: list[Pixels]) -> None:
    """Every car is found once and at its place, and the largest one is the main car."""
    for number, (whole, boxes) in enumerate(several_cars(photos)):
        cars = locate(whole)
        for box in boxes:
            assert max(overlap(box, car.box) for car in cars) > 0.5, number
        assert overlap(boxes[0], cars[0].box) > 0.5, number
        assert all(overlap(one.box, two.box) <= 0.5 for one, two in combinations(cars, 2)), number
        assert [car.score for car in cars[1:]] == sorted((car.score for car in cars[1:]), reverse=True)


def test_all_cars_of_joined_renders_are_found_and_the_largest_is_the_main_one() -> None:
    check_several_cars([decode(path) for path in RENDERS[::13]])


def test_all_cars_of_joined_real_photos_are_found_and_the_largest_is_the_main_one(russian10: Path) -> None:
    listed = list_photos(russian10)
    check_several_cars([decode(photo.path) for photo in listed[:: len(listed) // 30]])


def golden_photos() -> dict[str, Pixels]:
    golden = decode((resources.files("nameplate.model") / "golden.jpg").read_bytes())
    return {"golden.jpg": golden} | {"/".join(path.parts[-2:]): decode(path) for path in RENDERS[7::45]}


def test_golden_boxes() -> None:
    found = {name: locate(photo)[0] for name, photo in golden_photos().items()}
    assert found.keys() == GOLDEN.keys()
    for name, car in found.items():
        assert (car.score, *car.box) == pytest.approx(GOLDEN[name], abs=TOLERANCE), name


SHAPES = [(1, 1), (1, 400), (400, 1), (2, 300), (300, 2), (3000, 2), (17, 1999), (172, 172), (173, 171), (1200, 900)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_photos_of_any_shape_and_content(height: int, width: int) -> None:
    random = np.random.default_rng([height, width])
    noise = random.integers(0, 256, (height, width, 3), np.uint8)
    stretched = np.asarray(Image.fromarray(decode(RENDERS[0])).resize((width, height)))
    for photo in (
        noise,
        np.zeros_like(noise),
        np.full_like(noise, 255),
        (noise > 127).astype(np.uint8) * 255,
        stretched,
    ):
        cars = locate(photo)
        assert cars == locate(photo.copy())
        assert len(cars) <= MOST_CARS
        for car in cars:
            top, left, bottom, right = car.box
            assert 0 <= top < bottom <= 1
            assert 0 <= left < right <= 1
            assert LEAST_SCORE <= car.score <= 1
            assert crop_box(car) in (car.box, WHOLE)


def test_views_of_pixels_and_other_layouts_in_memory() -> None:
    photo = decode(RENDERS[5])
    expected = locate(photo)
    assert expected
    assert locate(np.asfortranarray(photo)) == expected
    twice = np.repeat(photo, 2, axis=1)
    assert locate(twice[:, ::2]) == expected


def test_threads_at_once_give_the_same_boxes() -> None:
    photos = [decode(path) for path in RENDERS[:24]]
    expected = [locate(photo) for photo in photos]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(locate, photos * 3)) == expected * 3


def test_a_mirrored_photo_has_mirrored_boxes() -> None:
    """Vertical and horizontal are not mixed up, and anchors are where the network sees."""
    for path in RENDERS[::40]:
        photo = decode(path)
        top, left, bottom, right = locate(photo)[0].box
        mirrored = locate(np.ascontiguousarray(photo[:, ::-1]))[0].box
        assert overlap(mirrored, (top, 1 - right, bottom, 1 - left)) > 0.85


def test_a_car_in_a_photo_that_is_higher_than_wide_is_found_where_it_is() -> None:
    for number, path in enumerate(RENDERS[::25]):
        photo = decode(path)
        high, wide = photo.shape[:2]
        tall = np.full((2 * wide, wide + 40, 3), GREY, np.uint8)
        top = number * (tall.shape[0] - high) // 8
        tall[top : top + high, 20 : 20 + wide] = photo
        place = (top / tall.shape[0], 20 / tall.shape[1], (top + high) / tall.shape[0], (20 + wide) / tall.shape[1])
        assert overlap(locate(tall)[0].box, within(locate(photo)[0].box, place)) > 0.7, path


def test_a_car_that_its_window_cuts_is_not_taken_for_a_whole_one() -> None:
    """A car that fills a photo of about 1:2 is higher than the square windows."""
    for path in RENDERS[::10]:
        photo = decode(path)
        close = crop(photo, locate(photo)[0].box)
        tall = np.pad(np.asarray(Image.fromarray(close).resize((360, 700))), ((20, 20), (20, 20), (0, 0)), "edge")
        assert overlap(locate(tall)[0].box, (20 / 740, 0.05, 720 / 740, 0.95)) > 0.7, path


def test_windows_cover_the_photo_and_are_few() -> None:
    assert windows(100, 100) == [(0, 100)]
    assert windows(100, 1000) == [(0, 100)]
    for height in range(112, 340):
        whole, *squares = windows(height, 100)
        assert whole == (0, height)
        assert 2 <= len(squares) <= MOST_WINDOWS
        assert {last - first for first, last in squares} == {100}
        assert (squares[0][0], squares[-1][1]) == (0, height)
        assert all(later < last for (_, last), (later, _) in pairwise(squares))
    assert len(windows(100_000, 1)) == 1 + MOST_WINDOWS


def boxed(score: float, side: float) -> LocatedCar:
    return LocatedCar((0.0, 0.0, side, side), score)


def test_the_main_car_is_the_largest_of_those_that_are_clear() -> None:
    assert in_order([]) == []
    best, large, doubtful = boxed(0.8, 0.3), boxed(0.8 * CLEAR + 0.01, 0.6), boxed(0.8 * CLEAR - 0.01, 0.9)
    assert in_order([best, large, doubtful]) == [large, best, doubtful]
    assert in_order([best, doubtful]) == [best, doubtful]
    assert in_order([large, doubtful]) == [doubtful, large]


def test_a_car_that_fills_the_photo_is_not_cropped() -> None:
    side = NEARLY_ALL**0.5
    assert crop_box(boxed(0.9, side + 0.001)) == WHOLE
    assert crop_box(boxed(0.9, side - 0.001)) == (0.0, 0.0, side - 0.001, side - 0.001)


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "SHA256", "0" * 64)
    with pytest.raises(BundleError, match="Install Nameplate again"):
        detector._load.__wrapped__()
    with pytest.raises(BundleError, match="cannot load the car detector"):
        CarDetector(b"no network")


def test_the_boxes_of_the_network_are_sorted_and_bounded() -> None:
    network = CarDetector((resources.files("nameplate.model") / "shipped" / detector.FILE).read_bytes())
    boxes, scores = network.boxes(decode(RENDERS[0]))
    assert boxes.shape == (len(scores), 4)
    assert (np.diff(scores) <= 0).all()
    inside: NDArray[np.bool_] = (boxes >= 0) & (boxes <= 1)
    assert inside.all()
    assert (scores >= LEAST_SCORE).all()
