"""Examples, the camera, and many photos as a table, on the served page in a real Chromium."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nameplate import __version__
from nameplate.demo import photos_folder
from tests.serve.browsing import PHONE, QUIET, Open, identify, violations
from tests.serve.running import serving

for needed in ("fastapi", "uvicorn", "playwright", "axe_playwright_python"):
    pytest.importorskip(needed)

from playwright.sync_api import Page, Route, expect  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CAMERA = ["--use-fake-device-for-media-stream"]
COPIES = """count => {
  const all = new DataTransfer();
  for (let each = 0; each < count; each++) all.items.add(new File(["no photo"], `${each}.jpg`));
  const input = document.getElementById("pick");
  input.files = all.files;
  input.dispatchEvent(new Event("change"));
}"""
"""Picks so many files that are no photos."""
FORMULA = "=1+2,-3.jpg"


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """A browser with a camera, whose picture Chromium makes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, *CAMERA])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("cars196") as running:
        yield running.url


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven photos, the last of which is none and has the name of a formula."""
    folder = tmp_path_factory.mktemp("many")
    for number, each in enumerate(sorted(photos_folder("test").glob("*/001.jpg"))[:6]):
        shutil.copy(each, folder / f"{number}.jpg")
    (folder / FORMULA).write_bytes(b"no photo")
    return [*sorted(folder.glob("?.jpg")), folder / FORMULA]


def in_rows(page: Page, photos: list[Path]) -> None:
    page.set_input_files("#pick", photos)
    expect(page.locator("#table tbody")).to_have_count(len(photos))
    expect(page.locator("#running")).to_be_hidden(timeout=30_000)


def saved(page: Page, name: str) -> str:
    with page.expect_download() as saving:
        page.get_by_role("button", name=name).click()
    return Path(saving.value.path()).read_bytes().decode()


def test_an_example_is_answered(visit: Open) -> None:
    page = visit()
    expect(page.locator(".example")).to_have_count(6)
    page.get_by_role("button", name="Example 6").click()
    expect(page.locator(".card.done h3")).to_have_text("example-6.jpg")
    expect(page.locator("#examples")).to_be_hidden()


@pytest.mark.parametrize("settings", [{}, {**PHONE, "locale": "en-GB"}])
def test_a_photo_is_taken_with_the_live_camera(visit: Open, settings: dict[str, object]) -> None:
    page = visit(permissions=["camera"], **settings)
    expect(page.locator("#capture")).to_be_hidden()
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take this photo").click()
    expect(page.locator(".card.done h3")).to_have_text("camera-1.jpg")
    expect(page.locator("#viewfinder")).to_be_hidden()
    assert page.evaluate("document.getElementById('video').srcObject") is None  # the camera is off


def test_a_camera_that_is_refused_is_told_in_a_sentence(visit: Open) -> None:
    """A window without the permission refuses by itself."""
    page = visit(locale="ru-RU")
    page.get_by_role("button", name="Сфотографировать").click()
    expect(page.locator("#limits")).to_have_text(
        "Странице нельзя пользоваться камерой: разрешите это в настройках браузера или выберите фотографию."
    )
    expect(page.locator("#viewfinder")).to_be_hidden()


def test_many_photos_are_a_table_that_is_filtered_and_saved(visit: Open, photos: list[Path]) -> None:
    page = visit()
    identify(page, *photos[:6])  # still cards
    in_rows(page, photos)
    expect(page.locator("#summary")).to_contain_text("7 photos")
    expect(page.locator("#summary")).to_contain_text("Not readable: 1")
    rows = page.locator("#table tbody")
    page.locator("#only").select_option("unreadable")
    expect(rows.filter(visible=True)).to_have_count(1)
    expect(rows.last).to_contain_text("Not readable")
    page.get_by_role("searchbox").fill("3.jp")
    page.locator("#only").select_option("")
    expect(rows.filter(visible=True)).to_have_count(2)  # 3.jpg, and that of the formula
    rows.nth(3).get_by_role("button", name="Details of 3.jpg").press("Enter")
    expect(rows.nth(3).locator(".card")).to_be_visible()
    expect(rows.nth(3).locator("[data-role=open]")).to_be_focused()
    page.get_by_role("searchbox").fill("nothing of it")
    expect(page.get_by_text("No photo matches.")).to_be_visible()
    found = json.loads(saved(page, "Save all as JSON"))
    table = saved(page, "Save all as CSV")
    assert table.startswith("\ufeff")
    listed = list(csv.DictReader(table.removeprefix("\ufeff").splitlines()))
    assert [row["photo"] for row in listed] == [*(f"{each}.jpg" for each in range(6)), f"'{FORMULA}"]
    for row, each in zip(listed, found, strict=True):
        known = each["verdict"] in ("answer", "unsure")
        assert (row["verdict"], row["nameplate"]) == (each["verdict"], each["nameplate"] if known else "")
    assert found[-1]["photo"] == FORMULA
    page.get_by_role("searchbox").fill("")
    assert violations(page) == []
    page.reload()
    expect(page.locator("#visits li")).to_have_count(13)


@pytest.mark.parametrize("settings", [{"viewport": {"width": 1280, "height": 800}}, PHONE])
def test_fifty_photos_fit_in_three_screens(visit: Open, photos: list[Path], settings: dict[str, object]) -> None:
    """The answers are put in the service's place: fifty would take long."""
    page = visit(**settings)
    row = {"photo": "", "nameplate": "Chevrolet Silverado 1500 Cab 2012", "confidence": 0.5, "verdict": "unsure",
           "candidates": ["a", "b"], "make": None, "make_confidence": None, "top": [], "box": None}  # fmt: skip
    page.route("**/v1/identify*", lambda route: route.fulfill(json={"results": [row] * 4}))
    page.set_input_files("#pick", [photos[0]] * 50)
    expect(page.locator("#table tbody")).to_have_count(50)
    expect(page.locator("#running")).to_be_hidden(timeout=30_000)
    box = page.locator("#results").bounding_box()
    assert box is not None
    assert box["height"] <= 3 * page.viewport_size["height"]  # type: ignore[index]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_no_more_photos_are_taken_than_the_page_says(visit: Open, photos: list[Path]) -> None:
    asked: list[Route] = []

    def slow(page: Page) -> None:
        page.route("**/v1/identify*", lambda _: None)  # never answers
        page.route("**/v1/service", lambda route: asked.append(route))  # answers later

    page = visit(before=slow)
    page.evaluate(COPIES, 501)
    expect(page.locator("#table tbody")).to_have_count(500)
    asked[0].continue_()
    expect(page.locator("#version")).to_contain_text(__version__)
    expect(page.locator("#limits")).to_have_text("501 photos are too many: the first 500 were taken.")
    page.get_by_role("tab", name="Check an advert").click()
    expect(page.locator("#limits")).not_to_have_class(re.compile("bad"))


def test_forced_colours_keep_the_bars_and_the_chosen_tab(visit: Open, photos: list[Path]) -> None:
    page = visit(forced_colors="active")
    colour = "e => getComputedStyle(e).borderTopColor"
    chosen, other = page.get_by_role("tab").all()
    assert chosen.evaluate(colour) != other.evaluate(colour)
    page.get_by_role("button", name="Example 3").click()
    bar = page.locator(".bar").first
    expect(bar).to_be_visible()
    paper = page.locator("html").evaluate("e => getComputedStyle(e).backgroundColor")
    assert bar.locator(".filled").evaluate("e => getComputedStyle(e).backgroundColor") != paper
    assert bar.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"
