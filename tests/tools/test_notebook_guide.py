"""docs/notebook.md: its commands and its Python run as they are written, on an archive of the embedded renders."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
from tools.notebook_guide import ARCHIVE, PAGE, SMALLER, TINY, blocks, commands, make_archive, reduced

from tests.cli.run import nameplate

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "accelerate", "onnx", "onnxscript", "tensorboard"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

QUICK = (
    (r"--backbones \S+", "--backbones test_efficientnet=none,ResNet152V2,cars196 --size 32x48 --limit 4"),
    (
        r"--recipe original -o",
        "--recipe original --backbone test_efficientnet --set weights=none --set drop_path=0 --set stages.height=32 "
        "--set stages.width=48 --set stages.epochs=1 --set stages.batch=8 -o",
    ),
    *SMALLER[1:3],
)
"""As `SMALLER` of the tool, with a network that needs no weights."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands of the page ran, one after the other."""
    made = tmp_path_factory.mktemp("notebook")
    make_archive(made, each=8, further=2)
    small = {"height = 64": "height = 32", "width = 96": "width = 48", "epochs = 2": "epochs = 1"}
    recipe = TINY.replace('backbone = "tf_efficientnet_lite0"', 'backbone = "test_efficientnet"\nweights = "none"')
    for old, new in small.items():
        recipe = recipe.replace(old, new)
    (made / "tiny.toml").write_text(recipe, "utf-8")
    for command in commands():
        nameplate(*reduced(command, QUICK), cwd=made)
    return made


def test_the_archive_is_laid_out_as_the_competitions(tmp_path: Path) -> None:
    make_archive(tmp_path, each=4, further=1)
    with zipfile.ZipFile(tmp_path / ARCHIVE) as archive:
        assert set(archive.namelist()) == {"train.csv", "sample-submission.csv", "train.zip", "test.zip"}


def test_every_step_of_the_notebook_has_its_files(folder: Path) -> None:
    assert "80 photos of 10 nameplates" in (folder / "look.html").read_text("utf-8")
    assert (folder / "augmented.jpg").stat().st_size > 5000
    rows = {row["name"]: row for row in json.loads((folder / "backbones" / "compare.json").read_text("utf-8"))["rows"]}
    assert rows["cars196"]["top1"]["value"] > 0.5
    assert "the nearest network that has some is resnetv2_101" in rows["ResNet152V2"]["error"]
    changes = json.loads((folder / "dropout" / "compare.json").read_text("utf-8"))["rows"]
    assert {row["name"] for row in changes} == {"tiny", "dropout=0.2"}
    assert (folder / "extra" / "index.html").is_file()
    board = json.loads((folder / "board" / "compare.json").read_text("utf-8"))["rows"]
    assert {row["name"] for row in board} == {"first-model", "notebook", "mine"}
    assert board[0]["name"] == "first-model"
    for name in ("submission.csv", "submission-tta.csv", "submission-mirror.csv"):
        with (folder / name).open(newline="") as file:
            submitted = list(csv.DictReader(file))
        with zipfile.ZipFile(folder / ARCHIVE) as archive:
            sample = archive.read("sample-submission.csv").decode().splitlines()[1:]
        assert [row["Id"] for row in submitted] == [line.split(",")[0] for line in sample]


def test_its_python_runs_from_top_to_bottom(folder: Path) -> None:
    here, names = Path.cwd(), dict[str, object]()
    os.chdir(folder)
    try:
        for block in blocks("python"):
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        os.chdir(here)
    assert (folder / "by-hand.csv").read_text() != ""
    assert (folder / "two" / "compare.json").is_file()


def test_its_pictures_are_there() -> None:
    named = re.findall(r"\]\((images/[^)]+)\)", PAGE.read_text("utf-8"))
    assert len(named) == 6
    assert all((PAGE.parent / name).is_file() for name in named)
