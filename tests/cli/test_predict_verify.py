"""`nameplate verify`, and the verdicts that `identify` and `predict` show, as a user runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from pyarrow.parquet import read_table

from nameplate.demo import photos_folder
from tests.cli.run import nameplate

PHOTO = sorted(photos_folder("test").glob("*/*.jpg"))[0]


def test_one_advert_as_json(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    done = nameplate("verify", "--claimed", "audi", PHOTO, tmp_path / "no.jpg", "--json")
    said = json.loads(done.stdout)
    assert said["claimed"] == "audi"
    assert said["verdict"] in ("accept", "reject", "unsure")
    assert all(name.startswith("Audi") for name in said["nameplates"])
    assert len(said["nameplates"]) > 5
    assert [photo["verdict"] == "unreadable" for photo in said["photos"]] == [False, True]
    assert said["photos"][1]["score"] is None
    assert said["accept_above"] >= said["reject_below"]
    assert set(said["false_accepts"]) == {"mixed", "random", "alike"}


def test_one_advert_in_words() -> None:
    done = nameplate("verify", "--claimed", "BMW M3", PHOTO)
    assert done.stdout.splitlines()[0].split(":")[0] in ("accept", "reject", "unsure")
    assert PHOTO.name in done.stdout


def test_a_table_of_adverts(tmp_path: Path) -> None:
    (tmp_path / "adverts.csv").write_text(
        f"advert,claimed,photo\n1,BMW,{PHOTO}\n1,BMW,{PHOTO}\n2,Lada Niva,{PHOTO}\n", "utf-8"
    )
    done = nameplate("verify", "--batch", tmp_path / "adverts.csv", "-o", tmp_path / "out.csv", "--json")
    assert json.loads(done.stdout)["adverts"] == 2
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photos"] for row in rows] == ["2", "1"]
    assert (rows[1]["verdict"], rows[1]["code"]) == ("unsure", "unknown claim")
    assert json.loads(done.stdout)["unknown_claims"] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([str(PHOTO)], "--claimed NAME"),
        (["--claimed", "BMW"], "Give an advert's photos"),
        (["--claimed", "Lada Niva", str(PHOTO)], "knows no nameplate 'Lada Niva'"),
        (["--claimed", "BMW", "--false-accepts", "0.9", str(PHOTO)], "rate of false accepts is 0.9"),
        (["--claimed", "BMW", "--false-accepts-of", "odd", str(PHOTO)], "Unknown wrong claims 'odd'"),
        (["--batch", "adverts.csv"], "give --output"),
        (["--batch", "adverts.csv", "-o", "out.csv", "--claimed", "BMW"], "neither photos nor --claimed"),
    ],
)
def test_wrong_usage_is_reported(arguments: list[str], problem: str) -> None:
    assert problem in " ".join(nameplate("verify", *arguments, check=2).stderr.split())


def test_nothing_readable_fails(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    done = nameplate("verify", "--claimed", "BMW", tmp_path / "no.jpg", check=1)
    assert "no photo can be read" in done.stdout


def test_identify_and_predict_carry_verdicts(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"no photo")
    said = json.loads(nameplate("identify", PHOTO, tmp_path / "no.jpg", "--json").stdout)
    assert said[1]["verdict"] == "unreadable"
    assert said[0]["verdict"] in ("answer", "unsure", "unknown car", "not a car")
    assert said[0]["verdict"] in nameplate("identify", PHOTO).stdout
    nameplate("predict", "cars196", PHOTO, tmp_path / "no.jpg", "-o", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [said[0]["verdict"], "unreadable"]


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    """A photo of a car at night: of none that the model knows, as all renders."""
    path = tmp_path / "dark.jpg"
    Image.open(PHOTO).convert("RGB").point(lambda value: value // 8).save(path, quality=95)
    return path


def test_a_poor_photo_is_reported_by_identify_predict_and_verify(dark: Path, tmp_path: Path) -> None:
    said = json.loads(nameplate("identify", dark, PHOTO, "--json").stdout)
    assert (said[0]["verdict"], said[0]["flaws"], said[0]["candidates"]) == ("poor photo", ["dark"], [])
    assert "flaws" not in said[1]  # a good photo's answer is what it was before there were flaws
    assert "poor photo: too dark to judge by; take a better one" in nameplate("identify", dark).stdout
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        nameplate("predict", "cars196", dark, PHOTO, "-o", tmp_path / name)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-6:] == ["flaws", "box_left", "box_top", "box_right", "box_bottom", "cars"]
    assert [(row["verdict"], row["flaws"]) for row in rows] == [("poor photo", "dark"), (said[1]["verdict"], "")]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert (lines[0]["verdict"], lines[0]["flaws"]) == ("poor photo", ["dark"])
    assert read_table(tmp_path / "out.parquet").column("flaws").to_pylist() == ["dark", None]
    shown = nameplate("verify", "--claimed", "BMW M3", dark).stdout
    assert shown.startswith("unsure: BMW M3\n  no photo is good enough to judge by: too dark\n")
    assert "left out" in shown
    assert "(poor photo: too dark)" in shown
