"""Folders, tables, archives and the competition → one table of photos."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest

from nameplate.data import Dataset, list_photos, read_dataset
from nameplate.data.listing import NO_PHOTO
from nameplate.errors import DataError
from nameplate.images import decode
from nameplate.types import Photo
from tests.images.torture import encode, picture

JPEG = encode(picture(8, 8), "JPEG")


def make(folder: Path, *names: str) -> Path:
    """A small photo at each name below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return folder


def zipped(*names: str, **files: bytes) -> bytes:
    """A zip of small photos, and of files whose dots are written as two underscores."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, JPEG)
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return file.getvalue()


def labelled(dataset: Dataset, folder: Path) -> dict[str, str | None]:
    return {os.path.relpath(photo.path, folder): photo.label for photo in dataset.photos}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


# --- folders ------------------------------------------------------------------------------------------


def test_a_folder_per_class_is_read_in_natural_order(tmp_path: Path) -> None:
    data = make(tmp_path / "cars", "ВАЗ-2110/1.jpg", "ВАЗ-2109/2.JPG", "BMW X5/a.png", "BMW X5/b.webp")
    dataset = read_dataset(data)
    assert dataset.nameplates == ("BMW X5", "ВАЗ-2109", "ВАЗ-2110")
    assert dataset.ids == {name: name for name in dataset.nameplates}
    assert dataset.kinds == ("folder per class",)
    assert dataset.refused == ()
    assert labelled(dataset, data) == {
        "BMW X5/a.png": "BMW X5",
        "BMW X5/b.webp": "BMW X5",
        "ВАЗ-2109/2.JPG": "ВАЗ-2109",
        "ВАЗ-2110/1.jpg": "ВАЗ-2110",
    }
    assert {(photo.source, photo.split, photo.group) for photo in dataset.photos} == {("cars", None, None)}
    assert all(decode(photo.path).shape == (8, 8, 3) for photo in dataset.photos)


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    data = make(tmp_path, "a/1.jpg", "a/front/2.jpg", "a/rear/dark/3.jpg", "b/1.jpg")
    assert labelled(read_dataset(data), data) == {
        "a/1.jpg": "a",
        "a/front/2.jpg": "a",
        "a/rear/dark/3.jpg": "a",
        "b/1.jpg": "b",
    }


def test_parts_are_distinguished_from_classes(tmp_path: Path) -> None:
    data = make(tmp_path / "cars", "Train/a/1.jpg", "Train/b/2.jpg", "val/a/3.jpg", "test/b/4.jpg")
    dataset = read_dataset(data)
    assert dataset.kinds == ("folder per class, in parts",)
    assert dataset.nameplates == ("a", "b")
    assert {Path(photo.path).name: (photo.label, photo.split) for photo in dataset.photos} == {
        "1.jpg": ("a", "train"),
        "2.jpg": ("b", "train"),
        "3.jpg": ("a", "validation"),
        "4.jpg": ("b", "test"),
    }


def test_a_class_that_is_named_like_a_part_is_a_class_beside_others(tmp_path: Path) -> None:
    data = make(tmp_path, "test/1.jpg", "lada/2.jpg")
    assert read_dataset(data).nameplates == ("lada", "test")


def test_a_single_folder_above_the_classes_is_passed_through(tmp_path: Path) -> None:
    data = make(tmp_path, "cars/a/1.jpg", "cars/b/2.jpg")
    dataset = read_dataset(data)
    assert dataset.nameplates == ("a", "b")
    assert dataset.photos[0].source == "cars"


def test_junk_and_hidden_files_are_passed_over_without_a_word(tmp_path: Path) -> None:
    data = make(tmp_path, "a/1.jpg", "a/.hidden.jpg", "a/.git/2.jpg", ".cache/3.jpg", "__MACOSX/a/4.jpg")
    for junk in ("a/.DS_Store", "a/Thumbs.db", "a/desktop.ini"):
        (data / junk).touch()
    dataset = read_dataset(data)
    assert labelled(dataset, data) == {"a/1.jpg": "a"}
    assert dataset.refused == ()


def test_other_files_and_empty_classes_are_refused_by_name_and_reason(tmp_path: Path) -> None:
    data = make(tmp_path, "a/1.jpg")
    (data / "a/notes.jpg.txt").write_text("dark, from behind")
    (data / "b").mkdir()
    refused = {os.path.relpath(entry.name, data): entry.reason for entry in read_dataset(data).refused}
    assert refused == {"a/notes.jpg.txt": NO_PHOTO, "b": "a folder without photos"}


def test_photos_without_a_class_are_explained(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match="holds 2 photos but no folder per nameplate: put each"):
        read_dataset(tmp_path)


def test_a_folder_without_photos_says_what_was_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text("no photo")
    with pytest.raises(DataError, match=r"no photos in the folders .* Left out: 2, as "):
        read_dataset(tmp_path)


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No data given"):
        read_dataset()
    with pytest.raises(DataError, match=r"There is no '.*nowhere'"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is no data set: give a folder"):
        read_dataset(make(tmp_path, "1.jpg") / "1.jpg")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    data = make(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    (data / "a" / "round").symlink_to(data / "a")
    make(tmp_path / "elsewhere", "3.jpg")
    (data / "b" / "more").symlink_to(tmp_path / "elsewhere")
    assert sorted(labelled(read_dataset(data), data)) == ["a/1.jpg", "b/2.jpg", "b/more/3.jpg"]


# --- tables -------------------------------------------------------------------------------------------


def _table(folder: Path, text: str, name: str = "cars.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(("path", "label"), [("path", "label"), ("Image", "CLASS"), ("file_name", "Nameplate")])
def test_a_table_of_paths_and_labels_is_read(tmp_path: Path, delimiter: str, path: str, label: str) -> None:
    absolute = make(tmp_path / "far", "c.jpg") / "c.jpg"
    rows = [[path, label], ["photos/a.jpg", "ВАЗ"], [" b.jpg ", " BMW "], [str(absolute), "BMW"]]
    table = _table(tmp_path, "\ufeff" + "\n".join(delimiter.join(row) for row in rows))
    dataset = read_dataset(table)
    assert labelled(dataset, tmp_path) == {"photos/a.jpg": "ВАЗ", "b.jpg": "BMW", "far/c.jpg": "BMW"}
    assert dataset.nameplates == ("BMW", "ВАЗ")
    assert dataset.kinds == (f"table with {path} and {label}",)
    assert dataset.photos[0].source == "cars"


def test_a_table_gives_split_group_and_source(tmp_path: Path) -> None:
    table = _table(
        tmp_path,
        "path,label,split,group,source\na.jpg,x,train,advert 1,drom\nb.jpg,x,Valid,,\nc.jpg,y,,,\n",
    )
    assert read_dataset(table).photos == (
        Photo(str(tmp_path / "a.jpg"), "x", "train", "drom", "advert 1"),
        Photo(str(tmp_path / "b.jpg"), "x", "validation", "cars", None),
        Photo(str(tmp_path / "c.jpg"), "y", None, "cars", None),
    )


def test_an_unknown_split_is_refused_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 3: split 'holdout' is none of train"):
        read_dataset(_table(tmp_path, "path,label,split\na.jpg,x,train\nb.jpg,x,holdout\n"))


def test_rows_without_a_label_and_one_path_with_two_labels_are_refused_by_name(tmp_path: Path) -> None:
    table = _table(tmp_path, "path,label\na.jpg,x\nb.jpg,\n,x\na.jpg,y\na.jpg,x\nc.jpg,x\n")
    dataset = read_dataset(table)
    assert labelled(dataset, tmp_path) == {"c.jpg": "x"}  # nobody knows which of its labels is true
    assert [(entry.name, entry.reason) for entry in dataset.refused] == [
        ("b.jpg", "row 3 of 'cars.csv' has no path or no label"),
        ("row 4", "row 4 of 'cars.csv' has no path or no label"),
        ("a.jpg", "listed as 'x' and again, in row 5, as 'y'"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo_url,label\na,x\n", "has the columns photo_url, label; one must be named path, "),
        ("path,colour\na,x\n", "has the columns path, colour; one must be named label, "),
        ("path,label,label\na,x,y\n", "have the same name"),
        ("path,label\n", "no rows"),
        ("path,label\n\n", "no rows"),
        ("path,label\na.jpg,\n", "No labelled photos"),
    ],
)
def test_a_table_without_its_columns_or_rows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(_table(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "cars.csv"
    table.write_bytes("path,label\nа.jpg,Волга\n".encode("cp1251"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_dataset(table)


def test_a_parquet_table_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image_path": ["a.jpg", "b.jpg"], "target": [3, 10], "split": ["train", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "cars.parquet")
    dataset = read_dataset(tmp_path / "cars.parquet")
    assert labelled(dataset, tmp_path) == {"a.jpg": "3", "b.jpg": "10"}
    assert dataset.nameplates == ("3", "10")
    assert [photo.split for photo in dataset.photos] == ["train", None]


def test_a_folder_with_a_train_table_of_paths_is_read_by_it(tmp_path: Path) -> None:
    make(tmp_path, "x/1.jpg", "x/2.jpg")
    _table(tmp_path, "path,label\nx/1.jpg,ВАЗ\n", "train.csv")
    assert labelled(read_dataset(tmp_path), tmp_path) == {"x/1.jpg": "ВАЗ"}
    assert len(list_photos(tmp_path)) == 2


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "NA", "<NA>", "null", " "])
def test_cells_that_say_nothing_are_no_label_split_group_or_source(tmp_path: Path, cell: str) -> None:
    rows = ["Path,label,Split,group,source", f"a.jpg,x,{cell},{cell},{cell}", f"b.jpg,y,train,{cell},drom"]
    dataset = read_dataset(_table(tmp_path, "\n".join([*rows, f"c.jpg,{cell},,,", f"{cell},x,,,"])))
    assert dataset.photos == (
        Photo(str(tmp_path / "a.jpg"), "x", None, "cars", None),
        Photo(str(tmp_path / "b.jpg"), "y", "train", "drom", None),
    )
    assert [entry.name for entry in dataset.refused] == ["c.jpg", "row 5"]
    assert cell == " " or f"'{cell}' stands for none" in dataset.refused[0].reason


def test_class_ids_that_pandas_made_fractions_are_the_ids_of_the_names_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = _table(tmp_path, "1,BMW\n2,Audi\n", "names.csv")
    columns = {"path": ["a.jpg", "b.jpg", "c.jpg"], "label": [1.0, float("nan"), 2.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "cars.parquet")
    dataset = read_dataset(tmp_path / "cars.parquet", names=names)
    assert labelled(dataset, tmp_path) == {"a.jpg": "BMW", "c.jpg": "Audi"}
    assert dataset.ids == {"BMW": "1", "Audi": "2"}
    assert [entry.name for entry in dataset.refused] == ["b.jpg"]
    assert any("whole numbers" in note for note in dataset.notes)
    mixed = read_dataset(_table(tmp_path, "path,label\na.jpg,1.0\nb.jpg,02\nc.jpg,BMW\n"), names=names)
    assert [photo.label for photo in mixed.photos] == ["BMW", "Audi", "BMW"]
    assert any("matched by number" in note and "'1.0' as '1'" in note for note in mixed.notes)


def test_labels_and_paths_of_a_table_are_found_in_whatever_form_they_are_written(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Ёлка")
    make(tmp_path, f"{decomposed}/1.jpg")
    dataset = read_dataset(_table(tmp_path, f"path,label\nЁлка/1.jpg,{decomposed}\nЁлка/2.jpg,Ёлка\n"))
    assert dataset.nameplates == ("Ёлка",)
    assert [Path(photo.path).is_file() for photo in dataset.photos] == [True, False]
    assert [Path(photo.path).is_file() for photo in list_photos(tmp_path / "cars.csv")] == [True, False]


def test_photos_that_a_folders_table_does_not_list_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "x/1.jpg", "x/2.jpg", "x/3.jpg")
    _table(tmp_path, "path,label\nx/1.jpg,ВАЗ\n", "train.csv")
    assert [note.split("'")[0] for note in read_dataset(tmp_path).notes] == ["2 photos are in "]


# --- the competition, as a folder and as a zip ---------------------------------------------------------

TRAIN = b"Id,Category\n1.jpg,0\n2.jpg,1\n3.jpg,1\n9.jpg,1\n"
SAMPLE = b"Id,Category\n8.jpg,0\n7.jpg,0\n"
NAMES = ["Лада Приора", "BMW 3"]


def _is_the_competition(dataset: Dataset) -> None:
    assert [(Path(photo.path).name, photo.label) for photo in dataset.photos] == [
        ("1.jpg", "Лада Приора"),
        ("2.jpg", "BMW 3"),
        ("3.jpg", "BMW 3"),
    ]
    assert all(Path(photo.path).parent.name in "01" and decode(photo.path).any() for photo in dataset.photos)
    assert dataset.nameplates == ("Лада Приора", "BMW 3")
    assert dataset.ids == {"Лада Приора": "0", "BMW 3": "1"}
    assert [(entry.name, entry.reason) for entry in dataset.refused] == [
        ("1/9.jpg", "in train.csv, but there is no such photo")
    ]


@pytest.fixture(params=["as lines", "as rows"])
def names(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    rows = request.param == "as rows"
    lines = [f"{number},{name}" if rows else name for number, name in enumerate(NAMES)]
    return _table(tmp_path, "\n".join(lines), "names.txt")


@pytest.mark.parametrize("top", ["", "sf-dl/"])
def test_the_competitions_folder_is_read(tmp_path: Path, names: Path, top: str) -> None:
    data = make(
        tmp_path / "data",
        *(f"{top}train/0/1.jpg", f"{top}train/1/2.jpg", f"{top}train/1/3.jpg", f"{top}train/1/unlisted.jpg"),
        *(f"{top}test_upload/7.jpg", f"{top}test_upload/8.jpg"),
    )
    (data / top / "train.csv").write_bytes(TRAIN)
    (data / top / "sample-submission.csv").write_bytes(SAMPLE)
    dataset = read_dataset(data, names=names)
    assert dataset.kinds == ("competition",)
    _is_the_competition(dataset)
    assert [Path(photo.path).name for photo in list_photos(data)] == ["7.jpg", "8.jpg"]


@pytest.mark.parametrize("top", ["", "sf-dl-car-classification/"])
@pytest.mark.parametrize("inner", [True, False], ids=["train/ in train.zip", "classes in train.zip"])
def test_the_competitions_zip_of_zips_is_read(tmp_path: Path, names: Path, top: str, inner: bool) -> None:
    train, test = ("train/", "test_upload/") if inner else ("", "")
    archive = tmp_path / "cars.zip"
    with zipfile.ZipFile(archive, "w") as outer:
        outer.writestr(f"{top}train.zip", zipped(*(train + name for name in ("0/1.jpg", "1/2.jpg", "1/3.jpg"))))
        outer.writestr(f"{top}test.zip", zipped(*(test + name for name in ("8.jpg", "7.jpg"))))
        outer.writestr(f"{top}train.csv", TRAIN)
        outer.writestr(f"{top}sample-submission.csv", SAMPLE)
    dataset = read_dataset(archive, names=names)
    assert dataset.kinds == ("zip: competition",)
    _is_the_competition(dataset)
    assert [Path(photo.path).name for photo in list_photos(archive)] == ["7.jpg", "8.jpg"]


def test_a_zip_of_one_zip_a_nameplate_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "cars.zip"
    archive.write_bytes(zipped(Лада__zip=zipped("photos/1.jpg"), BMW__zip=zipped("photos/1.jpg", "BMW.jpg")))
    dataset = read_dataset(archive)
    assert [photo.label for photo in dataset.photos] == ["BMW", "BMW", "Лада"]


def test_a_zip_of_class_folders_is_read_with_and_without_a_top_folder(tmp_path: Path) -> None:
    for top in ("", "any name/"):
        archive = tmp_path / "cars.zip"
        archive.write_bytes(zipped(f"{top}a/1.jpg", f"{top}Ёлка/2.jpg"))
        seen: list[int] = []
        dataset = read_dataset(archive, progress=lambda *counts, seen=seen: seen.extend(counts))
        assert dataset.nameplates == ("a", "Ёлка")
        assert {photo.source for photo in dataset.photos} == {"cars"}
        assert seen == [0, 2, 1, 2]


def test_what_an_archive_left_out_is_reported(tmp_path: Path) -> None:
    archive = tmp_path / "cars.zip"
    archive.write_bytes(zipped("a/1.jpg", **{"a/fake__jpg": b"no photo", "a/run__exe": b"MZ"}))
    refused = {entry.name: entry.reason for entry in read_dataset(archive).refused}
    assert set(refused) == {"a/fake.jpg", "a/run.exe"}
    assert refused["a/fake.jpg"].startswith("not a photo: ")


# --- several sources ----------------------------------------------------------------------------------


def test_sources_are_merged_by_nameplate(tmp_path: Path) -> None:
    one = make(tmp_path / "one", "a/1.jpg", "b/2.jpg")
    two = _table(tmp_path, "path,label\nx.jpg,b\ny.jpg,c\n")
    dataset = read_dataset(one, str(two))
    assert dataset.nameplates == ("a", "b", "c")
    assert [(photo.label, photo.source) for photo in dataset.photos] == [
        ("a", "one"),
        ("b", "one"),
        ("b", "cars"),
        ("c", "cars"),
    ]
    assert dataset.kinds == ("folder per class", "table with path and label")


def test_ids_and_names_of_one_class_are_one_nameplate(tmp_path: Path) -> None:
    names = _table(tmp_path, "1,BMW\n0,ВАЗ\n5,Unused\n", "names.csv")
    ids, shown = (
        make(tmp_path / "ids", "0/1.jpg", "1/2.jpg"),
        make(tmp_path / "shown", "BMW/3.jpg", "New/4.jpg"),
    )
    dataset = read_dataset(ids, shown, names=names)
    assert dataset.nameplates == ("BMW", "ВАЗ", "New")  # the file's order, then what it does not have
    assert dataset.ids == {"BMW": "1", "ВАЗ": "0", "New": "New"}
    assert [photo.label for photo in dataset.photos] == ["ВАЗ", "BMW", "BMW", "New"]


def test_a_photo_under_two_nameplates_in_two_sources_is_left_out_and_one_listed_twice_counts_once(
    tmp_path: Path,
) -> None:
    cars = make(tmp_path / "cars", "a/1.jpg", "a/2.jpg", "b/1.jpg")
    table = _table(tmp_path, "path,label,split\ncars/a/1.jpg,b,\ncars/a/2.jpg,a,train\ncars/c.jpg,c,\n", "more.csv")
    dataset = read_dataset(cars, table)
    assert {os.path.relpath(p.path, cars): (p.label, p.split) for p in dataset.photos} == {
        "a/2.jpg": ("a", "train"),
        "b/1.jpg": ("b", None),
        "c.jpg": ("c", None),
    }
    assert [(os.path.relpath(entry.name, cars), entry.reason) for entry in dataset.refused] == [
        ("a/1.jpg", "it is listed as 'a' and again as 'b'")
    ]
    assert dataset.notes == (
        "1 photo is listed a second time: each counts once.",
        "1 photo is in two parts: what is in the part that trains judges nothing.",
    )


def test_a_names_file_that_matches_nothing_is_refused_and_one_that_matches_some_says_how_many(tmp_path: Path) -> None:
    cars = make(tmp_path / "cars", "7/1.jpg", "8/2.jpg", "9/3.jpg")
    with pytest.raises(DataError, match=r"None of the 2 ids in .*names.txt' \('0', '1'\) is a class of the data \('7'"):
        read_dataset(cars, names=_table(tmp_path, "BMW\nAudi\n", "names.txt"))
    dataset = read_dataset(cars, names=_table(tmp_path, "7;BMW\n8;Audi\n20;Volvo\n", "names.txt"))
    assert dataset.nameplates == ("BMW", "Audi", "9")
    assert [note.partition("names.txt'")[2] for note in dataset.notes] == [
        ": 1 of 3 names have no photos in the data ('20').",
        " has no name for 1 of 3 classes of the data ('9'): they keep their own.",
    ]


def test_names_and_lists_of_another_system_match(tmp_path: Path) -> None:
    names = ["Хёндай", unicodedata.normalize("NFD", "Хёндай")]
    for name, other in (names, names[::-1]):
        cars = make(tmp_path / name, f"{name}/1.jpg", f"{name}/2.jpg", "b/1.jpg")
        listed = _table(tmp_path, f"{other}/{other}/1.jpg\n{other}/nowhere.jpg\n", "exclude.txt")
        dataset = read_dataset(cars, names=_table(tmp_path, f"b\n{other}\n", "names.txt"), exclude=listed)
        assert dataset.nameplates == ("b", "Хёндай")
        assert dataset.excluded == 1
        assert any("1 of the 2 photos that it names are not in the data" in note for note in dataset.notes)


def test_a_nameplate_that_loses_all_its_photos_is_named(tmp_path: Path) -> None:
    cars = make(tmp_path / "cars", "a/1.jpg", "b/1.jpg", "c/1.jpg")
    dataset = read_dataset(cars, exclude=_table(tmp_path, "cars/b/1.jpg\n", "list.txt"))
    assert dataset.nameplates == ("a", "c")
    assert dataset.notes == ("1 nameplate is without photos now, since all of them are left out: 'b'.",)


def test_stray_files_of_a_folder_are_named_but_those_that_are_given_as_options(tmp_path: Path) -> None:
    cars = make(tmp_path, "0/1.jpg", "1/2.jpg", "loose.jpg")
    names, listed = _table(cars, "BMW\nAudi\n", "names.txt"), _table(cars, "nothing.jpg\n0/1.jpg\n", "list.txt")
    (cars / "README.md").touch()
    dataset = read_dataset(cars, names=names, exclude=listed)
    assert {os.path.relpath(entry.name, cars) for entry in dataset.refused} == {"loose.jpg", "README.md"}


# --- list_photos --------------------------------------------------------------------------------------


def test_a_folder_is_listed_whole_and_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/2.jpg", "a/1.JPEG", ".hidden/3.jpg", "Thumbs.db")
    (tmp_path / "a/notes.txt").write_text("no photo")
    listed = list_photos(tmp_path)
    assert [os.path.relpath(photo.path, tmp_path) for photo in listed] == ["a/1.JPEG", "a/2.jpg", "b.jpg"]
    assert {photo.label for photo in listed} == {None}


def test_a_table_lists_its_paths_and_needs_no_labels(tmp_path: Path) -> None:
    table = _table(tmp_path, "n,photo\n1, a.jpg\n2,\n3,/far/b.jpg\n")
    assert [photo.path for photo in list_photos(table)] == [str(tmp_path / "a.jpg"), "/far/b.jpg"]


def test_a_zip_lists_its_photos(tmp_path: Path) -> None:
    archive = tmp_path / "cars.zip"
    archive.write_bytes(zipped("2.jpg", "x/1.jpg"))
    assert [Path(photo.path).name for photo in list_photos(archive)] == ["2.jpg", "1.jpg"]


def test_a_single_file_is_itself_whether_it_is_there_or_not(tmp_path: Path) -> None:
    assert list_photos(tmp_path / "none.jpg") == [Photo(str(tmp_path / "none.jpg"))]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There are no photos in .* \(\.apng, \.arw, \.avif, \.bmp"):
        list_photos(tmp_path)


def test_real_folders_are_read(russian10: Path) -> None:
    dataset = read_dataset(russian10)
    assert (len(dataset.photos), len(dataset.nameplates)) == (798, 10)
    assert dataset.refused == ()


@pytest.mark.skipif(sys.platform != "linux", reason="folder names that are no UTF-8")
def test_a_folder_whose_name_is_no_utf8_is_a_nameplate_that_can_be_written(tmp_path: Path) -> None:
    for name in (b"\xcf\xf0\xe8\xee\xf0\xe0", "Нива".encode()):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        (folder / "1.jpg").write_bytes(b"x")
    dataset = read_dataset(tmp_path)
    assert dataset.nameplates == (r"\xcf\xf0\xe8\xee\xf0\xe0", "Нива")
    assert all(name.encode() for name in dataset.nameplates)
    assert Path(dataset.photos[0].path).is_file()
