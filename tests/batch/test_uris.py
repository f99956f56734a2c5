"""URIs: what is listed from folders, patterns, tables, archives and standard input, and read again."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import pytest

from nameplate.batch.shards import Reader
from nameplate.batch.uris import from_line, list_entries, lists_in, read_uri, to_line
from nameplate.data import Refused
from nameplate.demo import photo
from nameplate.errors import DataError, PhotoError, UsageError
from nameplate.model.pipeline import PreparedPhoto, Settings, prepare_photo
from nameplate.types import Limits, Preprocess
from tests.batch.listed import list_references
from tests.outcomes import unreadable

PHOTO = photo().read_bytes()
LIMITS = Limits()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos, and of what is passed over, that relative paths are meant from."""
    for name in ("b.jpg", "a/2.jpg", "a/10.JPG", "a-1.png", "a/.hidden.jpg", "a/notes.txt", "c/d/e.webp", ".git/x.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO if path.suffix != ".txt" else b"no photo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WALKED = ["photos/a-1.png", "photos/a/10.JPG", "photos/a/2.jpg", "photos/b.jpg", "photos/c/d/e.webp"]


def test_a_folder_is_searched_whole_in_the_byte_order_of_its_paths(here: Path) -> None:
    assert list(list_references(["photos"])) == WALKED == sorted(WALKED)


def test_a_link_in_a_circle_ends_and_linked_folders_are_followed(here: Path) -> None:
    (here / "photos/c/up").symlink_to(here / "photos")
    (here / "photos/z").symlink_to(here / "photos/a")
    assert list(list_references(["photos"])) == [*WALKED, "photos/z/10.JPG", "photos/z/2.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/b.jpg"]),
        ("photos/**/*.jpg", ["photos/b.jpg", "photos/a/2.jpg"]),
        ("photos/**", WALKED),
        ("photos/a/[0-9].jpg", ["photos/a/2.jpg"]),
        ("pho*/a", ["photos/a/10.JPG", "photos/a/2.jpg"]),
        ("photos/?/*", ["photos/a/10.JPG", "photos/a/2.jpg", "photos/c/d/e.webp"]),
    ],
)
def test_patterns(here: Path, pattern: str, expected: list[str]) -> None:
    assert sorted(list_references([pattern])) == sorted(expected)
    assert list(list_references([f"{here}/{pattern}"])) == [f"{here}/{name}" for name in list_references([pattern])]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(here: Path) -> None:
    (here / "[b].jpg").write_bytes(PHOTO)
    assert list(list_references(["[b].jpg"])) == ["[b].jpg"]


def test_nothing_found_and_two_double_stars_are_reported(here: Path) -> None:
    with pytest.raises(DataError, match=r"There are no photos in 'photos/\*\.gif'"):
        list(list_references(["photos/*.gif"]))
    with pytest.raises(UsageError, match="twice"):
        list(list_references(["**/a/**/x.jpg"]))
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="no photos in 'empty'"):
        list(list_references(["photos", "empty"]))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_are_lists_relative_to_themselves(here: Path, suffix: str) -> None:
    names = ["a/2.jpg", "b.jpg", "a/2.jpg", "s3://bucket/x.jpg"]
    table = here / "photos" / f"list.{suffix}"
    if suffix == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"label": ["x"] * 4, "photo": names}), table)
    elif suffix == "jsonl":
        table.write_text("".join(f'{{"photo": "{name}", "n": 1}}\n' for name in names), "utf-8")
    else:
        table.write_text("photo,label\n" + "".join(f"{name},x\n" for name in names), "utf-8")
    expected = ["photos/a/2.jpg", "photos/b.jpg", "photos/a/2.jpg", "s3://bucket/x.jpg"]
    assert list(list_references([f"photos/list.{suffix}"])) == expected


