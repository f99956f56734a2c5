"""The competition's tables and folders."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from nameplate.data import kaggle
from nameplate.data.tables import read_table
from nameplate.errors import DataError


def _make(root: Path, train: str = "1.jpg,0\n2.jpg,7\n", sample: str | None = "b.jpg,0\na.jpg,0\n") -> Path:
    (root / "train.csv").write_text("Id,Category\n" + train, encoding="utf-8")
    if sample is not None:
        (root / "sample-submission.csv").write_text("Id,Category\n" + sample, encoding="utf-8")
    return root


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_real_tables_are_read_at_full_size(competition_tables: Path, tmp_path: Path) -> None:
    found = kaggle.read_competition(competition_tables)
    assert (len(found.train), len(found.sample)) == (15_561, 6_675)
    assert found.train[0] == ("100155.jpg", "0")
    assert found.sample[:2] == ("305108.jpg", "295075.jpg")
    assert set(Counter(category for _, category in found.train)) == {str(number) for number in range(10)}
    assert not {name for name, _ in found.train} & set(found.sample)

    target = tmp_path / "submission.csv"
    answers = [str(number % 10) for number in range(len(found.sample))]
    kaggle.write_submission(found, answers, target)
    given = (competition_tables / "sample-submission.csv").read_text().split()
    written = target.read_text().split()
    assert [line.split(",")[0] for line in written] == [line.split(",")[0] for line in given]
    assert [line.split(",")[1] for line in written[1:]] == answers


def test_categories_and_ids_are_found_in_whatever_form_the_disk_writes_them(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Йети") for form in ("NFC", "NFD"))
    for table, disk in ((composed, decomposed), (decomposed, composed)):
        root = tmp_path / f"{len(table)}"
        root.mkdir()
        _make(root, f"{table}.jpg,{table}\n2.jpg,b\n", f"{table}.jpg,0\n")
        _touch(root, f"train/{disk}/{disk}.jpg", "train/b/2.jpg", f"test_upload/{disk}.jpg")
        found = kaggle.read_competition(root)
        photos, refused = kaggle.train_photos(found)
        assert (len(photos), refused) == (2, [])
        assert all(Path(photo.path).is_file() for photo in (*photos, *kaggle.test_photos(found)))
        kaggle.write_submission(found, [composed], root / "submission.csv")  # as a model names it
        assert read_table(root / "submission.csv") == [{"Id": f"{table}.jpg", "Category": table}]


def test_a_competition_is_found_here_or_in_the_only_folder(tmp_path: Path) -> None:
    assert kaggle.find_competition(tmp_path) is None
    root = tmp_path / "cars"
    root.mkdir()
    (tmp_path / ".git").mkdir()
    assert kaggle.find_competition(tmp_path) is None
    _make(root)
    assert kaggle.find_competition(tmp_path) == root
    assert kaggle.find_competition(root) == root
    (tmp_path / "other").mkdir()
    assert kaggle.find_competition(tmp_path) is None


@pytest.mark.parametrize("train", ["train", "train/train"])
@pytest.mark.parametrize("test", ["test_upload", "test/test_upload", "test"])
def test_the_folders_are_found_where_the_archives_put_them(tmp_path: Path, train: str, test: str) -> None:
    _touch(_make(tmp_path), f"{train}/0/1.jpg", f"{train}/7/2.jpg", f"{test}/a.jpg", f"{test}/b.jpg")
    found = kaggle.read_competition(tmp_path)
    photos, refused = kaggle.train_photos(found)
    assert [(photo.path, photo.label) for photo in photos] == [
        (str(tmp_path / train / "0/1.jpg"), "0"),
        (str(tmp_path / train / "7/2.jpg"), "7"),
    ]
    assert refused == []
    assert [photo.path for photo in kaggle.test_photos(found)] == [
        str(tmp_path / test / "b.jpg"),
        str(tmp_path / test / "a.jpg"),
    ]


def test_missing_photos_are_reported(tmp_path: Path) -> None:
    _touch(_make(tmp_path), "train/0/1.jpg", "train/0/2.jpg", "test_upload/a.jpg")
    found = kaggle.read_competition(tmp_path)
    assert [entry.name for entry in kaggle.train_photos(found)[1]] == ["7/2.jpg"]
    with pytest.raises(DataError, match=r"1 of 2 photos .* first of all 'b\.jpg'\. Unpack test\.zip whole"):
        kaggle.test_photos(found)


def test_missing_folders_and_samples_are_reported(tmp_path: Path) -> None:
    found = kaggle.read_competition(_make(tmp_path, sample=None))
    assert found.sample == ()
    with pytest.raises(DataError, match=r"no folder 'train'\. Unpack train\.zip"):
        kaggle.train_photos(found)
    with pytest.raises(DataError, match=r"has no sample-submission\.csv"):
        kaggle.test_photos(found)
    found = kaggle.read_competition(_make(tmp_path))
    with pytest.raises(DataError, match="has no folder 'test_upload'"):
        kaggle.test_photos(found)


@pytest.mark.parametrize("name", ["../1.jpg", "/etc/passwd", "a/b.jpg", "..", ".", "", "1.jpg/"])
def test_an_id_that_is_no_plain_file_name_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    for tables in ({"train": f"1.jpg,0\n{name},0\n"}, {"sample": f"1.jpg,0\n{name},0\n"}):
        with pytest.raises(DataError, match=r"line 3: the Id .* is not a plain file name"):
            kaggle.read_competition(_make(tmp_path, **tables))
        _make(tmp_path)


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    for tables in ({"train": "1.jpg,0\n1.jpg,7\n"}, {"sample": "1.jpg,0\n1.jpg,0\n"}):
        with pytest.raises(DataError, match=r"line 3: the Id '1\.jpg' occurs twice"):
            kaggle.read_competition(_make(tmp_path, **tables))
        _make(tmp_path)


@pytest.mark.parametrize("category", ["../0", "a/b", "..", "/"])
def test_a_category_that_is_a_path_is_refused(tmp_path: Path, category: str) -> None:
    with pytest.raises(DataError, match=r"line 2: the Category '.*' is no folder's name"):
        kaggle.read_competition(_make(tmp_path, train=f"1.jpg,{category}\n"))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("photo,class\n1.jpg,0\n")
    with pytest.raises(DataError, match="columns photo, class; a competition's has Id and Category"):
        kaggle.read_competition(tmp_path)


def test_a_submission_has_the_samples_ids_in_the_samples_order(tmp_path: Path) -> None:
    found = kaggle.read_competition(_make(tmp_path))
    target = tmp_path / "answers" / "mine.csv"
    kaggle.write_submission(found, ["7", "0"], target)
    assert target.read_bytes() == b"Id,Category\nb.jpg,7\na.jpg,0\n"
    assert read_table(target)[0] == {"Id": "b.jpg", "Category": "7"}


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (["7", "8"], "names '8', which is no Category of train.csv"),
        (["7"], "1 answers for 2 Ids; nothing was written"),
        (["7", "0", "0"], "3 answers for 2 Ids; nothing was written"),
        ([], "0 answers for 2 Ids"),
    ],
)
def test_a_wrong_submission_is_not_written(tmp_path: Path, answers: list[str], text: str) -> None:
    found = kaggle.read_competition(_make(tmp_path))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=text):
        kaggle.write_submission(found, answers, tmp_path / "mine.csv")
    assert sorted(tmp_path.iterdir()) == before
