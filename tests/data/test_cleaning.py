"""Photos that a list leaves out, and photos that get the labels of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.data import read_dataset
from nameplate.errors import DataError
from tests.data.test_dataset import make


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    return make(tmp_path / "cars", "a/1.jpg", "a/2.jpg", "b/3.jpg", "c/4.jpg")


def table(cars: Path, *rows: str) -> Path:
    path = cars.parent / "relabel.csv"
    path.write_text("\n".join(("path,label", *rows)) + "\n", "utf-8")
    return path


def test_photos_get_the_labels_of_the_table_and_an_empty_nameplate_goes(cars: Path) -> None:
    found = read_dataset(cars, relabel=table(cars, "cars/a/1.jpg,b", f"{cars}/c/4.jpg,a", "cars/gone.jpg,a"))
    assert {Path(photo.path).name: photo.label for photo in found.photos} == {
        "1.jpg": "b",
        "2.jpg": "a",
        "3.jpg": "b",
        "4.jpg": "a",
    }
    assert found.nameplates == ("a", "b")
    assert list(found.ids) == ["a", "b"]
    assert any("2 photos are relabelled" in note for note in found.notes)
    assert any("1 photo is named there and not in the data" in note for note in found.notes)


def test_a_label_may_be_a_class_id_and_an_excluded_photo_is_not_missed(cars: Path) -> None:
    (cars.parent / "names.csv").write_text("id,name\na,Lada Niva\nb,Lada Vesta\nc,Lada Granta\n", "utf-8")
    (cars.parent / "exclude.csv").write_text("path\ncars/a/2.jpg\n", "utf-8")
    found = read_dataset(
        cars,
        names=cars.parent / "names.csv",
        exclude=cars.parent / "exclude.csv",
        relabel=table(cars, "cars/a/1.jpg,b", "cars/a/2.jpg,Lada Granta"),
    )
    assert [photo.label for photo in found.photos] == ["Lada Vesta", "Lada Vesta", "Lada Granta"]
    assert not any("not in the data" in note for note in found.notes)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["cars/a/1.jpg,d"], "'d' is no nameplate of the data"),
        (["cars/x.jpg,a"], "None of the 1 photos"),
        (["cars/a/1.jpg,a", "cars/a/1.jpg,b"], "'b' here and 'a' in a row before"),
        (["cars/a/1.jpg,"], "row 2: there is no path or no label"),
    ],
)
def test_a_table_that_does_not_fit_the_data_is_refused(cars: Path, rows: list[str], why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_dataset(cars, relabel=table(cars, *rows))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("exclude.csv", "path,kind\ncars/a/1.jpg,outlier\n{0}/cars/b/2.jpg,leak\n"),
        ("list.txt", "cars/a/1.jpg\n\n{0}/cars/./b/2.jpg\nelsewhere.jpg\n"),
    ],
)
def test_photos_that_a_file_names_are_left_out(tmp_path: Path, name: str, text: str) -> None:
    cars = make(tmp_path / "cars", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    (tmp_path / name).write_text(text.format(tmp_path))
    dataset = read_dataset(cars, exclude=tmp_path / name)
    assert [Path(photo.path).relative_to(cars).as_posix() for photo in dataset.photos] == ["a/2.jpg", "b/1.jpg"]
    assert dataset.excluded == 2


def test_a_file_that_names_nothing_of_the_data_or_all_of_it_is_refused(tmp_path: Path) -> None:
    cars = make(tmp_path / "cars", "a/1.jpg", "b/1.jpg")
    wrong, all_of_it, empty = (tmp_path / name for name in ("wrong.csv", "all.csv", "empty.csv"))
    wrong.write_text("path\na/1.jpg\n")
    all_of_it.write_text("path\ncars/a/1.jpg\ncars/b/1.jpg\n")
    empty.write_text("path,kind\n")
    with pytest.raises(DataError, match=r"None of the 1 photos .* the first photo of the data is '.*cars/a/1.jpg'"):
        read_dataset(cars, exclude=wrong)
    with pytest.raises(DataError, match="leaves out all 2 photos"):
        read_dataset(cars, exclude=all_of_it)
    with pytest.raises(DataError, match=r"Cannot read .*missing.txt"):
        read_dataset(cars, exclude=tmp_path / "missing.txt")
    assert len(read_dataset(cars, exclude=empty).photos) == 2
