"""A first look at a data set: what it counts, and the copies that it finds without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from nameplate.audit.inspect import CROSS_CLASS, EXACT, LEAK, NEAR, UNREADABLE
from nameplate.audit.look import UNLABELLED, look_at
from nameplate.data import read_dataset
from nameplate.data.dataset import photos_to_recognise
from nameplate.demo import photos_folder
from nameplate.errors import DataError
from tests.competition import lay_out, zip_up


@pytest.fixture
def competition(tmp_path: Path) -> Path:
    """The competition's archive of 60 renders; one test photo is a smaller copy of a photo that trains."""
    root = lay_out(sorted(photos_folder("test").iterdir()), tmp_path / "unpacked", each=6, test_each=2)
    with Image.open(min((root / "train" / "3").iterdir())) as photo:
        photo.resize((220, 165)).save(root / "test_upload" / "again.png")
    return zip_up(root, tmp_path / "cars.zip")


def test_a_competition_shows_its_parts_and_copies_of_train_photos_among_the_test_photos(competition: Path) -> None:
    found = look_at(read_dataset(competition), photos_to_recognise(competition), threads=2)
    assert [(part.name, part.photos, part.nameplates) for part in found.parts] == [
        ("train", 40, 10),
        (UNLABELLED, 21, 0),
    ]
    train, test = found.parts
    assert (train.mean_size, train.median_size) == ((320.0, 240.0), (320.0, 240.0))
    assert test.smallest == (220, 165)
    assert test.formats == {"JPEG": 20, "PNG": 1}
    assert [(each.kind, sorted(Path(path).name for path in each.photos)) for each in found.findings] == [
        (LEAK, ["300000.jpg", "again.png"])
    ]
    assert found.across == 2
    assert set(found.counts.values()) == {4}


def test_copies_unreadable_files_and_photos_under_two_nameplates(tmp_path: Path) -> None:
    for folder in sorted(photos_folder("test").iterdir())[:2]:
        shutil.copytree(folder, tmp_path / "cars" / folder.name)
    one, two = sorted((tmp_path / "cars").iterdir())
    photos = sorted(one.iterdir())
    shutil.copy(photos[0], one / "a copy.jpg")
    shutil.copy(photos[1], two / "moved.jpg")
    with Image.open(photos[2]) as photo:
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(one / "mirrored.png")
    (one / "cut.jpg").write_bytes(photos[3].read_bytes()[:900])
    (one / "empty.jpg").write_bytes(b"")
    found = look_at(read_dataset(tmp_path / "cars"))
    assert [(each.kind, {Path(path).name for path in each.photos}) for each in found.findings] == [
        (UNREADABLE, {"empty.jpg"}),
        (UNREADABLE, {"cut.jpg"}),
        (EXACT, {photos[0].name, "a copy.jpg"}),
        (NEAR, {photos[2].name, "mirrored.png"}),
        (CROSS_CLASS, {photos[1].name, "moved.jpg"}),
    ]
    assert found.across == 0


def test_a_folder_or_table_that_is_no_competition_has_no_photos_to_recognise(tmp_path: Path) -> None:
    assert photos_to_recognise(photos_folder("test")) == []
    (tmp_path / "train.csv").write_text("path,label\na.jpg,b\n", "utf-8")
    assert photos_to_recognise(tmp_path) == photos_to_recognise(tmp_path / "train.csv") == []


def test_where_no_photo_can_be_read_the_error_names_the_first(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(DataError, match=r"None of 2 photos can be read; the first is '.*x.jpg'"):
        look_at(read_dataset(tmp_path))
