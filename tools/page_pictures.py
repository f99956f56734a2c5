"""Takes pictures of the served page: in both languages, light and dark, on a phone and a desk, with all it shows.

    python -m tools.page_pictures FOLDER        # all of them, to look at
    python -m tools.page_pictures --docs        # docs/images/page.jpg and page-phone.jpg

It needs Chromium, and trains a head on the embedded renders first, which the pictures show.
"""

from __future__ import annotations

import argparse
import io
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright
from tests.cli.run import nameplate
from tests.scenes import as_file, scene
from tests.serve.browsing import PHONE, QUIET
from tests.serve.running import serving

from nameplate.demo import photos_folder

IMAGES = Path(__file__).parents[1] / "docs" / "images"
LOCALES = ("en-GB", "ru-RU")
THEMES = ("light", "dark")
SIZES: dict[str, dict[str, object]] = {
    "phone": {**PHONE, "device_scale_factor": 2},
    "desk": {"viewport": {"width": 1280, "height": 800}},
}
CARDS = 6
"""More photos are shown as a table."""
SECONDS = 60_000
"""The longest wait, in milliseconds; the machine may be busy."""


def empty(_: Page) -> None:
    """Nothing was sent yet."""


def several(page: Page) -> None:
    """A photo of several cars."""
    _send(page, {"street.jpg": as_file(scene())})


def one(page: Page) -> None:
    """A photo, with its heat map."""
    _send(page, _photos("Halden Pine"))
    _explain(page)


def both(page: Page) -> None:
    """Both of these, one card each."""
    _send(page, {"street.jpg": as_file(scene()), **_photos("Halden Pine")})
    _explain(page)


def table(page: Page) -> None:
    """More photos than are shown as cards, one of which is none."""
    _send(page, {**_photos("*"), "notes.jpg": b"no photo"})


def verify(page: Page) -> None:
    """An advert's photos, and what it claims."""
    _send(page, _photos("Halden Pine") | _photos("Halden Pine Estate"))
    page.locator("#tab-verify").click()
    page.locator("#claimed").fill("Halden Pine")
    page.locator("#claimed").press("Enter")
    expect(page.locator("#running")).to_be_hidden(timeout=SECONDS)
    expect(page.locator("#cards > *").first).to_be_visible(timeout=SECONDS)


VIEWS: dict[str, Callable[[Page], None]] = {
    each.__name__: each for each in (empty, one, several, both, table, verify)
}  # fmt: skip


def _photos(design: str) -> dict[str, bytes]:
    """A photo of each design that matches, which the model has not been trained on: file's name → bytes."""
    found = sorted(photos_folder("test").glob(f"{design}/001.jpg"))
    return {f"{path.parent.name.lower().replace(' ', '-')}-1.jpg": path.read_bytes() for path in found}


def _explain(page: Page) -> None:
    """Have the last card show what speaks for its answer."""
    with page.expect_response("**/v1/identify*heatmap*", timeout=SECONDS):
        page.locator("[data-role=heat]").last.click()
    page.wait_for_timeout(1000)  # it is drawn


def _send(page: Page, photos: dict[str, bytes]) -> None:
    """Pick photos, and wait for their answers."""
    files: list[FilePayload] = [
        {"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in photos.items()
    ]
    page.set_input_files("#pick", files)
    there = page.locator("#table tbody") if len(files) > CARDS else page.locator("#cards .card.done")
    expect(there).to_have_count(len(files), timeout=SECONDS)
    expect(page.locator("#running")).to_be_hidden(timeout=SECONDS)


def picture(browser: Browser, url: str, view: str, size: str, locale: str, theme: str) -> bytes:
    """Open the page, bring it into a view, and return a PNG of the whole of it."""
    window = browser.new_context(**{**SIZES[size], "locale": locale, "color_scheme": theme})  # type: ignore[arg-type]
    try:
        page = window.new_page()
        page.goto(url)
        expect(page.locator("#limits")).not_to_be_empty(timeout=SECONDS)
        VIEWS[view](page)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
        # Not `full_page`: for that, Chromium is a moment without touch, and the page another.
        width, height = page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        return page.screenshot()
    finally:
        window.close()


@contextmanager
def served_page() -> Iterator[tuple[Browser, str]]:
    """A browser, and the address of a service that knows the designs of the embedded renders."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, ExitStack() as stack:
        nameplate("train", photos_folder("train"), "-o", Path(folder) / "designs", "--no-mirror")
        running = stack.enter_context(serving(Path(folder) / "designs", "--feedback", Path(folder) / "feedback.db"))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield browser, running.url
        browser.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--view", action="append", choices=VIEWS, help="only these in FOLDER; repeatable")
    arguments = parser.parse_args()
    with served_page() as (browser, url):
        if arguments.docs:
            for name, view, size, locale, theme in (
                ("page", "both", "desk", "en-GB", "light"),
                ("page-phone", "several", "phone", "ru-RU", "dark"),
            ):
                shot = Image.open(io.BytesIO(picture(browser, url, view, size, locale, theme))).convert("RGB")
                shot.save(IMAGES / f"{name}.jpg", quality=85, optimize=True)
        if arguments.folder is not None:
            arguments.folder.mkdir(parents=True, exist_ok=True)
            for view, size, locale, theme in itertools.product(arguments.view or VIEWS, SIZES, LOCALES, THEMES):
                shown = picture(browser, url, view, size, locale, theme)
                (arguments.folder / f"{view}-{size}-{locale[:2]}-{theme}.png").write_bytes(shown)


if __name__ == "__main__":
    main()
