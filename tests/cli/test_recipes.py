"""`recipes`, and the sheet that `augment` draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.run import few_photos
from tests.cli.test_train import call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".png", "PNG")])
def test_augment_draws_a_sheet_of_what_the_network_would_see(
    suffix: str,
    kind: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / f"sheet{suffix}"
    options = ("--recipe", "original", "--stage", "1", "--photos", "3", "--pictures", "2")
    code, out, err = call(monkeypatch, capsys, "augment", data, "-o", target, *options, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert [Path(each["photo"]).parent.name for each in said["photos"]] == [
        each["nameplate"] for each in said["photos"]
    ]
    assert len(said["photos"]) == 3
    assert "truncated" in err
    with Image.open(target) as sheet:
        assert sheet.format == kind
        assert sheet.height > sheet.width / 3
    before = target.read_bytes()
    code, _, err = call(monkeypatch, capsys, "augment", data, "-o", target, "--photos", "1")
    assert code == 2
    assert "pass --overwrite" in " ".join(err.split())
    assert target.read_bytes() == before
    code, *_ = call(monkeypatch, capsys, "augment", data, "-o", target, "--photos", "1", "--overwrite")
    assert code == 0
    assert target.read_bytes() != before


def test_recipes_lists_those_that_ship(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(call(monkeypatch, capsys, "recipes", "--json")[1])
    assert {row["name"] for row in rows} >= {"original", "fine-tune", "few", "fast", "head"}
    shown = call(monkeypatch, capsys, "recipes")[1]
    assert all(row["name"] in shown for row in rows)
