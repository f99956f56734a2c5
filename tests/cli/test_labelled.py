"""Messages about labelled photos that are merged, matched or left out: in lines and in `--json`."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from nameplate.demo import photos_folder
from tests.cli.run import nameplate


def copies(target: Path, place: int, each: range) -> None:
    """Some of the embedded photos of a nameplate, as another's."""
    target.mkdir(parents=True)
    for path in sorted(sorted(photos_folder("train").iterdir())[place].iterdir())[each.start : each.stop]:
        shutil.copy(path, target)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nameplates that train, one that is in val/ alone, names as macOS writes them, and a folder beside."""
    root = tmp_path_factory.mktemp("data")
    names = [unicodedata.normalize("NFD", "Хёндай"), "Нива"]
    for place, name in enumerate(names):
        copies(root / "Training" / name, place, range(12))
        copies(root / "Validation" / name, place, range(12, 16))
    copies(root / "Validation" / "Golf", 2, range(5))
    copies(root / "images to predict", 3, range(3))
    return root


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Path, dict[str, object], str]:
    """The bundle, what `--json` printed, and what stood on stderr."""
    bundle = data.parent / "bundle-of-labelled"
    done = nameplate("train", data, "-o", bundle, "--json", "--overwrite", "--threads", "1")
    return bundle, json.loads(done.stdout), done.stderr


def test_held_out_photos_that_trained_the_network_before_are_counted(
    tmp_path: Path, trained: tuple[Path, dict[str, object], str]
) -> None:
    for place, name in enumerate(("Golf", "Polo"), start=4):
        copies(tmp_path / "data" / "train" / name, place, range(8))
        copies(tmp_path / "data" / "val" / name, place, range(8, 11))
    copies(tmp_path / "more", 0, range(3))
    for path in (tmp_path / "more").iterdir():
        path.rename(tmp_path / "data" / "val" / "Golf" / f"of-before-{path.name}")
    (tmp_path / "more").rmdir()
    done = nameplate(
        "train", tmp_path / "data", "-o", tmp_path / "bundle", "--backbone", trained[0], "--json", "--threads", "1"
    )
    assert json.loads(done.stdout)["held_out_known"] == 3
    assert "flattered 3 held-out photos trained the network that this training began with" in done.stderr
    assert trained[1]["held_out_known"] == 0


def test_train_names_and_counts_a_nameplate_that_is_only_in_val(
    data: Path, trained: tuple[Path, dict[str, object], str]
) -> None:
    bundle, said, lines = trained
    assert json.loads((bundle / "bundle.json").read_text("utf-8"))["nameplates"] == ["Нива", "Хёндай"]
    assert said["photos"] == 24
    assert said["data"] == {"read_as": ["folder per class, in parts"], "notes": []}
    assert "left out Golf: it has no training photo, so its 5 held-out photos cannot be evaluated." in lines
    assert "the metrics do not include them" in lines
    assert "images to predict: a folder beside the parts 'Training' and 'Validation'; it holds 3 photos" in lines
    left_out = said["left_out"]
    assert isinstance(left_out, list)
    golf = [row for row in left_out if row["reason"] == "its nameplate, 'Golf', has no training photo"]
    assert {Path(row["path"]).parent for row in golf} == {data / "Validation" / "Golf"}
    assert len(golf) == 5
    assert str(data / "images to predict") in {row["path"] for row in left_out}


def test_evaluate_names_and_counts_nameplates_that_it_says_nothing_of(
    data: Path, trained: tuple[Path, dict[str, object], str], tmp_path: Path
) -> None:
    for name, source in (("Golf", "Golf"), ("нива", "Нива"), ("Хёндай", unicodedata.normalize("NFD", "Хёндай"))):
        shutil.copytree(data / "Validation" / source, tmp_path / "eval" / name)
    done = nameplate("evaluate", trained[0], tmp_path / "eval", "--json", "--threads", "1", "--layout", "classes")
    said = json.loads(done.stdout)
    assert said["photos"] == 4  # the decomposed name is the nameplate that the model knows
    assert said["left_out"]["unknown_photos"] == {"Golf": 5, "нива": 4}
    assert "left out Golf: 5 photos, of a nameplate that the model does not know" in done.stderr
    assert "нива: 4 photos, of a nameplate that the model does not know; it knows 'Нива'" in done.stderr
    assert "2 nameplates left out, 9 photos" in done.stderr


def test_evaluate_names_nameplates_all_of_whose_photos_trained(
    data: Path, trained: tuple[Path, dict[str, object], str], tmp_path: Path
) -> None:
    shutil.copytree(data / "Training" / "Нива", tmp_path / "eval" / "Нива")
    shutil.copytree(data / "Validation" / unicodedata.normalize("NFD", "Хёндай"), tmp_path / "eval" / "Хёндай")
    done = nameplate("evaluate", trained[0], tmp_path / "eval", "--json", "--threads", "1")
    assert json.loads(done.stdout)["left_out"]["not_judged"] == {"Нива": 12}
    assert "not judged Нива: 12 photos, which all trained this model or cannot be read" in done.stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "audit"])
def test_an_ambiguous_layout_is_one_sentence_in_every_command(command: str, tmp_path: Path) -> None:
    for part in ("train", "valid"):
        copies(tmp_path / "data" / part, 0, range(2))
    bundle: list[str] = ["cars196"] if command == "evaluate" else []
    output: list[str | Path] = [] if command == "evaluate" else ["-o", tmp_path / "out.html"]
    done = nameplate(command, *bundle, tmp_path / "data", *output, check=1)
    assert "are nameplates is ambiguous" in done.stderr
    assert "--layout classes" in done.stderr
    wrong = nameplate(command, *bundle, tmp_path / "data", *output, "--layout", "deep", check=2)
    assert "There is no layout 'deep': give auto, classes, parts or makes." in wrong.stderr
