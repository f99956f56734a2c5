"""A real Chromium for the tests of the page. A module that takes `visit` has a fixture `url` of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.serve.browsing import DESK, Open

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Open]:
    """Opens the page in a browser window of its own; no script may fail in it, and the policy must hold."""
    from playwright.sync_api import expect

    windows = []
    wrong: list[str] = []

    def open_page(*, at: str = url, before: Callable[[Page], None] | None = None, **settings: object) -> Page:
        window = browser.new_context(**{**DESK, **settings})  # type: ignore[arg-type]
        window.set_default_timeout(10_000)
        windows.append(window)
        page = window.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        if before is not None:
            before(page)
        page.goto(at)
        expect(page.locator("#limits")).not_to_be_empty()
        return page

    yield open_page
    for window in windows:
        window.close()
    assert wrong == []
