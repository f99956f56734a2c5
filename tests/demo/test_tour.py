"""The tour, and the embedded photos that it uses."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from nameplate.images import read_header
from tests.cli.run import nameplate

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tour's folder and what it said."""
    folder = tmp_path_factory.mktemp("tour") / "demo"
    return folder, nameplate("demo", "-o", folder).stdout


def test_the_embedded_photos_are_as_promised() -> None:
    every = [path.read_bytes() for part in ("train", "test") for path in photos_folder(part).glob("*/*.jpg")]
    assert len({hashlib.sha256(data).digest() for data in every}) == 1200
    assert sum(map(len, every)) <= 10_000_000
    headers = {(h.format, h.width, h.height, h.orientation) for h in map(read_header, every)}
    assert headers == {("JPEG", 320, 240, 1)}
    for part, count in (("train", 100), ("test", 20)):
        assert {len(list(folder.iterdir())) for folder in photos_folder(part).iterdir()} == {count}


def test_the_tour_shows_each_step_and_the_next_command(tour: tuple[Path, str]) -> None:
    folder, said = tour
    assert [word in said for word in ("1. Look", "2. Train", "3. Evaluate", "4. Identify", "5. See")] == [True] * 5
    assert "nameplate train my-photos -o my-model" in said
    top1 = float(re.findall(r"top-1 ([\d.]+) %", said)[0])
    assert 70 < top1 < 100
    assert (folder / "model" / "bundle.json").is_file()


def test_the_tours_model_can_be_used(tour: tuple[Path, str]) -> None:
    photo = sorted(photos_folder("test").glob("Tamblin Stow/*"))[0]
    assert "Tamblin Stow" in nameplate("identify", "--model", tour[0] / "model", photo).stdout


def test_the_tour_can_be_taken_again_into_the_same_folder(tour: tuple[Path, str]) -> None:
    assert "5. See" in nameplate("demo", "-o", tour[0]).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_shows_every_image_in_a_browser(tour: tuple[Path, str], tmp_path: Path) -> None:
    page = (tour[0] / "index.html").read_text("utf-8")
    check = "<script>document.title = 'broken ' + [...document.images].filter(i => !i.naturalWidth).length"
    (tmp_path / "page.html").write_text(
        page.replace("</body>", check + " + ' of ' + document.images.length;</script></body>"), "utf-8"
    )
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync --dump-dom"
    quiet = "--disable-background-networking --disable-component-update --virtual-time-budget=5000"
    done = subprocess.run(
        [str(CHROMIUM), *flags.split(), *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<title>broken (\d+) of (\d+)</title>", done.stdout)
    assert found, done.stdout[:500]
    assert int(found[1]) == 0
    assert int(found[2]) > 60
