"""`--tta` on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image, ImageFilter

from nameplate.demo import photos_folder
from nameplate.model.model import Model

from .run import nameplate

PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))[::50]


def test_identify_and_predict_use_the_given_tta(tmp_path: Path) -> None:
    expected = Model.load(runtime="onnxruntime", tta="mirror,scales").predict(PHOTOS)
    shown = json.loads(nameplate("identify", *PHOTOS, "--tta", "mirror,scales", "--json").stdout)
    assert [each["confidence"] for each in shown] == pytest.approx([each.confidence for each in expected], rel=1e-3)
    table = tmp_path / "answers.csv"
    nameplate("predict", "cars196", *PHOTOS, "-o", table, "--tta", "mirror,scales")
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["nameplate"] for row in rows] == [each.nameplate for each in expected]
    assert [float(row["confidence"]) for row in rows] == pytest.approx([e.confidence for e in expected], rel=1e-3)


def test_sharpen_is_a_way_and_changes_blurred_photos_alone(tmp_path: Path) -> None:
    blurred = tmp_path / "blurred.png"
    with Image.open(PHOTOS[0]) as image:
        image.filter(ImageFilter.GaussianBlur(4)).save(blurred)
    plain, shown = (
        json.loads(nameplate("identify", PHOTOS[0], blurred, "--tta", way, "--json").stdout)
        for way in ("none", "sharpen")
    )
    assert shown[0]["confidence"] == plain[0]["confidence"]
    assert shown[1]["confidence"] != plain[1]["confidence"]


def _listed(table: Path, part: Literal["train", "test"], every: int) -> Path:
    """A table of every so many-th of the embedded photos."""
    photos = sorted(photos_folder(part).glob("*/*.jpg"))[::every]
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in photos), "utf-8")
    return table


@pytest.mark.parametrize("command", ["identify", "predict", "submit", "evaluate"])
def test_another_name_is_wrong_usage(tmp_path: Path, command: str) -> None:
    arguments: dict[str, tuple[str | Path, ...]] = {
        "identify": (PHOTOS[0],),
        "predict": ("cars196", PHOTOS[0], "-o", tmp_path / "x.csv"),
        "submit": ("cars196", tmp_path, "-o", tmp_path / "x.csv"),
        "evaluate": ("cars196", tmp_path),
    }
    said = nameplate(command, *arguments[command], "--tta", "mirrors", check=2).stderr
    assert "Unknown test-time augmentation 'mirrors'. There are none, mirror," in said


def test_evaluate_says_whether_it_is_a_gain(tmp_path: Path) -> None:
    trained, few = tmp_path / "bundle", _listed(tmp_path / "few.csv", "test", 10)
    nameplate("train", _listed(tmp_path / "train.csv", "train", 5), "-o", trained, "--holdout", "0", "--json")
    plain = json.loads(nameplate("evaluate", trained, few, "--json").stdout)
    assert "tta" not in plain
    mirrored = json.loads(nameplate("evaluate", trained, few, "--tta", "mirror", "--json").stdout)
    tta = mirrored["tta"]
    assert tta["name"] == "mirror"
    assert tta["gain"] == pytest.approx(mirrored["top1"] - plain["top1"], abs=1e-9)
    assert tta["interval"][0] <= tta["gain"] <= tta["interval"][1]
    assert tta["told"] is (tta["p"] < 0.05)
    assert tta["log_loss"] == mirrored["log_loss"] != plain["log_loss"] == tta["log_loss_plain"]
    assert tta["photos_per_second"] > 0
    said = nameplate("evaluate", trained, few, "--tta", "mirror").stdout
    assert "--tta mirror against one look: top-1 " in said
    assert "noise" in said
