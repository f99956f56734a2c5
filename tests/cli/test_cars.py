"""Which cars of a photo are named, on the command line: --all-cars, --whole-photo, and what tables and bundles hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nameplate.model.bundle import load_bundle
from tests import scenes
from tests.cli.run import few_photos, nameplate
from tests.scenes import locating_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that ships, which locates cars whatever the shipped bundle says."""
    target = tmp_path_factory.mktemp("bundles") / "locating"
    return locating_bundle(target)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cars on grey."""
    path = tmp_path_factory.mktemp("photos") / "scene.png"
    Image.fromarray(scenes.scene()).save(path)
    return path


@pytest.fixture(scope="module")
def grey(scene: Path) -> Path:
    """No car at all."""
    path = scene.with_name("grey.png")
    Image.new("RGB", (300, 200), (120, 120, 120)).save(path)
    return path


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(nameplate("identify", *arguments, "--json").stdout)
    return found


def test_identify_names_the_main_car_all_cars_or_the_whole_photo(bundle: Path, scene: Path, grey: Path) -> None:
    [main, nothing] = rows("--model", bundle, scene, grey)
    assert main["box"].keys() == {"left", "top", "right", "bottom"}
    assert "cars" not in main
    assert (nothing["box"], nothing["why"]) == (None, "no car found")
    [every, none] = rows("--model", bundle, scene, grey, "--all-cars")
    assert {key: every[key] for key in main} == main
    assert [car["box"]["left"] > 600 for car in every["cars"]] == [False, True]
    assert none["cars"] == []
    [whole, _] = rows("--model", bundle, scene, grey, "--whole-photo")
    assert whole["box"] is None
    assert "why" not in whole
    assert whole["confidence"] != main["confidence"]
    printed = nameplate("identify", "--model", bundle, scene, grey, "--all-cars").stdout
    assert "car 1 of 2" in printed
    assert "car 2 of 2" in printed
    assert "no car found" in printed
    left, top = main["box"]["left"], main["box"]["top"]
    assert f"pixels at {left}, {top})" in printed


@pytest.mark.parametrize("command", [("identify",), ("predict", "cars196", "-o", "never.csv")])
def test_both_options_are_wrong_usage(command: tuple[str, ...], scene: Path) -> None:
    done = nameplate(*command, scene, "--all-cars", "--whole-photo", check=2)
    assert "--whole-photo locates no cars" in done.stderr


def test_tables_hold_the_boxes_and_the_cars(bundle: Path, scene: Path, grey: Path, tmp_path: Path) -> None:
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        nameplate("predict", bundle, scene, grey, "-o", tmp_path / name, "--all-cars")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet").to_pylist()
    sides = ("left", "top", "right", "bottom")
    for row, line, other in zip(table, lines, parquet, strict=True):
        box = line["box"] or dict.fromkeys(sides)
        assert [other[f"box_{side}"] for side in sides] == [box[side] for side in sides]
        assert [row[f"box_{side}"] for side in sides] == ["" if box[s] is None else str(box[s]) for s in sides]
        assert json.loads(row["cars"]) == json.loads(other["cars"]) == line["cars"]
    assert [len(line["cars"]) for line in lines] == [2, 0]
    assert lines[1]["why"] == "no car found"

    nameplate("predict", bundle, scene, grey, "-o", tmp_path / "plain.csv")
    with (tmp_path / "plain.csv").open(encoding="utf-8", newline="") as file:
        plain = list(csv.DictReader(file))
    assert [row["cars"] for row in plain] == ["", ""]
    assert plain[0]["box_left"] == table[0]["box_left"] != ""


def test_another_choice_of_cars_is_another_job(bundle: Path, scene: Path, tmp_path: Path) -> None:
    nameplate("predict", bundle, scene, "-o", tmp_path / "job", "--format", "csv", "--all-cars")
    nameplate("predict", bundle, scene, "-o", tmp_path / "job", "--format", "csv", "--all-cars")
    done = nameplate("predict", bundle, scene, "-o", tmp_path / "job", "--format", "csv", check=1)
    assert "cars" in done.stderr


def test_a_head_names_what_it_was_fitted_on(bundle: Path, tmp_path: Path) -> None:
    data = few_photos(tmp_path / "data")
    for name, options in (("crops", []), ("whole", ["--whole-photo"])):
        nameplate("train", data, "-o", tmp_path / name, "--backbone", bundle, *options)
    located = {name: load_bundle(tmp_path / name).manifest.preprocess.locate for name in ("crops", "whole")}
    assert located == {"crops": "ssd", "whole": "none"}
    photo = next((data / "Halden Pine").glob("*.jpg"))
    assert rows("--model", tmp_path / "crops", photo)[0]["box"] is not None
    assert rows("--model", tmp_path / "whole", photo)[0]["box"] is None


def test_verify_and_explain_take_the_whole_photo_too(bundle: Path, scene: Path, tmp_path: Path) -> None:
    claimed = "Jeep Liberty"
    plain, whole = (
        json.loads(nameplate("verify", scene, "--claimed", claimed, "--model", bundle, *option, "--json").stdout)
        for option in ([], ["--whole-photo"])
    )
    assert len(plain["photos"][0]["cars"]) == 2
    assert "cars" not in whole["photos"][0]
    pages = [tmp_path / "crop.png", tmp_path / "whole.png"]
    for page, option in zip(pages, ([], ["--whole-photo"]), strict=True):
        nameplate("explain", scene, "--model", bundle, "-o", page, *option)
    crop, full = (np.asarray(Image.open(page)) for page in pages)
    # Far from the main car nothing is coloured, unless the whole photo was named.
    corner = (slice(0, 20), slice(-60, None))
    assert np.ptp(crop[corner].astype(int), axis=-1).max() <= 2
    assert np.ptp(full[corner].astype(int), axis=-1).max() > 2
