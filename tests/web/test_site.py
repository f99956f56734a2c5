"""An exported site in a real Chromium: its resizing, its answers, and what it does without its server."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.images.transforms import preprocess
from nameplate.model.bundle import load_bundle
from nameplate.model.model import Model
from nameplate.storage import sha256
from nameplate.types import Preprocess
from nameplate.web.site import site_files
from tests.images import make_golden
from tests.serve.browsing import DESK, PHONE, violations

for needed in ("playwright", "axe_playwright_python"):
    pytest.importorskip(needed)

from playwright.sync_api import expect  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

GAP = 0.02
"""The largest difference of a probability from that of `identify`: the browser decodes JPEGs by itself."""
ADD_INPUT = """document.body.append(
  Object.assign(document.createElement("input"), { type: "file", id: "asked", multiple: true }))"""
RESIZE = """async (cases) => {
  const { preprocess, squash } = await import("./engine/resize.js");
  const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  return Promise.all(cases.map(async ({ height, width, data, size }) => {
    const photo = { height, width, data: bytes(data) };
    const made = typeof size === "number" ? squash(photo, size) : preprocess(photo, size);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", made.data));
    return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }));
}"""
"""Resizes photos by the engine; the SHA-256 of each result."""


class Server:
    """A plain file server on a port of its own, which can be stopped."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(QuietHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, runtime_of_sites: dict[str, bytes]) -> Path:
    """The site of the bundle that ships."""
    folder = tmp_path_factory.mktemp("site")
    for path, data in site_files(load_bundle("cars196"), runtime_of_sites).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    running = Server(site)
    yield running
    running.stop()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens the site; no script may fail in it, the policy must hold, and nothing may be sent."""
    windows, wrong = [], []

    def watched(request: Request) -> None:
        if (
            request.method != "GET"
            or request.post_data is not None
            or not request.url.startswith((server.url, "data:", "blob:"))
        ):
            wrong.append(f"{request.method} {request.url}")

    def open_site(**settings: Any) -> Page:
        window = browser.new_context(**{**DESK, **settings})
        window.set_default_timeout(60_000)
        windows.append(window)
        page = window.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        window.on("request", watched)
        page.goto(server.url)
        expect(page.locator("#limits")).not_to_be_empty()
        return page

    yield open_site
    for window in windows:
        window.close()
    assert wrong == []


@pytest.fixture(scope="module")
def cars() -> list[Path]:
    return [sorted(folder.iterdir())[0] for folder in sorted(photos_folder("test").iterdir())][:5]


def loaded(page: Page) -> None:
    expect(page.locator("#loading")).to_contain_text("without a network", timeout=60_000)


def case(photo: NDArray[np.uint8], size: object) -> dict[str, object]:
    height, width = photo.shape[:2]
    return {"height": height, "width": width, "data": base64.b64encode(photo.tobytes()).decode(), "size": size}


def test_resizing_equals_pillows_to_the_last_bit(browser: Browser, server: Server) -> None:
    cases, expected = [], []
    for turned in (False, True):
        photo = np.ascontiguousarray(make_golden.wide().transpose(1, 0, 2) if turned else make_golden.wide())
        with np.load(make_golden.GOLDEN) as golden:
            for size in make_golden.CASES:
                cases.append(case(photo, asdict(size)))
                expected.append(golden[make_golden.name(size, turned)])
    random = np.random.default_rng(0)
    for height, width in [(1, 700), (700, 1), (640, 480), (333, 999), (1001, 402), (193, 290), (90, 70)]:
        photo = random.integers(0, 256, (height, width, 3), np.uint8)
        cases.append(case(photo, asdict(Preprocess(192, 288, "squash", "bicubic"))))
        expected.append(preprocess(photo, Preprocess(192, 288, "squash", "bicubic")))
        cases.append(case(photo, 320))
        small = Image.fromarray(photo).resize((320, 320), Image.Resampling.BILINEAR, reducing_gap=1.0)
        expected.append(np.asarray(small))
    page = browser.new_page()
    page.goto(f"{server.url}site.json")  # a document of the site that loads no model
    assert page.evaluate(RESIZE, cases) == [sha256(each.tobytes()) for each in expected]
    page.close()


def test_the_answers_are_those_of_identify(visit: Callable[..., Page], cars: list[Path]) -> None:
    """Renders with one car or several; the model knows none of them, so that all verdicts come about."""
    page = visit()
    page.set_input_files("#pick", cars)
    expect(page.locator("#cards .card.done")).to_have_count(len(cars), timeout=60_000)
    page.evaluate(ADD_INPUT)
    page.set_input_files("#asked", cars)
    asked = "async (input) => (await (await import('./page/service.js')).identify([...input.files], {})).results"
    rows = page.locator("#asked").evaluate(asked)
    for row, answer in zip(rows, Model.load(runtime="onnxruntime").predict(cars), strict=True):
        assert (row["nameplate"], row["verdict"]) == (answer.nameplate, answer.verdict)
        listed = {each["nameplate"]: each["confidence"] for each in row["top"]}
        assert all(abs(listed[name] - share) < GAP for name, share in answer.top[:3])
        assert (row["box"] is None) == (answer.box is None)
        if answer.box is not None:
            box = asdict(answer.box)
            assert all(abs(row["box"][side] - box[side]) <= 2 for side in box)


def test_it_works_without_its_server_after_one_visit(
    visit: Callable[..., Page], server: Server, cars: list[Path]
) -> None:
    page = visit()
    loaded(page)
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    server.stop()
    page.reload()
    loaded(page)
    page.set_input_files("#pick", cars[0])
    expect(page.locator("#cards .card.done")).to_have_count(1, timeout=60_000)


def test_all_files_are_listed_and_the_service_worker_has_their_version(site: Path) -> None:
    described = json.loads((site / "site.json").read_bytes())
    assert {each["path"] for each in described["files"]} | {"site.json", "offline.js", ".nojekyll"} == {
        path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()
    }
    for each in described["files"]:
        assert sha256((site / each["path"]).read_bytes()) == each["sha256"]
    assert described["digest"] in (site / "offline.js").read_text("utf-8")


def test_on_a_phone_in_russian(visit: Callable[..., Page], cars: list[Path], tmp_path: Path) -> None:
    page = visit(**PHONE)
    expect(page.locator("#limits")).to_contain_text("не покидают это устройство")
    expect(page.locator("#about-title")).to_have_text("Знает 206 моделей 1991–2012 годов, марок: 52")
    expect(page.get_by_role("button", name="Сфотографировать")).to_be_visible()
    assert not page.get_by_text("Проверить объявление").is_visible()  # which needs a service
    (tmp_path / "list.jpg").write_bytes(b"no photo")
    page.set_input_files("#pick", [cars[0], tmp_path / "list.jpg"])
    expect(page.locator("#cards .card.done")).to_have_count(2, timeout=60_000)
    expect(page.locator("#cards .card").nth(1)).to_contain_text("Это не фотография")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []
