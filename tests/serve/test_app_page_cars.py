"""Boxes of cars on the page, in a real Chromium, on scenes joined of embedded renders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from nameplate.model.model import Model
from nameplate.types import PixelBox, Prediction
from tests.scenes import FILES, as_file, locating_bundle, scene
from tests.serve.browsing import PHONE, Open, identify, violations
from tests.serve.running import serving

for needed in ("fastapi", "uvicorn", "playwright", "axe_playwright_python"):
    pytest.importorskip(needed)

from playwright.sync_api import Locator, Page, Route, expect  # noqa: E402

TALL = (480, 960)
PHOTOS = {
    "two.jpg": as_file(scene()),
    "turned.jpg": as_file(scene(), turned=True),
    "large.jpg": as_file(scene(((160, 240, 1920), (2880, 1200, 960)), (3840, 1920))),
    "tall.jpg": as_file(scene(((40, 100, 400), (40, 500, 400)), TALL)),
    "one.jpg": as_file(scene(((300, 150, 300),))),
    "near.jpg": FILES[0].read_bytes(),
    "none.jpg": as_file(np.full((300, 400, 3), 120, np.uint8)),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return locating_bundle(tmp_path_factory.mktemp("page") / "bundle")


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    with serving(bundle, "--feedback", bundle.parent / "feedback.sqlite") as running:
        yield running.url


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    for name, data in PHOTOS.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in PHOTOS}


@pytest.fixture(scope="module")
def found(bundle: Path, photos: dict[str, Path]) -> dict[str, Prediction]:
    """What the model says of all cars of each photo."""
    model = Model.load(str(bundle), runtime="onnxruntime", cars="all")
    return dict(zip(photos, model.predict(list(photos.values())), strict=True))


def lies_over(drawn: Locator, box: PixelBox, photo: Locator, size: tuple[int, int]) -> None:
    """Check that an element lies over a box of the photo, to two pixels of the screen."""
    # Both in one go: the page may be scrolling.
    outer, inner = photo.evaluate(
        "(photo, drawn) => [photo, drawn].map(each => each.getBoundingClientRect().toJSON())", drawn.element_handle()
    )
    assert outer["width"] / outer["height"] == pytest.approx(size[0] / size[1], rel=0.02)
    scale = outer["width"] / size[0]
    assert inner["x"] - outer["x"] == pytest.approx(scale * box.left, abs=2)
    assert inner["y"] - outer["y"] == pytest.approx(scale * box.top, abs=2)
    assert inner["width"] == pytest.approx(scale * (box.right - box.left), abs=2)
    assert inner["height"] == pytest.approx(scale * (box.bottom - box.top), abs=2)


@pytest.mark.parametrize("settings", [{}, PHONE])
@pytest.mark.parametrize(
    ("name", "size"),
    [("two.jpg", (960, 480)), ("turned.jpg", (960, 480)), ("large.jpg", (3840, 1920)), ("tall.jpg", TALL)],
)
def test_a_box_lies_over_each_car(
    visit: Open, photos: dict[str, Path], found: dict[str, Prediction], name: str, size: tuple[int, int],
    settings: dict[str, object],
) -> None:  # fmt: skip
    page = visit(**settings)
    identify(page, photos[name])
    buttons = page.locator(".framed button.car")
    cars = found[name].cars or ()
    expect(buttons).to_have_count(len(cars))
    assert len(cars) > 1
    for number, car in enumerate(cars):
        assert car.box is not None
        lies_over(buttons.nth(number), car.box, page.locator(".framed img"), size)
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]  # type: ignore[index]


def asked(url: str, photo: Path) -> dict[str, Any]:
    """What the service answers for all cars of a photo."""
    answer: dict[str, Any] = httpx.post(f"{url}/v1/identify?all=true", content=photo.read_bytes(), timeout=60).json()
    return answer


def shown(prediction: Prediction) -> list[str]:
    """The names that a card lists: none below 0.5 %, except the first."""
    return [name for place, (name, share) in enumerate(prediction.top) if place == 0 or share >= 0.005]


def said(page: Page) -> list[str]:
    return page.locator(".ranking .name").all_text_contents()


def test_another_car_is_chosen_by_tap_and_by_key(
    visit: Open, photos: dict[str, Path], found: dict[str, Prediction]
) -> None:
    page = visit(**{**PHONE, "locale": "en-GB"})
    identify(page, photos["two.jpg"])
    main, other = found["two.jpg"].cars or ()
    first, second = page.locator("button.car").all()
    expect(page.locator("figcaption")).to_have_text("2 cars were found. Choose one in the photo to see its answer.")
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".card")).to_contain_text("Car 1 of 2")
    assert said(page) == shown(main)
    second.tap()
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(second).to_be_focused()
    expect(first).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".card")).to_contain_text("Car 2 of 2")
    assert said(page) == shown(other)
    expect(page.locator("[data-role=wrong]")).to_have_count(0)
    assert other.nameplate is not None
    expect(page.locator("#status")).to_contain_text(
        other.nameplate if other.verdict in ("answer", "unsure") else "A car that this model does not know"
    )
    page.keyboard.press("Shift+Tab")
    expect(first).to_be_focused()
    assert first.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-pressed", "true")
    assert said(page) == shown(main)
    expect(page.locator("[data-role=wrong]")).to_be_visible()


def test_a_small_box_in_a_large_one_can_be_chosen(visit: Open, url: str, photos: dict[str, Path]) -> None:
    """The service's answer is changed: no render has a car within a car's box."""
    page = visit()
    answer = asked(url, photos["two.jpg"])
    row = answer["results"][0]
    row["cars"][0]["box"] = row["box"] = None  # it fills the photo
    row["cars"][1]["box"] = {"left": 500, "top": 200, "right": 512, "bottom": 210}
    page.route("**/v1/identify*", lambda route: route.fulfill(json=answer))
    identify(page, photos["two.jpg"])
    first, second = page.locator("button.car").all()
    lies_over(first, PixelBox(0, 0, 960, 480), page.locator(".framed img"), (960, 480))
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    first.click(position={"x": 30, "y": 30})
    expect(first).to_have_attribute("aria-pressed", "true")
    box = page.locator("button.car").nth(1).bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2 + 12, box["y"])  # beside it: it has room for a finger
    expect(second).to_have_attribute("aria-pressed", "true")


def test_one_car_has_a_quiet_outline_and_nothing_to_choose(
    visit: Open, photos: dict[str, Path], found: dict[str, Prediction]
) -> None:
    page = visit()
    identify(page, photos["one.jpg"])
    expect(page.locator("button.car")).to_have_count(0)
    expect(page.locator("figcaption")).to_have_count(0)
    expect(page.locator(".card")).not_to_contain_text("Car 1")
    box = found["one.jpg"].box
    assert box is not None
    lies_over(page.locator(".framed .car"), box, page.locator(".framed img"), (960, 480))
    identify(page, photos["near.jpg"])
    expect(page.locator(".framed .car")).to_have_count(0 if found["near.jpg"].box is None else 1)


@pytest.mark.parametrize(
    ("locale", "why"),
    [("en-GB", "No car was found in this photo."), ("ru-RU", "Автомобиль на фотографии не найден.")],
)
def test_without_a_car_the_reason_is_told(visit: Open, photos: dict[str, Path], locale: str, why: str) -> None:
    page = visit(locale=locale)
    identify(page, photos["none.jpg"])
    expect(page.locator(".card")).to_contain_text(why)
    expect(page.locator(".framed")).to_have_count(0)
    expect(page.locator(".photo img")).to_be_visible()


def test_a_part_of_a_car_is_told(visit: Open, url: str, photos: dict[str, Path]) -> None:
    """The service's answer is changed: none of the renders shows an interior."""
    page = visit()
    answer = asked(url, photos["near.jpg"])
    answer["results"][0] |= {"verdict": "not a car", "why": "a part of a car", "candidates": [], "cars": []}
    page.route("**/v1/identify*", lambda route: route.fulfill(json=answer))
    identify(page, photos["near.jpg"])
    expect(page.locator(".card .verdict")).to_have_text("Not a car")
    expect(page.locator(".card")).to_contain_text("This shows a part of a car.")
    expect(page.locator(".card")).to_contain_text("Take a photo of the whole car.")


