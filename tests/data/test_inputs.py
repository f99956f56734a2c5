"""No command overwrites its input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nameplate.data.inputs import refuse_output_inside, refuse_overwriting_input
from nameplate.errors import UsageError

from .test_listing import put


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos, a competition and a list, that relative paths are meant from."""
    put(tmp_path, "cars/a/1.jpg", "cars/a/no suffix", "game/train/0/1.jpg")
    put(tmp_path, "cars/answers.csv", "list.csv", "other.csv", "game/train.csv", "game/mine.csv", data=b"Id,Category\n")
    (tmp_path / "linked.csv").symlink_to("list.csv")
    os.link(tmp_path / "list.csv", tmp_path / "hard.csv")
    (tmp_path / "linked cars").symlink_to("cars")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("list.csv", "list.csv"),
        ("cars/../list.csv", "list.csv"),
        ("linked.csv", "list.csv"),
        ("list.csv", "linked.csv"),
        ("hard.csv", "list.csv"),
        ("cars", "cars"),
        ("linked cars", "cars"),
        ("cars", "cars/a"),
        (".", "list.csv"),
        ("cars/a/1.jpg", "cars"),
        ("linked cars/a/1.jpg", "cars"),
        ("cars/a/1.jpg", "linked cars"),
        ("cars/a/no suffix", "cars"),
        ("game/train.csv", "game"),
    ],
)
def test_what_is_read_is_not_written_over(here: Path, output: str, source: str) -> None:
    with pytest.raises(UsageError, match="Choose another"):
        refuse_overwriting_input(["new.html", output], [None, "gone.csv", source])
    with pytest.raises(UsageError, match="Choose another"):
        refuse_output_inside(here / output, [here / source])


@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("new.csv", "list.csv"),
        ("other.csv", "list.csv"),
        ("cars/answers.csv", "cars"),
        ("cars/new.jpg", "cars"),
        ("game/mine.csv", "game"),
        ("new/folder", "cars"),
        ("list.csv", "s3://bucket/list.csv"),
        ("list.csv", "-"),
    ],
)
def test_what_is_not_read_may_be(here: Path, output: str, source: str) -> None:
    refuse_overwriting_input([None, output], [source])


def test_a_folder_among_classes_would_be_one(here: Path) -> None:
    for output in ("cars/model", "cars/a/model", "linked cars/model"):
        with pytest.raises(UsageError, match="would be taken for a nameplate in it"):
            refuse_output_inside(output, ["cars"])
    refuse_output_inside("model", ["cars"])
    refuse_output_inside("game/model", ["game"])  # its photos stand in a table
    refuse_output_inside("cars/model", ["list.csv"], ["cars"])
