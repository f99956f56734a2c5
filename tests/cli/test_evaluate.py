"""`nameplate evaluate`, as a process on embedded photos."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nameplate.demo import photos_folder
from nameplate.types import percent
from tests.cli.run import nameplate

TRAIN, TEST = Path(str(photos_folder("train"))), Path(str(photos_folder("test")))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head fitted on the embedded training photos."""
    target = tmp_path_factory.mktemp("models") / "mine"
    nameplate("train", TRAIN, "-o", target)
    return target


@pytest.fixture(scope="module")
def other(bundle: Path) -> Path:
    """One fitted on three nameplates less."""
    rows = [
        (path, path.parent.name)
        for folder in sorted(TRAIN.iterdir())[:7]
        for path in sorted(folder.iterdir())
        if path.suffix == ".jpg"
    ]
    table = bundle.parent / "seven.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    target = bundle.parent / "other"
    nameplate("train", table, "-o", target, "--no-mirror")
    return target


def test_page_json_table_card_and_comparison_at_once(bundle: Path, other: Path, tmp_path: Path) -> None:
    page, card = tmp_path / "new folder" / "r.html", tmp_path / "card.md"
    card.write_text("# Mine\n\nWhat I know of it.\n", "utf-8")
    done = nameplate("evaluate", bundle, TRAIN, TEST, "-o", page, "--against", other, "--card", card, "--json")
    said = json.loads(done.stdout)
    assert said == json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert said["left_out"]["trained"] > 100
    assert said["photos"] == page.with_suffix(".photos.csv").read_text("utf-8").count("\n") - 1
    assert said["against"]["same_nameplates"] is False
    assert 100 < said["against"]["photos"] < said["photos"]
    assert "trained as" in page.read_text("utf-8")
    text = card.read_text("utf-8")
    assert text.startswith("# Mine\n\nWhat I know of it.\n")
    for part in ("model", "figures", "makes", "hardest"):
        assert f"<!-- measured: {part} -->" in text
    assert percent(said["top1"]) in text
    assert "photos a second from files" in text
    assert "gets the verdict `poor photo`" in text
    for written in (text, page.read_text("utf-8")):  # not only of those that were given a set
        assert f"of all known photos {percent(said['verdicts']['held']['value'])}" in written
    assert str(tmp_path) not in text
    assert "nameplate evaluate mine" in text
    for there in (page, page.with_suffix(".json"), page.with_suffix(".photos.csv")):  # also what lies beside the page
        others = [each for each in page.parent.iterdir() if each != there]
        for each in others:
            each.rename(each.with_name(f"{each.name}.aside"))
        refused = nameplate("evaluate", bundle, TEST, "-o", page, check=2)
        assert "pass --overwrite" in " ".join(refused.stderr.split())
        for each in others:
            each.with_name(f"{each.name}.aside").rename(each)
    nameplate("evaluate", bundle, TEST, "-o", page, "--card", card, "--overwrite")
    assert json.loads(page.with_suffix(".json").read_text("utf-8"))["photos"] != said["photos"]


def test_the_text_says_more_than_right_and_wrong(bundle: Path, other: Path) -> None:
    shown = nameplate("evaluate", bundle, TEST, "--against", other).stdout
    for word in ("top-1", "Make right", "Calibration", "≤ 5 % wrong", "Against", "Log-loss"):
        assert word in shown


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("-o", "report.pdf"), 2, "must end with .html"),
        (("--card", "card.txt"), 2, "must end with .md"),
        (("--card", "card.md", "--include-trained"), 2, "no --include-trained"),
        (("--against", "no-such-bundle"), 1, "'no-such-bundle' is no bundle"),
        (("--against", "cars196"), 1, "--against cars196: No photo is left to judge"),
    ],
)
def test_impossible_requests_are_refused(
    bundle: Path, tmp_path: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    done = nameplate("evaluate", bundle, TEST, *options, check=code, cwd=tmp_path)
    assert text in done.stderr
    assert not list(tmp_path.iterdir())


def test_copies_of_training_photos_are_left_out_and_reported(bundle: Path, tmp_path: Path) -> None:
    with (bundle / "photos.csv").open(encoding="utf-8") as file:
        trained = [row for row in csv.DictReader(file) if row["split"] == "train"][::50]
    for number, row in enumerate(trained):
        folder = tmp_path / "copies" / row["label"]
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(row["path"]) as image:
            cut = image.crop((image.width // 20, image.height // 20, image.width, image.height))
        cut.convert("RGB").save(folder / f"copy {number}.jpg", quality=60)
    plain = json.loads(nameplate("evaluate", bundle, TRAIN, "--json").stdout)
    done = nameplate("evaluate", bundle, TRAIN, tmp_path / "copies", "-o", tmp_path / "r.html", "--json")
    said = json.loads(done.stdout)
    assert f"{len(trained)} photos left out: copies of photos that trained this model say nothing of it." in done.stderr
    assert said["left_out"]["copies_of_trained"] == len(trained) > 2
    assert plain["left_out"]["copies_of_trained"] == 0
    assert (said["photos"], said["top1"]) == (plain["photos"], plain["top1"])
    assert f"{len(trained)} copies of these are left out" in (tmp_path / "r.html").read_text("utf-8")


def test_photos_that_exclude_kept_from_training_are_left_out_and_reported(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "model"
    for folder in sorted(TEST.iterdir())[:3]:
        shutil.copytree(folder, data / folder.name)
    excluded = sorted(data.rglob("*.jpg"))[::17]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in excluded), "utf-8")
    nameplate("train", data, "--exclude", tmp_path / "list.txt", "-o", model)
    moved = data.rename(tmp_path / "moved")  # they are known by what is in them
    done = nameplate("evaluate", model, moved, "--json")
    said = json.loads(done.stdout)
    assert f"{len(excluded)} photos left out: --exclude kept them from this model's training." in done.stderr
    assert said["left_out"]["excluded"] == len(excluded) > 2
    everything = json.loads(nameplate("evaluate", model, moved, "--include-trained", "--json").stdout)
    assert everything["left_out"]["excluded"] == 0
    assert everything["photos"] == said["photos"] + said["left_out"]["trained"] + len(excluded)