def test_a_car_that_is_small_in_a_large_photo_is_not_called_a_small_photo(
    visit: Open, url: str, photos: dict[str, Path]
) -> None:
    """The service's answer is changed, because it depends on the thresholds of quality."""
    page = visit()
    answer = asked(url, photos["two.jpg"])
    small = {"verdict": "poor photo", "flaws": ["small"], "candidates": []}
    answer["results"][0]["cars"][1] |= small
    page.route("**/v1/identify*", lambda route: route.fulfill(json=answer))
    identify(page, photos["two.jpg"])
    page.locator("button.car").nth(1).click()
    expect(page.locator(".card")).to_contain_text("The car is too small in this photo: go closer")
    answer["results"][0] |= small | {"box": None, "cars": []}
    identify(page, photos["two.jpg"])
    expect(page.locator(".card")).to_contain_text("The photo is too small")


def test_each_car_has_its_heat_map(visit: Open, photos: dict[str, Path], found: dict[str, Prediction]) -> None:
    page = visit()
    identify(page, photos["two.jpg"])
    main, other = found["two.jpg"].cars or ()
    for number, car in ((1, other), (0, main)):
        page.locator("button.car").nth(number).click()
        page.get_by_role("button", name="Show why").click()
        expect(page.locator("figcaption")).to_contain_text(f"Red speaks for {car.nameplate}")
        frame, image = page.locator(".frame").bounding_box(), page.locator(".framed img").bounding_box()
        assert frame is not None
        assert image is not None
        assert car.box is not None
        scale = image["width"] / 960
        middle = (frame["x"] + frame["width"] / 2 - image["x"]) / scale
        assert car.box.left < middle < car.box.right
        expect(page.get_by_role("button", name="Show the photo")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("button.car")).to_have_count(2)
        expect(page.locator("button.car").nth(number)).to_have_attribute("aria-pressed", "true")


