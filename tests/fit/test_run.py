"""run.json: it is read as it was written, whatever the photos are called, and damage is reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nameplate.errors import DataError, NameplateError
from nameplate.fit.recipe import Recipe, Stage, load_recipe
from nameplate.fit.run import RUN, SCHEMA, Run, RunPhoto, load_run, refuse_gone, relocate, rows, save_run, split_of
from nameplate.fit.split import Split
from nameplate.storage import sha256
from nameplate.types import Photo, SplitName

ODD = [os.fsdecode(b"/data/\xff\xfe.jpg"), "/data/Лада Гранта.jpg", '/data/"quoted"\n.jpg', "/data/🚗.jpg"]
"""Names that photos have, the first of bytes that are no UTF-8."""


def parts() -> Split:
    """Eight photos of two nameplates and one of a third that trains nothing; one held copy of a training photo."""
    splits: list[SplitName] = ["train", "train", "train", "train", "validation", "validation", "test", "validation"]
    labels = ["Alto", "Brisa", "Alto", "Brisa", "Alto", "Brisa", "Brisa", "Cato"]
    groups = np.array([0, 1, 2, 3, 0, 5, 6, 7])
    photos = tuple(
        Photo(path, label, split, f"source {i % 2}", str(group), f"{i:064x}", 40 + i, 30)
        for i, (path, label, split, group) in enumerate(
            zip([*ODD, *(f"/data/{i}.jpg" for i in range(4))], labels, splits, groups, strict=True)
        )
    )
    classes = np.array([0, 1, 0, 1, 0, 1, 1, -1])
    train = np.array([True] * 4 + [False] * 4)
    held = np.array([False] * 5 + [True, True, False])
    unreadable = ((ODD[0] + "x", "empty: x"),)
    return Split(
        photos, groups, ("Alto", "Brisa"), ("1", "2"), classes, train, held, unreadable, ("source 0", "source 1")
    )


@pytest.fixture
def run() -> Run:
    recipe = load_recipe("fine-tune")
    assert isinstance(recipe, Recipe)
    given = parts()
    return Run(
        schema=SCHEMA, recipe=recipe, photos=rows(given), nameplates=given.nameplates, ids=given.ids,
        unreadable=given.unreadable, made="2026-11-22T00:00:00+00:00", bfloat16=False, threads=2, processes=1,
        device="cpu", weights="none", versions={"torch": "2"},
    )  # fmt: skip


def test_a_run_is_read_as_it_was_written(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    assert load_run(tmp_path) == run
    assert (tmp_path / RUN).read_bytes().isascii()
    assert load_run(tmp_path).photos[0].path == ODD[0]


@pytest.mark.parametrize("name", ["original", "fast"])
def test_the_run_of_every_recipe_is_read_as_it_was_written(tmp_path: Path, run: Run, name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    save_run(tmp_path, replace(run, recipe=recipe))
    assert load_run(tmp_path).recipe == recipe


def test_the_parts_of_a_run_are_the_ones_that_it_began_with(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    given, found = parts(), split_of(load_run(tmp_path))
    for field in fields(Split):
        ours, theirs = getattr(found, field.name), getattr(given, field.name)
        assert np.array_equal(ours, theirs) if isinstance(theirs, np.ndarray) else ours == theirs, field.name
    assert found.digest == given.digest
    assert found.leaked == given.leaked == 1
    assert found.train.dtype == found.holdout.dtype == bool
    assert found.classes.dtype == found.groups.dtype == np.int64


def test_the_file_is_written_completely_or_not_at_all(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path, run)
    assert [file.name for file in tmp_path.iterdir()] == [RUN]


# --- damage -------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NameplateError, match=rf"No such file.*'{folder}' is not a run .*nameplate train"):
            load_run(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "\xff", "[" * 100_000, '{"schema": 1}', "{}"])
def test_damage_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN).write_bytes(text.encode("latin-1"))
    with pytest.raises(NameplateError, match=f"'{tmp_path / RUN}' is damaged: .* Train anew with another --output"):
        load_run(tmp_path)


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_a_file_that_is_cut_short_is_damaged(tmp_path: Path, run: Run, place: int) -> None:
    save_run(tmp_path, run)
    data = (tmp_path / RUN).read_bytes()
    (tmp_path / RUN).write_bytes(data[: len(data) * place // 100])
    with pytest.raises(NameplateError, match="is damaged"):
        load_run(tmp_path)


def edited(run: Run, folder: Path, **changes: Any) -> None:
    save_run(folder, run)
    said = json.loads((folder / RUN).read_text())
    (folder / RUN).write_text(json.dumps(said | changes))


def test_another_schema_is_refused_with_its_number(tmp_path: Path, run: Run) -> None:
    edited(run, tmp_path, schema=2)
    with pytest.raises(NameplateError, match="its schema is 2, this Nameplate reads 1"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"threads": "two"}, {"photos": [{"path": 3}]}, {"nameplates": "Alto"}, {"recipe": {"name": "x"}}]
)
def test_a_field_of_another_kind_is_named(tmp_path: Path, run: Run, changes: dict[str, Any]) -> None:
    edited(run, tmp_path, **changes)
    with pytest.raises(NameplateError, match=rf"is damaged: .*\$?\.?{next(iter(changes))}"):
        load_run(tmp_path)


def test_impossible_values_of_a_recipe_are_refused(tmp_path: Path, run: Run) -> None:
    bad = replace(run, recipe=replace(run.recipe, stages=(Stage(height=0, width=64, epochs=1),)))
    save_run(tmp_path, bad)
    with pytest.raises(NameplateError, match=r"stages\[0\]\.height"):
        load_run(tmp_path)


FULL = """
import resource, signal, sys
from pathlib import Path
from nameplate.errors import NameplateError
from nameplate.fit.run import load_run, save_run

