"""Listings of folders and lists: what is a photo, what is left out and why, and that every walk ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate.batch.uris import list_entries
from nameplate.data import Refused, list_photos, read_dataset
from nameplate.data.listing import CIRCLE, KEPT, KINDS, LISTED, NO_PHOTO, LeftOut, entries, list_rows, walk
from nameplate.errors import DataError
from tests.images.torture import encode, picture

JPEG = encode(picture(8, 8), "JPEG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def put(folder: Path, *names: str, data: bytes = JPEG) -> Path:
    """A file of these bytes at each name below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def listed(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The photos that a walk finds, and what it leaves out, relative to the folder."""
    found = list(walk(str(folder)))
    photos = [os.path.relpath(entry, folder) for entry in found if isinstance(entry, str)]
    return photos, {os.path.relpath(e.name, folder): e.reason for e in found if isinstance(e, Refused)}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Photos by name and by bytes under two classes, and beside them what is none."""
    data = put(tmp_path / "data", "a/1.jpg", "a/2.jfif", "a/3.JPE", "a/no suffix", "a/scan.orig", "b/deep/er/1.png")
    put(data, "b/phone", "b/phone.HEIC", data=HEIC)
    put(data, "a/notes.txt", "b/labels.json", "b/empty", "b/.hidden", "b/.DS_Store", data=b"no photo")
    (data / "b/empty").write_bytes(b"")
    (data / "a/loop").symlink_to("loop")
    (data / "b/nothing").symlink_to(tmp_path / "gone")
    (data / "b/up").symlink_to(data)
    os.mkfifo(data / "b/pipe")
    return data


PHOTOS = ["a/1.jpg", "a/2.jfif", "a/3.JPE", "a/no suffix", "a/scan.orig", "b/deep/er/1.png", "b/phone", "b/phone.HEIC"]
LEFT_OUT = {
    "a/loop": "a link that leads back to itself",
    "a/notes.txt": NO_PHOTO,
    "b/empty": NO_PHOTO,
    "b/labels.json": NO_PHOTO,
    "b/nothing": "a link to nothing",
    "b/pipe": "it is not a regular file",
    "b/up": CIRCLE,
}


def test_photos_are_recognised_by_name_or_first_bytes_and_all_else_is_left_out_with_its_reason(mixed: Path) -> None:
    assert listed(mixed) == (PHOTOS, LEFT_OUT)


def test_train_identify_and_predict_list_alike(mixed: Path) -> None:
    dataset = read_dataset(mixed)
    left_out: list[Refused] = []
    identified = [photo.path for photo in list_photos(mixed, left_out.append)]
    predicted = list(list_entries([str(mixed)]))
    assert [photo.path for photo in dataset.photos] == identified == [e for e in predicted if isinstance(e, str)]
    assert list(dataset.refused) == left_out == [e for e in predicted if isinstance(e, Refused)]


def test_the_order_is_that_of_the_paths_bytes(tmp_path: Path) -> None:
    put(tmp_path, "a-1.jpg", "a/2.jpg", "a/10.jpg", "é.jpg", "b/z.jpg", "B.jpg", "a.jpg")
    photos, _ = listed(tmp_path)
    assert photos == sorted(photos, key=os.fsencode)
    assert len(photos) == 7


def test_links_upwards_are_circles_even_above_the_folder_that_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "all/a/1.jpg", "all/b/2.jpg")
    (tmp_path / "all/a/up").symlink_to(tmp_path / "all")
    (tmp_path / "all/a/top").symlink_to("/")
    assert listed(tmp_path / "all/a") == (["1.jpg"], {"top": CIRCLE, "up": CIRCLE})


def test_folders_that_all_link_to_each_other_are_listed_in_the_time_of_a_few(tmp_path: Path) -> None:
    folders = [put(tmp_path / f"{number:02d}", "1.jpg") for number in range(14)]
    for folder in folders:
        for other in folders:
            if other != folder:
                (folder / other.name).symlink_to(other)
    found = list(walk(str(tmp_path)))  # each way through them would be 14! of them
    assert {str(folder / "1.jpg") for folder in folders} <= {entry for entry in found if isinstance(entry, str)}
    assert {entry.reason for entry in found if isinstance(entry, Refused)} == {CIRCLE, LISTED}
    assert len(found) <= 14**3


def test_folders_may_lie_deeper_than_functions_may_call_each_other(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (sys.getrecursionlimit() + 200))
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 200):  # the whole path at once may be longer than a path may be
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    put(deep, "1.jpg")
    found = list(walk(str(tmp_path)))
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # Python's own removal calls itself as deep
    assert found == [str(deep / "1.jpg")]


def test_a_folder_that_vanished_is_one_refusal(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    assert list(walk(gone)) == [Refused(gone, "its folder cannot be listed: No such file or directory")]
    assert entries(gone).names == []


def test_a_commands_own_folder_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "out/2.jpg", "out/part.csv")
    assert list(walk(str(tmp_path), [str(tmp_path / "out")])) == [str(tmp_path / "1.jpg")]


def test_what_is_left_out_is_counted_in_bounded_memory() -> None:
    left_out = LeftOut()
    assert list(left_out.sift(["a.jpg", *(Refused(f"{n}", f"reason {n}") for n in range(5_000)), "b.jpg"])) == [
        "a.jpg",
        "b.jpg",
    ]
    assert (left_out.total, len(left_out.first), len(left_out.reasons)) == (5_000, KEPT, KINDS)


def test_rows_without_a_path_are_left_out_by_number_and_each_json_row_has_keys_of_its_own(tmp_path: Path) -> None:
    lines = tmp_path / "list.jsonl"
    lines.write_text('{"n": 1}\n{"path": "a.jpg"}\n\n{}\n{"path": null}\n{"photo": " b.jpg "}\n', "utf-8")
    left_out: list[Refused] = []
    assert list(list_rows(lines, left_out.append)) == ["a.jpg", "b.jpg"]
    assert left_out == [Refused(f"{lines}, row {n}", "it has no path") for n in (1, 3, 4)]
    table = tmp_path / "list.csv"
    table.write_text("photo,n\na.jpg,1\n ,2\n", "utf-8")
    left_out.clear()
    assert list(list_rows(table, left_out.append)) == ["a.jpg"]
    assert left_out == [Refused(f"{table}, row 3", "it has no photo")]


def test_a_source_without_photos_says_what_was_there_instead(tmp_path: Path) -> None:
    put(tmp_path / "cars", "a/x.txt", "a/y.txt", data=b"no photo")
    for read in (read_dataset, list_photos, lambda source: list(list_entries([str(source)]))):
        with pytest.raises(DataError, match="Left out: 2, as it is no photo") as caught:
            read(tmp_path / "cars")
        assert [Path(name).name for name, _ in caught.value.left_out if name.endswith(".txt")] == ["x.txt", "y.txt"]
    lines = tmp_path / "list.jsonl"
    lines.write_text('{"n": 1}\n', "utf-8")
    with pytest.raises(DataError, match="no photos in") as caught:
        list_photos(lines)
    assert caught.value.left_out == ((f"{lines}, row 1", "it has no path"),)
