"""What the tests of the page in a browser share; `conftest.py` has their fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "locale": "ru-RU"}
DESK = {"viewport": {"width": 1100, "height": 900}, "locale": "en-GB"}
Open: TypeAlias = "Callable[..., Page]"


def identify(page: Page, *photos: Path) -> None:
    """Pick photos and wait for all answers."""
    from playwright.sync_api import expect

    page.set_input_files("#pick", photos)
    expect(page.locator("#cards .card.done")).to_have_count(len(photos))
    expect(page.locator("#running")).to_be_hidden()


def violations(page: Page) -> list[str]:
    """What axe finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']} {each['nodes'][0]['failureSummary']}" for each in found]