def test_a_model_that_locates_nothing_is_asked_as_before(visit: Open, bundle: Path, photos: dict[str, Path]) -> None:
    with serving(bundle, "--whole-photo") as whole:
        page = visit(at=whole.url)
        asked = []
        page.on("request", lambda request: asked.append(request.url) if "identify" in request.url else None)
        identify(page, photos["two.jpg"])
        expect(page.locator(".framed")).to_have_count(0)
        assert [address.partition("?")[2] for address in asked] == ["model=cars196"]


def test_photos_that_are_given_before_the_models_are_known_wait_for_them(visit: Open, photos: dict[str, Path]) -> None:
    """The list of models is held back on its way."""
    held: list[Route] = []
    page = visit(before=lambda page: page.route("**/v1/models", lambda route: held.append(route)))
    page.set_input_files("#pick", photos["two.jpg"])
    expect(page.locator(".card.waiting")).to_have_count(1)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".card.stopped")).to_have_count(1)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".card.waiting")).to_have_count(1)
    held[0].continue_()
    expect(page.locator("button.car")).to_have_count(2)


def test_boxes_outlast_a_reload(visit: Open, photos: dict[str, Path]) -> None:
    page = visit()
    identify(page, photos["two.jpg"])
    page.locator("button.car").nth(1).click()
    expect(page.locator(".card")).to_contain_text("Car 2 of 2")
    page.reload()
    page.locator("#visits button").click()
    expect(page.locator(".card")).to_contain_text("Car 1 of 2")
    page.locator("button.car").nth(1).click()
    expect(page.locator(".card")).to_contain_text("Car 2 of 2")


def test_an_advert_shows_the_box_of_each_main_car(
    visit: Open, photos: dict[str, Path], found: dict[str, Prediction]
) -> None:
    page = visit(**{**PHONE, "locale": "en-GB"})
    page.get_by_role("tab", name="Check an advert").click()
    page.set_input_files("#pick", [photos["two.jpg"], photos["tall.jpg"], photos["none.jpg"]])
    expect(page.locator("#tray li img")).to_have_count(3)
    page.get_by_label("Which car does the advert name?").fill("BMW")
    page.get_by_role("button", name="Check", exact=True).click()
    parts = page.locator(".parts li")
    expect(parts).to_have_count(3)
    for place, (name, size) in enumerate((("two.jpg", (960, 480)), ("tall.jpg", TALL))):
        box = found[name].box
        assert box is not None
        lies_over(parts.nth(place).locator(".car"), box, parts.nth(place).locator("img"), size)
    expect(parts.nth(2).locator(".car")).to_have_count(0)
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_scenes(visit: Open, photos: dict[str, Path], theme: str) -> None:
    page = visit(**{**PHONE, "locale": "en-GB"}, color_scheme=theme)
    identify(page, photos["two.jpg"], photos["tall.jpg"], photos["one.jpg"], photos["none.jpg"])
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator("button.car").nth(1).click()
    assert violations(page) == []


def test_in_forced_colours_the_chosen_box_differs(visit: Open, photos: dict[str, Path]) -> None:
    page = visit(forced_colors="active")
    identify(page, photos["two.jpg"])
    first, second = page.locator("button.car").all()
    style = "e => [getComputedStyle(e).borderStyle, getComputedStyle(e).borderWidth]"
    assert first.evaluate(style) == ["solid", "5px"]
    assert second.evaluate(style) == ["dashed", "2px"]
    first.focus()
    page.keyboard.press("Tab")
    expect(second).to_be_focused()
    assert second.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert re.match(r"rgb", second.evaluate("e => getComputedStyle(e).outlineColor"))
