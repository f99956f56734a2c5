"""From two data sets to a verdict, on the embedded photos."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nameplate.data import read_dataset
from nameplate.demo import photos_folder
from nameplate.errors import DataError, UsageError
from nameplate.experiments.extra_data import Design, evaluation_indices, extra_data, read_both
from nameplate.experiments.further import OF_HELD, OF_TRAIN, UNREAD
from nameplate.experiments.result import Experiment
from nameplate.experiments.verdict import SEEDS, load_seed
from nameplate.fit.split import split_photos
from nameplate.model.embeddings import embed_photos
from nameplate.model.model import Model
from nameplate.types import HeadRecipe
from tests.experiments import cases

ONE_FOLD_LESS = HeadRecipe(folds=2)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime", threads=2)


def judge(base: Path, extra: Path, out: Path, model: Model, seeds: int = 3) -> Experiment:
    ours, further = read_both(base, extra)
    return extra_data(ours, further, out, Design(ONE_FOLD_LESS, seeds), model=model)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_more_photos_of_the_same_help_a_small_base(tmp_path: Path, model: Model) -> None:
    made = judge(cases.base(tmp_path, 1), cases.extra(tmp_path, 9), tmp_path / "out", model)
    assert made.verdict.word == "helps"
    assert made.verdict.top1.difference.low > 0
    assert made._repr_html_().startswith("<iframe srcdoc=")


def test_shuffled_labels_hurt(tmp_path: Path, model: Model) -> None:
    made = judge(cases.base(tmp_path, 4), cases.extra(tmp_path, 12, shuffled=True), tmp_path / "out", model)
    assert made.verdict.word == "hurts"
    assert made.verdict.log_loss.difference.low > 0


def test_twenty_more_photos_give_no_verdict(tmp_path: Path, model: Model) -> None:
    made = judge(cases.base(tmp_path, 6), cases.extra(tmp_path, 14, photos=20), tmp_path / "out", model)
    assert made.verdict.word == "cannot be told"


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory, model: Model) -> tuple[Path, Experiment]:
    """EXTRA with a broken file, a page of text, a class of its own, copies of both parts, and a part of its own."""
    folder = tmp_path_factory.mktemp("dirty")
    base = cases.base(folder, 4)
    rows = cases.rows()
    (folder / "broken.jpg").write_bytes(Path(next(iter(rows.values()))[15]).read_bytes()[:900])
    (folder / "page.jpg").write_text("<html>no photo</html>")
    photos = []
    for name, paths in rows.items():
        spelt = name.upper().replace(" ", "_")
        copied = shutil.copy(paths[0], folder / f"{spelt} judges.jpg"), shutil.copy(paths[8], folder / f"{spelt}.jpg")
        photos += [(str(path), spelt, "test") for path in (*paths[12:15], *copied)]
    first = next(iter(rows))
    photos += [(str(folder / "broken.jpg"), first, ""), (str(folder / "page.jpg"), first, "")]
    photos += [(next(iter(rows.values()))[16], "Zzz", "")]
    extra = cases.table(folder / "extra.csv", photos)
    return folder / "out", judge(base, extra, folder / "out", model)


def test_extra_is_cleaned_first(dirty: tuple[Path, Experiment]) -> None:
    out, made = dirty
    assert made.cleaning.counts == {UNREAD: 2, OF_HELD: 10, OF_TRAIN: 10}
    assert len(made.cleaning.kept) == 30
    assert made.classes.unmapped == ("Zzz",)
    taken = table(out / "taken-out.csv")
    assert len(taken) == 22
    assert {row["reason"] for row in taken} == {UNREAD, OF_HELD, OF_TRAIN}
    assert all(Path(row["path"]).is_absolute() for row in taken)


def test_what_was_added_is_a_data_set_under_the_names_of_base(dirty: tuple[Path, Experiment]) -> None:
    out, made = dirty
    added = read_dataset(out / "extra.csv")
    assert set(added.nameplates) == set(cases.rows())
    assert {photo.path for photo in added.photos} == {photo.path for photo in made.cleaning.kept}


def test_the_result_says_what_it_rests_on(dirty: tuple[Path, Experiment]) -> None:
    out, made = dirty
    said = json.loads((out / "extra-data.json").read_text("utf-8"))
    assert said["verdict"] == made.verdict.word
    assert said["photos"] == 80
    assert said["seeds"] == [20, 21, 22]
    assert said["settings"]["recipe"]["name"] == "head"
    assert said["taken_out"]["counts"] == {UNREAD: 2, OF_HELD: 10, OF_TRAIN: 10}
    assert len(said["base"]["sha256"]) == len(said["extra"]["sha256"]) == 64
    assert {"nameplate", "numpy", "python"} <= said["versions"].keys()
    assert len(said["per_class"]) == 10


def test_the_page_needs_nothing_beside_it(dirty: tuple[Path, Experiment]) -> None:
    page = (dirty[0] / "index.html").read_text("utf-8")
    assert "cannot be told" in page or "help" in page
    assert page.count("data:image/png") == 4  # two plots, by day and by night
    assert "data:image/jpeg" in page
    assert not re.search("https?:", page.replace("http://www.w3.org", ""))  # pictures in base64 have no colon
    assert "Zzz" in page


def test_seeds_that_are_done_are_kept(dirty: tuple[Path, Experiment], tmp_path: Path, model: Model) -> None:
    out, made = dirty
    before = {path.name: path.stat().st_mtime_ns for path in (out / SEEDS).iterdir()}
    (out / SEEDS / "seed-21.json").write_text("{")  # a disk's fault: that one is done again
    base, extra = out.parent / "base.csv", out.parent / "extra.csv"
    again = judge(base, extra, out, model, seeds=3)
    after = {path.name: path.stat().st_mtime_ns for path in (out / SEEDS).iterdir()}
    assert again.verdict == made.verdict  # the same seed, the same models
    assert {name for name in before if before[name] != after[name]} == {"seed-21.json"}
    assert load_seed(out, 21) is not None


def test_a_folder_of_another_experiment_is_refused(
    dirty: tuple[Path, Experiment], tmp_path: Path, model: Model
) -> None:
    with pytest.raises(UsageError, match="other photos, or by another recipe"):
        judge(cases.base(tmp_path, 4), cases.extra(tmp_path, 15), dirty[0], model)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="no experiment of this kind"):
        judge(tmp_path / "base.csv", tmp_path / "extra.csv", tmp_path / "mine", model)


def test_the_evaluation_photos_do_not_depend_on_extra(tmp_path: Path, model: Model) -> None:
    """Without parts of its own BASE is split as `train` splits it."""
    base = photos_folder("test")
    held = []
    for number, begin in enumerate((14, 17)):
        made = judge(base, cases.extra(tmp_path, begin), tmp_path / f"out{number}", model)
        held.append(made.base)
    assert held[0] == held[1]
    dataset = read_dataset(base)
    parts = split_photos(dataset, embed_photos(dataset.photos, model), HeadRecipe().holdout, HeadRecipe().seed)
    assert held[0]["sha256"] == parts.digest
    assert held[0]["trained"] == parts.train.sum()


def test_the_validation_part_is_preferred_to_the_test_part(tmp_path: Path, model: Model) -> None:
    rows = cases.rows()
    photos = [(p, n, "train") for n, paths in rows.items() for p in paths[:3]]
    photos += [(p, n, "validation") for n, paths in rows.items() for p in paths[3:5]]
    photos += [(p, n, "test") for n, paths in rows.items() for p in paths[5:8]]
    dataset = read_dataset(cases.table(tmp_path / "base.csv", photos))
    parts = split_photos(dataset, embed_photos(dataset.photos, model), 0.15, 20)
    assert {parts.photos[i].split for i in evaluation_indices(parts)} == {"validation"}
    no_validation = [row for row in photos if row[2] != "validation"]
    dataset = read_dataset(cases.table(tmp_path / "base.csv", no_validation))
    parts = split_photos(dataset, embed_photos(dataset.photos, model), 0.15, 20)
    assert {parts.photos[i].split for i in evaluation_indices(parts)} == {"test"}
    with pytest.raises(DataError, match="--holdout"):
        evaluation_indices(replace(parts, holdout=np.zeros_like(parts.holdout)))


def test_photos_are_excluded_from_both(tmp_path: Path) -> None:
    base, extra = cases.base(tmp_path, 2), cases.extra(tmp_path, 10)
    first, second = (read_dataset(path).photos[0].path for path in (base, extra))
    listed = tmp_path / "leave-out.txt"
    listed.write_text(f"{first}\n{second}\n")
    assert [dataset.excluded for dataset in read_both(base, extra, exclude=listed)] == [1, 1]
    listed.write_text(f"{second}\n")
    assert [dataset.excluded for dataset in read_both(base, extra, exclude=listed)] == [0, 1]
    listed.write_text("elsewhere.jpg\n")
    with pytest.raises(DataError, match="None of the 1 photos"):
        read_both(base, extra, exclude=listed)


def test_extra_of_nothing_new_is_an_error(tmp_path: Path, model: Model) -> None:
    base = cases.base(tmp_path, 2)
    with pytest.raises(DataError, match="Nothing of EXTRA is left to add: 80× copy of a photo that judges, 20× copy"):
        judge(base, base, tmp_path / "out", model)


def test_two_seeds_are_too_few(tmp_path: Path, model: Model) -> None:
    with pytest.raises(UsageError, match="2 seeds cannot tell"):
        judge(cases.base(tmp_path, 2), cases.extra(tmp_path, 10), tmp_path / "out", model, seeds=2)
