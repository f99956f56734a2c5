"""Which folder is a nameplate: parts, makes, nameplates, and ambiguous layouts, which are refused."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from nameplate.data import Dataset, read_dataset
from nameplate.data.layouts import split_of
from nameplate.errors import DataError, UsageError
from tests.data.test_dataset import make, zipped


def photos_of(dataset: Dataset) -> set[tuple[str | None, str | None]]:
    return {(photo.label, photo.split) for photo in dataset.photos}


def left_out(dataset: Dataset, folder: Path) -> dict[str, str]:
    return {os.path.relpath(entry.name, folder): entry.reason for entry in dataset.refused}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


# --- parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "TRAIN", "Training", "training_set", "training-set", "trainset")),
        *((name, "validation") for name in ("val", "valid", "Validation", "dev", "eval", "val_data", "dev set")),
        *((name, "test") for name in ("test", "Testing", "test_set", "test-images", "TestSet")),
        *((name, None) for name in ("Trainer", "Testarossa", "evalon", "set", "1", "", "Kia Rio", "holdout")),
    ],
)
def test_parts_are_known_by_their_usual_names(name: str, part: str | None) -> None:
    assert split_of(name) == part


@pytest.mark.parametrize(
    ("one", "other", "split"),
    [
        ("training_set", "test_set", "test"),
        ("training-set", "test-set", "test"),
        ("Train", "dev", "validation"),
        ("TRAIN", "eval", "validation"),
        ("Train", "Testing", "test"),
    ],
)
def test_other_folders_beside_parts_are_left_out_and_counted(tmp_path: Path, one: str, other: str, split: str) -> None:
    data = make(tmp_path, f"{one}/a/1.jpg", f"{one}/b/2.jpg", f"{other}/a/3.jpg")
    make(data, "images to predict/4.jpg", "images to predict/5.jpg", "runs/exp/curve.png", "loose.jpg")
    (data / "docs").mkdir()
    (data / "docs" / "how.txt").touch()
    dataset = read_dataset(data)
    assert dataset.nameplates == ("a", "b")
    assert photos_of(dataset) == {("a", "train"), ("b", "train"), ("a", split)}
    reasons = left_out(dataset, data)
    assert {name: reason.partition("; ")[2] for name, reason in reasons.items() if name != "loose.jpg"} == {
        "images to predict": "it holds 2 photos",
        "runs": "it holds 1 photo",
        "docs": "it holds no photos",
    }
    assert reasons["loose.jpg"] == "it lies beside the folders of nameplates, in none of them"


def test_photos_of_a_part_that_have_no_nameplate_are_left_out_and_counted(tmp_path: Path) -> None:
    data = make(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "train/loose.jpg", "test/3.jpg", "test/4.jpg")
    dataset = read_dataset(data)
    assert photos_of(dataset) == {("a", "train"), ("b", "train")}
    assert left_out(dataset, data) == {
        "train/loose.jpg": "it lies beside the folders of nameplates, in none of them",
        "test": "a folder of a part, without folders of nameplates; it holds 2 photos",
    }


def test_parts_may_be_inside_the_nameplates(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, "a/train/1.jpg", "a/val/2.jpg", "b/train/3.jpg", "b/test/4.jpg"))
    assert photos_of(dataset) == {("a", "train"), ("a", "validation"), ("b", "train"), ("b", "test")}


def test_folders_around_parts_are_skipped_and_entries_beside_them_reported(tmp_path: Path) -> None:
    data = make(tmp_path, "cars/train/a/1.jpg", "cars/train/b/2.jpg", "cars/test/a/3.jpg")
    (data / "docs").mkdir()
    dataset = read_dataset(data)
    assert photos_of(dataset) == {("a", "train"), ("b", "train"), ("a", "test")}
    assert left_out(dataset, data) == {"docs": "a folder beside 'cars'; it holds no photos"}


@pytest.mark.parametrize(
    ("names", "why", "layout", "nameplates"),
    [
        (("train/1.jpg", "valid/2.jpg", "to predict/3.jpg"), "'train' and 'valid' have the names of parts", "classes",
         ("to predict", "train", "valid")),
        (("train/1.jpg",), "'train' has the name of a part", "classes", ("train",)),
        (("train/a/1.jpg", "train/b/1.jpg", "fold2/a/1.jpg"), "'train' is named as a part is, and 'fold2' beside it",
         "parts", ("a", "b")),
        (("Kia/Rio/1.jpg", "Kia/Ceed/1.jpg", "Unheard/3/1.jpg"), "folders of makes with folders in them", "makes",
         ("Kia Ceed", "Kia Rio", "Unheard 3")),
        (("Kia/Rio/1.jpg", "Mazda/1.jpg"), "'Mazda' beside them, which are no makes or hold photos themselves",
         "classes", ("Kia", "Mazda")),
        (("Kia/front/1.jpg", "Kia/rear/2.jpg", "Mazda/front/1.jpg", "Mazda/rear/2.jpg"), "called alike", "classes",
         ("Kia", "Mazda")),
        (("cars/a/1.jpg", "cars/b/2.jpg", "cars/3.jpg"), "'cars' is the only folder with photos", "classes",
         ("cars",)),
    ],
)  # fmt: skip
def test_ambiguous_layouts_are_refused_and_read_as_the_option_says(
    tmp_path: Path, names: tuple[str, ...], why: str, layout: str, nameplates: tuple[str, ...]
) -> None:
    data = make(tmp_path, *names)
    with pytest.raises(DataError, match=why) as refusal:
        read_dataset(data)
    assert f"--layout {layout}" in str(refusal.value)
    assert read_dataset(data, layout=layout).nameplates == nameplates


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    data = make(tmp_path, "a/1.jpg", "b/2.jpg")
    with pytest.raises(UsageError, match="no layout 'part': give auto, classes, parts or makes"):
        read_dataset(data, layout="part")
    with pytest.raises(DataError, match="has no parts"):
        read_dataset(data, layout="parts")


# --- makes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "any name/"])
def test_a_folder_a_make_and_in_it_one_a_model_give_nameplates_of_both_whether_one_make_or_two(
    tmp_path: Path, top: str
) -> None:
    data = make(tmp_path, f"{top}Kia/Rio/1.jpg", f"{top}Kia/Ceed/1.jpg")
    one = read_dataset(data)
    assert (one.kinds, one.nameplates) == (("folder per make and model",), ("Kia Ceed", "Kia Rio"))
    make(data, f"{top}mazda/3/1.jpg", f"{top}mazda/3/2012/2.jpg", f"{top}mazda/Mazda 6/1.jpg")
    two = read_dataset(data)
    assert two.nameplates == ("Kia Ceed", "Kia Rio", "mazda 3", "Mazda 6")
    assert any("called by both, as 'Kia Ceed'" in note and "--layout classes" in note for note in two.notes)


def test_a_model_that_names_its_make_does_not_name_it_twice(tmp_path: Path) -> None:
    data = make(tmp_path, "train/Лада/Лада Гранта/1.jpg", "train/ВАЗ/2109/2.jpg", "val/ВАЗ/2109/3.jpg", "val/ВАЗ/x.jpg")
    dataset = read_dataset(data, layout="makes")
    assert photos_of(dataset) == {("Лада Гранта", "train"), ("ВАЗ 2109", "train"), ("ВАЗ 2109", "validation")}
    assert left_out(dataset, data) == {"val/ВАЗ/x.jpg": "it lies in a make's folder, in none of a model"}


def test_a_zip_is_read_by_the_same_rule_and_names_what_is_in_it(tmp_path: Path) -> None:
    archive = tmp_path / "cars.zip"
    archive.write_bytes(zipped("top/Kia/Rio/1.jpg", "top/Mazda/3/1.jpg", "stray.jpg"))
    dataset = read_dataset(archive)
    assert dataset.nameplates == ("Kia Rio", "Mazda 3")
    assert [entry.name for entry in dataset.refused] == ["stray.jpg"]
    archive.write_bytes(zipped("train/1.jpg", "valid/2.jpg"))
    with pytest.raises(DataError) as refusal:
        read_dataset(archive)
    assert str(archive) in str(refusal.value)
    assert "-cache" not in str(refusal.value)


# --- names --------------------------------------------------------------------------------------------


def test_folder_names_of_two_systems_are_one_nameplate_and_this_is_noted(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Хёндай Йети")
    data = make(
        tmp_path, "Хёндай Йети/1.jpg", f"{decomposed}/2.jpg", "Kia Rio/3.jpg", "Kia Rio /4.jpg", "kia  rio/5.jpg"
    )
    make(data, " /6.jpg")
    dataset = read_dataset(data)
    assert dataset.nameplates == ("kia  rio", "Kia Rio", "Хёндай Йети")
    assert all(Path(photo.path).is_file() for photo in dataset.photos)
    assert [note.partition(",")[0] for note in dataset.notes] == [
        "'Kia Rio' is written in 2 ways",
        "'Хёндай Йети' is written in 2 ways",
        "'kia  rio' and 'Kia Rio' differ in case or spaces alone: they are kept apart.",
    ]
    assert left_out(dataset, data) == {" /6.jpg": "its folder's name is empty"}
