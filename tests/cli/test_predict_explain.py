"""`nameplate explain` as a user runs it, without torch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from tests.cli.run import FORBIDDEN, nameplate


def few(tmp_path: Path) -> Path:
    """Ten photos each of three nameplates."""
    for folder in sorted(photos_folder("train").iterdir())[:3]:
        (tmp_path / "few" / folder.name).mkdir(parents=True)
        for photo in sorted(folder.glob("*.jpg"))[:10]:
            shutil.copy(photo, tmp_path / "few" / folder.name)
    return tmp_path / "few"


def render() -> Path:
    return sorted(photos_folder("test").glob("*/*.jpg"))[0]


def test_a_head_with_an_index_shows_its_photos(tmp_path: Path) -> None:
    data, model = few(tmp_path), tmp_path / "model"
    nameplate("train", data, "-o", model, "--index", "--threads", "1")
    assert (model / "index.safetensors").is_file()
    trained = [row for row in (model / "photos.csv").read_text("utf-8").splitlines() if ",train," in row]
    known = next(data.glob("*/*.jpg"))
    shown = ("explain", known, "--model", model, "-o", tmp_path / "p.html", "--threads", "1")
    said = json.loads(nameplate(*shown, "--json").stdout)
    assert said["output"] == str(tmp_path / "p.html")
    assert len(said["nearest"]) == 6
    alike = [each["similarity"] for each in said["nearest"]]
    assert alike == sorted(alike, reverse=True)
    assert all(any(each["path"] in row for row in trained) for each in said["nearest"])
    if any(str(known) in row for row in trained):
        assert alike[0] == pytest.approx(1, abs=1e-2)
        assert known.match(said["nearest"][0]["path"])
    assert (tmp_path / "p.html").read_text("utf-8").count("data:image/jpeg") == 2 + 6
    assert nameplate(*shown).stdout.count("similarity") == 6
    nameplate("train", data, "-o", model, "--overwrite", "--threads", "1")
    assert not (model / "index.safetensors").exists()


def test_the_model_that_ships_explains_and_carries_no_photos(tmp_path: Path) -> None:
    claimed = ("--claimed", "bmw m3 coupe 2012", "-o", "p.png", "--json", "--threads", "1")
    said = json.loads(nameplate("explain", render(), *claimed, cwd=tmp_path).stdout)
    assert said["claimed"] == "BMW M3 Coupe 2012"
    assert 0 <= said["claimed_confidence"] < said["confidence"] <= 1
    assert said["map"] == {"height": 6, "width": 9}
    assert said["nearest"] is None
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "explain.html").exists()


def test_wrong_usage_says_what_is_right(tmp_path: Path) -> None:
    wrong = nameplate("explain", render(), "--claimed", "BMW M3 Coup 2012", check=2, cwd=tmp_path)
    assert "Did you mean 'BMW M3 Coupe 2012'" in wrong.stderr
    wrong = nameplate("explain", render(), "-o", "page.pdf", check=2, cwd=tmp_path)
    assert "must end in .html, .htm, .png" in wrong.stderr
    assert not list(tmp_path.iterdir())
    resumed = nameplate("train", "--resume", tmp_path, "--index", check=2)
    assert "--resume" in resumed.stderr


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff no more"])
def test_an_unreadable_photo_fails_with_its_reason(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    done = nameplate("explain", "x.jpg", "--json", check=1, cwd=tmp_path)
    assert done.stdout == ""
    assert any(reason in done.stderr for reason in ("missing", "empty", "truncated", "damaged", "not a photo"))
    assert not (tmp_path / "explain.html").exists()


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    import subprocess

    heavy = [name for name in FORBIDDEN if name != "matplotlib"]  # gives the colours
    program = (
        "import sys; from nameplate.cli import main; from contextlib import suppress\n"
        f"sys.argv = ['nameplate', 'explain', {str(render())!r}, '-o', {str(tmp_path / 'p.html')!r}]\n"
        "with suppress(SystemExit): main()\n"
        f"sys.exit(', '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "p.html").is_file()
