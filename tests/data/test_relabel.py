"""Photos that get the labels of a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.data import read_dataset
from nameplate.errors import DataError


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "c/4.jpg"):
        (tmp_path / "cars" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cars" / name).write_bytes(b"\xff\xd8\xff")
    return tmp_path / "cars"


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