run = load_run(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    save_run(Path(sys.argv[2]), run)
except NameplateError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs setrlimit")
def test_a_full_disk_is_reported(tmp_path: Path, run: Run) -> None:
    save_run(tmp_path / "good", run)
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "good", tmp_path / "full"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Cannot write '{tmp_path / 'full' / RUN}': File too large.\n"
    assert not list((tmp_path / "full").iterdir())


def test_paths_of_photos_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = parts()
    relative = replace(given, photos=(given.photos[0].with_(path="a/../b/Ёлка.jpg"), *given.photos[1:]))
    assert rows(relative)[0].path == str(tmp_path / "b" / "Ёлка.jpg")
    assert [row.path for row in rows(relative)[1:]] == [photo.path for photo in given.photos[1:]]


def test_an_old_run_with_relative_paths_says_how_to_continue_elsewhere(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tuple(replace(row, path=f"photos/{number}.jpg") for number, row in enumerate(run.photos))
    (tmp_path / "begun" / "photos").mkdir(parents=True)
    for row in photos:
        (tmp_path / "begun" / row.path).write_bytes(row.sha256.encode())
    monkeypatch.chdir(tmp_path / "begun")
    refuse_gone(tmp_path / "run", replace(run, photos=photos))  # as it always went on
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'photos/\d.jpg' \(as seen from .* begun\).*--data FOLDER"):
        refuse_gone(tmp_path / "run", replace(run, photos=photos))


def test_moved_photos_are_found_by_their_contents_and_the_rest_keep_their_paths(tmp_path: Path, run: Run) -> None:
    texts = [f"photo {number}".encode() for number in range(len(run.photos))]
    photos = tuple(
        replace(row, path=f"/gone/{n}.jpg", sha256=sha256(text))
        for n, (row, text) in enumerate(zip(run.photos, texts, strict=True))
    )
    save_run(tmp_path / "run", replace(run, photos=photos))
    (tmp_path / "new").mkdir()
    for number, text in enumerate(texts[2:]):
        (tmp_path / "new" / f"other{number}.jpg").write_bytes(text)
    (tmp_path / "new" / "strange.jpg").write_bytes(b"no photo of the run's")
    found = relocate(tmp_path / "run", [tmp_path / "new"])
    assert (found.photos, found.found, found.missing) == (8, 6, ("/gone/0.jpg", "/gone/1.jpg"))
    now = load_run(tmp_path / "run").photos
    assert [row.path for row in now[:2]] == ["/gone/0.jpg", "/gone/1.jpg"]
    assert [Path(row.path).read_bytes() for row in now[2:]] == texts[2:]
    assert [replace(row, path="") for row in now] == [replace(row, path="") for row in photos]
    before = (tmp_path / "run" / RUN).read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_bytes(b"another")
    with pytest.raises(DataError, match="None of the 8 photos of .* is among the 1 photos in"):
        relocate(tmp_path / "run", [tmp_path / "other"])
    assert (tmp_path / "run" / RUN).read_bytes() == before


def test_a_row_is_all_that_is_known_of_a_photo() -> None:
    first = rows(parts())[0]
    assert first == RunPhoto(ODD[0], "Alto", "train", 0, "source 0", f"{0:064x}", 40, 30)