def test_a_table_is_streamed(here: Path) -> None:
    (here / "list.csv").write_text("path\n" + "photos/b.jpg\n" * 10 + "one,too many\n", "utf-8")
    listed = list_references(["list.csv"])
    assert list(islice(listed, 10)) == ["photos/b.jpg"] * 10
    with pytest.raises(DataError, match="row 12: 2 cells"):
        next(listed)
    (here / "bad.jsonl").write_text('{"path": "a.jpg"}\n[1]\n', "utf-8")
    with pytest.raises(DataError, match="line 2: it is no JSON object"):
        list(list_references(["bad.jsonl"]))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz"])
def test_archives_are_read_in_place_in_their_order(here: Path, suffix: str) -> None:
    shard = _pack(here / f"shard.{suffix}", {"b.jpg": b"bb", "a/1.jpg": PHOTO, "note.txt": b"x", "a/2.jpg": b"22"})
    listed = list(list_references([shard.name]))
    assert listed == [f"{shard.name}::{name}" for name in ("b.jpg", "a/1.jpg", "a/2.jpg")]
    assert [read_uri(name, LIMITS) for name in reversed(listed)] == [b"22", PHOTO, b"bb"]
    with pytest.raises(PhotoError, match="missing: there is no 'c.jpg'"):
        read_uri(f"{shard.name}::c.jpg", LIMITS)
    with pytest.raises(PhotoError, match="missing"):
        read_uri(f"no-{shard.name}::c.jpg", LIMITS)
    with pytest.raises(PhotoError, match="too large"):
        read_uri(listed[1], Limits(bytes=100))
    assert sorted(path.name for path in here.iterdir()) == ["photos", shard.name]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_the_pipeline_reads_members_and_names_the_missing_one(here: Path, suffix: str) -> None:
    shard = _pack(here / f"shard.{suffix}", {"1.jpg": PHOTO, "2.jpg": b"no photo", "3.jpg": PHOTO})
    names = [f"{shard.name}::{name}" for name in ("1.jpg", "2.jpg", "gone.jpg", "3.jpg", "1.jpg")]
    with Reader(LIMITS) as reader:
        rows = [prepare_photo(source, Preprocess(), Settings()) for source in reader.sources(names)]
    assert [isinstance(row, PreparedPhoto) for row in rows] == [True, False, False, True, True]
    assert [unreadable(row).failure.reason for row in rows[1:3]] == ["not a photo", "missing"]


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_a_damaged_archive_is_a_data_error_when_it_is_listed(here: Path, suffix: str) -> None:
    (here / f"bad.{suffix}").write_bytes(b"PK\x03\x04 but no archive" * 40)
    with pytest.raises(DataError, match="Cannot read the archive"):
        list(list_references([f"bad.{suffix}"]))
    with pytest.raises(PhotoError):
        read_uri(f"bad.{suffix}::a.jpg", LIMITS)


def test_a_compressed_tar_that_ends_early_costs_its_last_photos_alone(here: Path) -> None:
    shard = _pack(here / "shard.tar.gz", {f"{n}.jpg": PHOTO + os.urandom(5000) for n in range(8)})
    names = list(list_references([shard.name]))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with Reader(LIMITS) as reader:
        rows = [prepare_photo(source, Preprocess(), Settings()) for source in reader.sources(names)]
    assert isinstance(rows[0], PreparedPhoto)
    assert unreadable(rows[-1]).failure.reason == "damaged"


def test_a_bomb_in_a_zip_is_refused(here: Path) -> None:
    with zipfile.ZipFile(here / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(20_000_000))
        archive.writestr("../b.jpg", PHOTO)
    reasons = []
    for name in list_references(["bomb.zip"]):
        with pytest.raises(PhotoError) as refused:
            read_uri(name, LIMITS)
        reasons.append(str(refused.value))
    assert "times its size: a bomb" in reasons[0]
    assert "leave the folder" in reasons[1]


