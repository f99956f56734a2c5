"""`train --folds`, `train --resume` of such a run, and `ensemble`, as a user calls them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from nameplate.cli.folds import without_choice
from nameplate.demo import photos_folder
from nameplate.fit.recipe import Recipe, load_recipe
from tests.cli.run import nameplate

FAST = ("--runtime", "onnxruntime")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("designs")
    for design in sorted(photos_folder("train").iterdir())[:3]:
        (root / design.name).mkdir()
        for path in sorted(design.glob("*.jpg"))[:12]:
            shutil.copy(path, root / design.name)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("run") / "folds"
    return folder, nameplate("train", data, "--folds", "3", "-o", folder, *FAST).stdout


def test_train_in_folds_says_each_fold_and_all_of_them(run: tuple[Path, str], data: Path) -> None:
    folder, said = run
    assert [line.split()[0] for line in said.splitlines()[:3]] == ["Fold", "Fold", "Fold"]
    assert "of 36 photos, each by the fold that did not see it" in said
    assert "one head, as fast as a single fold" in said
    rows = list(csv.DictReader(io.StringIO((folder / "out-of-fold.csv").read_text("utf-8"))))
    assert sorted(row["photo"] for row in rows) == sorted(str(path) for path in data.rglob("*.jpg"))
    nameplate("identify", "--model", folder, next(data.rglob("*.jpg")))


def test_resume_trains_nothing_again_and_says_the_same(run: tuple[Path, str]) -> None:
    folder, said = run
    again = nameplate("train", "--resume", folder).stdout
    assert again.count("complete before") == 3
    line = next(line for line in said.splitlines() if line.startswith("Out of fold"))
    assert line in again
    as_json = json.loads(nameplate("train", "--resume", folder, "--json").stdout)
    assert as_json["resumed_folds"] == 3
    assert as_json["evaluation"]["photos"] == 36
    assert len(as_json["folds"]) == 3


def test_a_run_in_folds_is_not_replaced_without_being_told(run: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    done = nameplate("train", data, "--folds", "3", "-o", run[0], *FAST, check=1)
    assert "--resume" in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = nameplate("train", data, "--folds", "3", "-o", tmp_path / "mine", "--overwrite", *FAST, check=1)
    assert "is no run in folds" in done.stderr


def test_folds_hold_nothing_out_and_choose_no_epoch_unless_told() -> None:
    few, head = load_recipe("few"), load_recipe("head")
    assert isinstance(few, Recipe)
    assert few.keep_best
    plain = without_choice(few, [], holdout=None)
    assert isinstance(plain, Recipe)
    assert (plain.holdout, plain.keep_best) == (0, False)
    assert without_choice(few, ["keep_best=true", " holdout = 0.15"], holdout=None) == few
    assert without_choice(few, ["keep_best=true"], holdout=0.15) == few
    assert without_choice(head, [], holdout=None).holdout == 0


def test_wrong_uses_are_refused(run: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    folder = run[0]
    for arguments, code, why in (
        (("train", data, "--folds", "2", "--index", "-o", tmp_path / "x"), 2, "without --folds"),
        (("train", "--resume", folder, "--folds", "2"), 2, "--resume takes"),
        (("train", "--resume", folder, "--data", data), 2, "is a run in folds"),
        (("ensemble", folder, "cars196", "-o", tmp_path / "x"), 2, "different nameplates"),
        (("ensemble", folder, "cars196", "--weights", "a,b", "-o", tmp_path / "x"), 2, "joined by commas"),
    ):
        done = nameplate(*arguments, check=code)
        assert why in done.stderr, arguments
        assert not (tmp_path / "x").exists()


def test_ensemble_of_a_run_and_a_bundle_runs_as_a_bundle(run: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    nameplate("train", data, "-o", tmp_path / "one", "--holdout", "0.5", "--balanced", *FAST)
    done = nameplate("ensemble", run[0], tmp_path / "one", "-o", tmp_path / "both", "--json")
    made = json.loads(done.stdout)
    assert [round(each["weight"], 2) for each in made["members"]] == [0.5, 0.5]
    assert made["backbones"] == 1
    assert made["evaluation"]["photos"] == 18
    nameplate("predict", tmp_path / "both", data, "-o", tmp_path / "p.csv", *FAST)
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text("utf-8"))))) == 36
    nameplate("ensemble", run[0], tmp_path / "one", "-o", tmp_path / "both", check=2)
