"""The page of a first look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nameplate.demo import photos_folder
from nameplate.report.look import look
from tests.cli.run import nameplate


def test_the_page_has_counts_parts_samples_and_copies_and_a_notebook_shows_it(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for folder in sorted(photos_folder(part).iterdir())[:2]:
            target = tmp_path / "cars" / part / f"{folder.name} <b>"
            target.mkdir(parents=True)
            for photo in sorted(folder.iterdir())[:3]:
                shutil.copy(photo, target)
    first = sorted((tmp_path / "cars" / "train").glob("*/*"))[0]
    shutil.copy(first, tmp_path / "cars" / "test" / first.parent.name / "leaked.jpg")
    page = look(tmp_path / "cars")
    written = page.write(tmp_path / "look.html").read_text("utf-8")
    assert "13 photos of 2 nameplates" in written
    assert "Leaks between parts" in written
    assert "leaked.jpg" in written
    assert written.count("data:image/jpeg") >= 10
    assert "<script" not in written
    assert " <b>" not in written.replace("<div><b>", "").split("</nav>")[1].split("<h2")[2]
    assert page._repr_html_().startswith('<iframe srcdoc="')
    assert "13 photos" in page._repr_html_()


def test_the_command_prints_counts_and_the_next_step(tmp_path: Path) -> None:
    done = nameplate("look", photos_folder("test"), "-o", tmp_path / "look.html")
    assert "200 photos of 10 nameplates" in done.stdout
    assert "mean 320 × 240" in done.stdout
    assert "nameplate audit" in done.stdout
    said = json.loads(nameplate("look", photos_folder("test"), "-o", tmp_path / "look.html", "--json").stdout)
    assert said["findings"]["leak"] == 0
    assert said["parts"][0]["mean_size"] == [320, 240]
    assert "must end with .html" in nameplate("look", photos_folder("test"), "-o", tmp_path / "look", check=2).stderr