def test_a_zip_of_archives_is_unpacked(here: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.jpg", PHOTO)
    with zipfile.ZipFile(here / "outer.zip", "w") as archive:
        archive.writestr("train.zip", inner.getvalue())
    [found] = list_references(["outer.zip"])
    assert Path(found).read_bytes() == PHOTO


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no UTF-8")
def test_names_of_any_bytes_survive_a_listing_and_standard_input(here: Path) -> None:
    odd = os.fsdecode(b'photos/\xcf\xf0\xe8\n "quoted".jpg')
    shutil.copy("photos/b.jpg", odd)
    assert from_line(to_line(odd)) == odd
    assert odd in list(list_references(["photos"]))
    script = "from nameplate.batch.uris import *; print(*map(to_line, list_entries(['-'])), sep='', end='')"
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"a.jpg\r\n\n\xcf.jpg\n", capture_output=True, check=True
    )
    assert [from_line(line) for line in done.stdout.decode().splitlines()] == ["a.jpg", os.fsdecode(b"\xcf.jpg")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"\xef\xbb\xbfa.jpg\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"a.jpg\n\xef\xbb\xbfb.jpg\n", ["a.jpg", "\ufeffb.jpg"]),
        ("a.jpg\n".encode("utf-16"), "Line 1 on standard input is no text in UTF-8"),
        (b"a.jpg\nb\0.jpg\n", "Line 2 on standard input is no text in UTF-8"),
        (b"a.jpg\n" + b"x" * 100_000, "Line 2 on standard input is longer than 65,536 bytes"),
    ],
    ids=["BOM", "BOM within", "UTF-16", "NUL", "endless"],
)
def test_a_list_on_standard_input_is_text(given: bytes, expected: list[str] | str) -> None:
    script = "import json; from nameplate.batch.uris import *; print(json.dumps(list(list_entries(['-']))))"
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, check=False)
    if isinstance(expected, str):
        assert expected in done.stderr.decode()
    else:
        assert json.loads(done.stdout) == expected


def test_what_patterns_and_archives_leave_out_is_reported(here: Path) -> None:
    (here / "photos/a/no suffix").write_bytes(PHOTO)
    (here / "photos/z").symlink_to("a")
    assert [e.name for e in list_entries(["photos/a/*"]) if isinstance(e, Refused)] == ["photos/a/notes.txt"]
    assert "photos/a/no suffix" in list(list_references(["photos/a/*"]))
    below = [e for e in list_entries(["photos/**/*.jpg"]) if isinstance(e, Refused)]
    assert below == [Refused("photos/z", "a link to a folder: ** follows none")]
    for suffix in ("zip", "tar", "tar.gz"):
        shard = _pack(here / f"shard.{suffix}", {"1.jpg": PHOTO, "note.txt": b"x", ".hidden.txt": b"x"})
        left_out = [e for e in list_entries([shard.name]) if isinstance(e, Refused)]
        assert left_out == [Refused(f"{shard.name}::note.txt", "it is neither a photo nor a table")]
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.jpg", PHOTO)
        archive.writestr("run.exe", b"MZ")
        archive.writestr("note.txt", b"dark")
    (here / "outer.zip").write_bytes(_zip_of(inner.getvalue()))
    names = ["train.zip/run.exe", "outer.zip::train/note.txt"]
    assert [e.name for e in list_entries(["outer.zip"]) if isinstance(e, Refused)] == names


def test_a_job_lists_neither_its_own_folder_nor_its_own_output(here: Path) -> None:
    out = here / "photos/out"
    out.mkdir()
    (out / "job.json").write_text("{}")
    assert [e for e in list_entries(["photos"], ["photos/out"]) if "out" in str(e)] == []
    (here / "a.csv").write_text("path\nphotos/b.jpg\n")
    assert lists_in("*.csv") == ["a.csv"]
    assert lists_in("photos/*") == ["photos/*"]  # tables are not lists there


def _zip_of(inner: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.zip", inner)
    return file.getvalue()


def _pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path
