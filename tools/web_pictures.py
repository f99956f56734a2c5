"""Makes the pictures of an exported site that docs/web.md shows, in Chromium: on a desk, and on a dark Russian phone.

nameplate train src/nameplate/demo/photos/train -o designs
python -m tools.web_pictures designs docs/images
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.web_site import served
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.model.bundle import load_bundle
from nameplate.web.onnxruntime_web import onnxruntime_web
from nameplate.web.parity import write_files
from nameplate.web.site import site_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTOS = ("Ostrel Tarn/000.jpg", "Halden Pine/000.jpg")
WINDOWS: dict[str, dict[str, object]] = {
    "web.jpg": {"viewport": {"width": 1100, "height": 980}, "locale": "en-GB"},
    "web-phone.jpg": {
        "viewport": {"width": 360, "height": 1020},
        "device_scale_factor": 1.5,
        "is_mobile": True,
        "has_touch": True,
        "locale": "ru-RU",
        "color_scheme": "dark",
    },
}
"""Picture → the settings of Playwright's window."""
PATIENCE = 120_000
"""Milliseconds until the model must have answered."""


def take(browser: Browser, address: str, photos: list[Path], window: dict[str, object], picture: Path) -> None:
    """Have the site name photos, and take a picture of the window once it also works without a network."""
    page = browser.new_page(**window)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.set_input_files("#pick", photos)
    page.locator("#cards .card.done").nth(len(photos) - 1).wait_for()
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.wait_for_timeout(500)  # what fades in
    page.evaluate("scrollTo(0, 0)")
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(picture, quality=82, optimize=True)
    page.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="a bundle that knows the embedded photos' designs")
    parser.add_argument("images", type=Path, help="the folder of the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "site", site_files(load_bundle(given.bundle), onnxruntime_web()))
        photos = [folder / f"{Path(photo).parent.name.lower().replace(' ', '-')}.jpg" for photo in PHOTOS]
        for photo, copy in zip(PHOTOS, photos, strict=True):
            shutil.copy(photos_folder("test") / photo, copy)
        with served(folder / "site") as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
            for picture, window in WINDOWS.items():
                take(browser, address, photos, window, given.images / picture)
            browser.close()


if __name__ == "__main__":
    main()
