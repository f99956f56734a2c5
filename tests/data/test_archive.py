"""Zip archives, above all hostile ones."""

from __future__ import annotations

import errno
import io
import stat
import struct
import tarfile
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from nameplate.data import archive as module
from nameplate.data import list_photos, read_dataset
from nameplate.data.archive import ArchiveLimits, unpack
from nameplate.errors import DataError, NameplateError
from nameplate.types import Limits
from tests.images.torture import encode, picture

JPEG = encode(picture(8, 8), "JPEG")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that it can be looked at."""
    folder = tmp_path / "home" / "cache"
    monkeypatch.setenv("NAMEPLATE_CACHE", str(folder))
    return folder


Entry = tuple[str | zipfile.ZipInfo, bytes]


def pack(*entries: Entry, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def save(folder: Path, data: bytes, name: str = "cars.zip") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def info(name: str, mode: int = 0) -> zipfile.ZipInfo:
    """An entry whose name is kept as it is."""
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    entry.external_attr = mode << 16
    entry.create_system = 3
    return entry


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refusals(folder: Path, data: bytes, limits: ArchiveLimits | None = None) -> dict[str, str]:
    """What `unpack` refuses of an archive that also holds `good/1.jpg`, which must come through."""
    outside = files(folder)
    target, refused = unpack(save(folder, data), Limits(), limits)
    assert (target / "good" / "1.jpg").read_bytes() == JPEG
    strays = {name for name in files(folder) - outside if not name.startswith("home/cache/archives/")}
    assert strays == {"cars.zip"} - outside
    assert target.parent == folder / "home" / "cache" / "archives"
    return {entry.name: entry.reason for entry in refused}


GOOD: Entry = ("good/1.jpg", JPEG)
GOOD2: Entry = ("good/2.jpg", JPEG)


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.jpg", "a/../../evil.jpg", "a/..", "/evil.jpg", "//evil.jpg", "/etc/evil.csv"),
        *("C:/evil.jpg", "C:evil.jpg", "a/b:stream.jpg", "..\\evil.jpg", "a\\..\\..\\evil.jpg", "\\\\host\\evil.jpg"),
        *("../evil.zip", "/evil.zip"),
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    assert refusals(tmp_path, pack(GOOD, (info(name), JPEG))) == {name: "its name would leave the folder"}


@pytest.mark.parametrize("name", ["...zip", "..zip", "....zip", "a/...zip", ".zip"])
def test_an_inner_archive_of_dots_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    inner = pack(("evil.jpg", JPEG))
    refusals(tmp_path, pack(GOOD, (info(name), inner)))
    root = tmp_path / "home" / "cache" / "archives"
    assert {path.parents[-2].name for path in [found.relative_to(root) for found in root.rglob("evil.jpg")]} <= {
        entry.name for entry in root.iterdir() if (entry / "refused.json").is_file()
    }


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[2J.jpg", "\r.csv"])
def test_control_characters_in_a_name_are_refused(tmp_path: Path, name: str) -> None:
    assert refusals(tmp_path, pack(GOOD, (info(name), JPEG))) == {name: "its name holds control characters"}


def test_names_that_the_disk_cannot_hold_are_refused_and_the_rest_unpacked(tmp_path: Path) -> None:
    long, below = "x" * 300 + ".jpg", "good/1.jpg/2.jpg/3.jpg"
    refused = refusals(tmp_path, pack((long, JPEG), GOOD, (below, JPEG)))
    assert set(refused) == {long, below}
    assert all(reason.startswith("it cannot have this name here: ") for reason in refused.values())


@pytest.mark.parametrize(("mode", "what"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "pipe"), (stat.S_IFCHR, "device")])
def test_links_and_special_files_are_refused(tmp_path: Path, mode: int, what: str) -> None:
    refused = refusals(tmp_path, pack(GOOD, (info(f"{what}.jpg", mode | 0o777), b"/etc/passwd")))
    assert refused == {f"{what}.jpg": "it is a link or a special file"}


def test_names_that_occur_twice_keep_the_first(tmp_path: Path) -> None:
    other = encode(picture(9, 9), "JPEG")
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = pack(GOOD, ("good/1.jpg", other))
    assert refusals(tmp_path, data) == {"good/1.jpg": "another entry has the same name"}
    assert refusals(tmp_path, pack(GOOD, ("./good//1.jpg", other))) == {
        "./good//1.jpg": "another entry has the same name"
    }


def test_cyrillic_names_and_what_systems_leave_behind(tmp_path: Path) -> None:
    target, refused = unpack(
        save(
            tmp_path,
            pack(
                ("Ёлка/ё.jpg", JPEG),
                ("__MACOSX/Ёлка/._ё.jpg", b"x"),
                ("Ёлка/.DS_Store", b"x"),
                ("Ёлка/", b""),
            ),
        ),
        Limits(),
    )
    assert files(target) == {"Ёлка/ё.jpg", "refused.json"}
    assert refused == ()


# --- content ------------------------------------------------------------------------------------------


def test_what_is_neither_photo_nor_table_is_refused(tmp_path: Path) -> None:
    refused = refusals(tmp_path, pack(GOOD, ("run.exe", b"MZ"), ("a.py", b""), (".jpg", JPEG), ("t.csv", b"a,b")))
    assert refused == dict.fromkeys(("run.exe", "a.py", ".jpg"), "it is neither a photo nor a table")


def test_a_photo_by_name_alone_is_refused_with_decodings_reason(tmp_path: Path) -> None:
    cases = {"text.jpg": b"text", "empty.png": b"", "page.webp": b"<html>", "cut.jpg": JPEG[:30]}
    refused = refusals(tmp_path, pack(GOOD, *cases.items()))
    assert {name: reason.split(":")[0] for name, reason in refused.items()} == {
        "text.jpg": "not a photo",
        "empty.png": "empty",
        "page.webp": "not a photo",
        "cut.jpg": "truncated",
    }


def _patch_both(data: bytes, name: bytes, patch: Callable[[bytearray, int, int], None]) -> bytes:
    """Change an entry's local header (at the first offset) and its row of the contents (at the second)."""
    changed = bytearray(data)
    local = data.index(name) - 30
    row = data.rindex(name) - 46
    assert data[local : local + 4] == b"PK\x03\x04"
    assert data[row : row + 4] == b"PK\x01\x02"
    patch(changed, local, row)
    return bytes(changed)


def _encrypted(changed: bytearray, local: int, row: int) -> None:
    changed[local + 6] |= 1
    changed[row + 8] |= 1


def _wrong_crc(changed: bytearray, local: int, row: int) -> None:
    changed[local + 14] ^= 1
    changed[row + 16] ^= 1


def _wrong_byte(changed: bytearray, local: int, row: int) -> None:
    changed[local + 30 + len("bad.jpg") + 300] ^= 1


def _smaller(changed: bytearray, local: int, row: int) -> None:
    for at in (local + 22, row + 24):
        changed[at : at + 4] = struct.pack("<I", 100)


def _larger(changed: bytearray, local: int, row: int) -> None:
    for at in (local + 22, row + 24):
        changed[at : at + 4] = struct.pack("<I", 10_000)


def _another_name(changed: bytearray, local: int, row: int) -> None:
    changed[local + 30 : local + 33] = b"abc"


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (_encrypted, "it is encrypted"),
        (_wrong_crc, "damaged: "),
        (_wrong_byte, "damaged: "),
        (_smaller, "damaged: "),
        (_larger, "damaged: "),
        (_another_name, "damaged: "),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_or_lying_entry_is_refused_by_name(
    tmp_path: Path, patch: Callable[[bytearray, int, int], None], reason: str, method: int
) -> None:
    data = _patch_both(pack(("bad.jpg", JPEG), GOOD, method=method), b"bad.jpg", patch)
    refused = refusals(tmp_path, data)
    assert set(refused) == {"bad.jpg"}
    assert refused["bad.jpg"].startswith(reason)


def test_a_size_that_is_too_low_inflates_no_further(tmp_path: Path) -> None:
    bomb = pack(("bad.csv", bytes(300_000_000)), GOOD, method=zipfile.ZIP_DEFLATED)
    data = _patch_both(bomb, b"bad.csv", _smaller)
    tracemalloc.start()
    refused = refusals(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused["bad.csv"].startswith("damaged: ")
    assert peak < 30_000_000


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
def test_other_methods_of_packing_are_refused_by_name(tmp_path: Path, method: int, name: str) -> None:
    odd = info("odd.jpg")
    odd.compress_type = method
    assert refusals(tmp_path, pack(GOOD, (odd, JPEG))) == {
        "odd.jpg": f"it is packed with {name}, another method than deflate"
    }


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    data = bytearray(pack(("bad.jpg", JPEG), GOOD))
    row = data.rindex(b"bad.jpg") - 46
    for at in (row + 20, row + 24, data.index(b"bad.jpg") - 30 + 18, data.index(b"bad.jpg") - 30 + 22):
        data[at : at + 4] = struct.pack("<I", len(JPEG) + 100)  # reaches into the next entry
    refused = refusals(tmp_path, bytes(data))
    assert refused["bad.jpg"].startswith("damaged: ")


# --- bombs --------------------------------------------------------------------------------------------


def test_an_entry_that_inflates_too_far_is_refused(tmp_path: Path) -> None:
    bomb = encode(picture(8, 8), "BMP") + bytes(1_000_000)
    refused = refusals(tmp_path, pack(GOOD, ("bomb.bmp", bomb), method=zipfile.ZIP_DEFLATED))
    assert refused["bomb.bmp"].endswith("times its size: a bomb")


def test_an_inner_archive_that_inflates_too_far_is_refused(tmp_path: Path) -> None:
    inner = pack(("bomb.csv", bytes(3_000_000)))
    refused = refusals(tmp_path, pack(GOOD, ("inner.zip", inner), method=zipfile.ZIP_DEFLATED))
    assert refused["inner.zip"].endswith("times its size: a bomb")


def test_a_bomb_in_an_inner_archive_is_refused(tmp_path: Path) -> None:
    inner = pack(("bomb.bmp", bytes(1_000_000)), ("fine.jpg", JPEG), method=zipfile.ZIP_DEFLATED)
    refused = refusals(tmp_path, pack(GOOD, ("inner.zip", inner)))
    assert set(refused) == {"inner.zip/bomb.bmp"}
    assert refused["inner.zip/bomb.bmp"].endswith("a bomb")


def test_archives_are_unpacked_one_level_deep(tmp_path: Path) -> None:
    deepest = pack(("1.jpg", JPEG))
    inner = pack(("deeper.zip", deepest), ("2.jpg", JPEG), ("../../evil.jpg", JPEG))
    assert refusals(tmp_path, pack(GOOD, ("inner.zip", inner))) == {
        "inner.zip/deeper.zip": "it is an archive in an archive: unpack it, and give what is in it",
        "inner.zip/../../evil.jpg": "its name would leave the folder",
    }


def test_an_invalid_inner_archive_is_refused(tmp_path: Path) -> None:
    refused = refusals(tmp_path, pack(GOOD, ("inner.zip", b"no zip"), ("cut.zip", pack(GOOD)[:-30])))
    assert all(reason.startswith("damaged: ") for reason in refused.values())
    assert set(refused) == {"inner.zip", "cut.zip"}


def test_a_photo_or_table_that_is_too_large_is_refused(tmp_path: Path) -> None:
    data = pack(GOOD, ("large.csv", bytes(2001)))
    assert refusals(tmp_path, data, ArchiveLimits(table_bytes=2000)) == {
        "large.csv": "it unpacks to 2,001 bytes, the limit is 2,000"
    }
    target, refused = unpack(save(tmp_path, pack(("large.jpg", JPEG))), Limits(bytes=len(JPEG) - 1))
    assert refused[0].reason == f"it unpacks to {len(JPEG):,} bytes, the limit is {len(JPEG) - 1:,}"
    assert files(target) == {"refused.json"}


def test_too_many_entries_or_bytes_stop_everything(tmp_path: Path, own_cache: Path) -> None:
    path = save(tmp_path, pack(*((f"{number}.jpg", JPEG) for number in range(5))))
    assert unpack(path, Limits(), ArchiveLimits(entries=5))[1] == ()
    with pytest.raises(DataError, match=r"cars\.zip' holds 5 entries, the limit is 4"):
        unpack(path, Limits(), ArchiveLimits(entries=4))
    with pytest.raises(DataError, match=r"cars\.zip' unpacks to .* bytes, the limit is 2,000"):
        unpack(path, Limits(), ArchiveLimits(bytes=2000))
    assert len(list((own_cache / "archives").iterdir())) == 1


def test_entries_of_inner_archives_count_too(tmp_path: Path, own_cache: Path) -> None:
    inner = pack(*((f"{number}.jpg", JPEG) for number in range(5)))
    path = save(tmp_path, pack(("a.zip", inner), ("b.zip", inner)))
    assert len(files(unpack(path, Limits(), ArchiveLimits(entries=12))[0])) == 11
    with pytest.raises(DataError, match=r"'b\.zip' holds 12 entries, the limit is 11"):
        unpack(path, Limits(), ArchiveLimits(entries=11))
    assert len(list((own_cache / "archives").iterdir())) == 1


# --- whole archives -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zip",
        pack(GOOD)[:-10],
        pack(GOOD)[:200],
        pack(("имя.jpg", JPEG)).replace("имя".encode(), b"\xff" * 6),
    ],
    ids=["empty", "text", "cut", "cut early", "names that are no UTF-8"],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, own_cache: Path, data: bytes) -> None:
    with pytest.raises(DataError, match=r"Cannot read the archive '.*cars\.zip'"):
        unpack(save(tmp_path, data), Limits())
    assert not own_cache.exists()


def test_a_missing_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot read the archive"):
        unpack(tmp_path / "none.zip", Limits())


# --- the cache ----------------------------------------------------------------------------------------


def test_a_second_call_finds_the_folder_and_the_refusals(tmp_path: Path) -> None:
    path = save(tmp_path, pack(GOOD, ("run.exe", b"MZ")))
    folder, refused = unpack(path, Limits())
    (folder / "mark").touch()
    calls: list[tuple[int, int]] = []
    again = unpack(path, Limits(), progress=lambda done, of: calls.append((done, of)))
    assert again == (folder, refused)
    assert (folder / "mark").exists()
    assert calls == []
    assert unpack(save(tmp_path, path.read_bytes(), "copy.zip"), Limits())[0] == folder


def test_another_content_or_another_limit_is_another_folder(tmp_path: Path) -> None:
    path = save(tmp_path, pack(GOOD))
    folder, _ = unpack(path, Limits())
    tight, refused = unpack(path, Limits(pixels=10))
    assert tight != folder
    assert refused[0].reason.startswith("too large")
    other = encode(picture(8, 8, seed=1), "JPEG")
    assert unpack(save(tmp_path, pack(("good/1.jpg", other))), Limits())[0] != folder


def test_a_damaged_archive_that_was_fetched_again_is_unpacked_again(tmp_path: Path) -> None:
    sound = pack(("bad.jpg", JPEG), GOOD)
    damaged = _patch_both(sound, b"bad.jpg", _wrong_byte)
    folder, refused = unpack(save(tmp_path, damaged), Limits())
    assert [entry.name for entry in refused] == ["bad.jpg"]
    assert unpack(save(tmp_path, sound), Limits()) == (folder, ())
    assert (folder / "bad.jpg").read_bytes() == JPEG


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    path = save(tmp_path, pack(GOOD, ("2.jpg", JPEG), ("inner.zip", pack(GOOD, GOOD2))))

    def interrupt(done: int, of: int) -> None:
        if (done, of) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(path, Limits(), progress=interrupt)
    assert list((own_cache / "archives").iterdir()) == []
    assert unpack(path, Limits())[1] == ()


def test_a_full_disk_ends_the_unpacking_with_advice(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DataError, match=r"No space left on device\. Free some space and run the command again"):
        module.why_left_out(full, tmp_path)


def test_nothing_is_unpacked_where_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = save(tmp_path, b"", "a file")
    monkeypatch.setenv("NAMEPLATE_CACHE", str(blocked))
    with pytest.raises(NameplateError, match="Cannot write"):
        unpack(save(tmp_path, pack(GOOD)), Limits())


# --- names of other systems ---------------------------------------------------------------------------


def raw_names(names: dict[bytes, bytes], extra: bytes = b"") -> bytes:
    """A zip as old programs write it: its names are bytes of any encoding, and nothing says which."""
    body, rows = b"", b""
    for raw, content in names.items():
        fixed = struct.pack("<HHHHIII", 0, 0, 0, 33, zlib.crc32(content), len(content), len(content))
        row = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 33, zlib.crc32(content), len(content),
                          len(content), len(raw), len(extra), 0, 0, 0, 0, len(body))  # fmt: skip
        body += b"PK\3\4" + struct.pack("<H", 20) + fixed + struct.pack("<HH", len(raw), 0) + raw + content
        rows += row + raw + extra
    return body + rows + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(names), len(names), len(rows), len(body), 0)


def test_names_of_macos_without_a_flag_are_utf_8_and_composed(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "Хёндай/й.jpg")
    target, refused = unpack(save(tmp_path, raw_names({name.encode(): JPEG})), Limits())
    assert files(target) == {"Хёндай/й.jpg", "refused.json"}
    assert refused == ()


@pytest.mark.parametrize(
    ("name", "encoding"), [("Лада Нива/Ё 1.jpg", "cp866"), ("Citroën/Müller.jpg", "cp437"), ("Škoda.jpg", "utf-8")]
)
def test_names_of_windows_without_a_flag_are_reported(tmp_path: Path, name: str, encoding: str) -> None:
    target, refused = unpack(save(tmp_path, raw_names({name.encode(encoding): JPEG, b"a.jpg": JPEG})), Limits())
    assert files(target) == {name, "a.jpg", "refused.json"}
    said = [f"names of entries that say no encoding were read: 1 as {encoding}; nothing is left out"]
    assert [entry.reason for entry in refused] == said * (encoding != "utf-8")


def test_a_name_in_the_unicode_field_counts(tmp_path: Path) -> None:
    raw, name = "?.jpg".encode("cp437"), "Лада.jpg".encode()
    extra = b"up" + struct.pack("<HBI", 5 + len(name), 1, zlib.crc32(raw)) + name
    assert files(unpack(save(tmp_path, raw_names({raw: JPEG}, extra)), Limits())[0]) == {"Лада.jpg", "refused.json"}
    stale = b"up" + struct.pack("<HBI", 5 + len(name), 1, zlib.crc32(raw) ^ 1) + name
    assert files(unpack(save(tmp_path, raw_names({raw: JPEG}, stale)), Limits())[0]) == {"?.jpg", "refused.json"}


def test_backslashes_of_powershell_5_part_folders(tmp_path: Path) -> None:
    data = raw_names({b"train\\BMW X5\\1.jpg": JPEG, b"train\\BMW X5\\": b"", b"good\\1.jpg": JPEG})
    assert refusals(tmp_path, data) == {}
    assert "train/BMW X5/1.jpg" in files(unpack(tmp_path / "cars.zip", Limits())[0])


def test_a_photo_is_recognised_by_its_first_bytes(tmp_path: Path) -> None:
    refused = refusals(tmp_path, pack(GOOD, ("photo", JPEG), ("a.dat", JPEG), ("cut.dat", JPEG[:30]), ("b.dat", b"x")))
    assert refused.pop("b.dat") == "it is neither a photo nor a table"
    assert refused.pop("cut.dat").startswith("truncated: ")
    assert refused == {}
    assert {"photo", "a.dat"} <= files(unpack(tmp_path / "cars.zip", Limits())[0])


# --- tars, and what commands say ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz"])
def test_a_tar_is_a_data_set_as_a_zip_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cars.{suffix}"
    with tarfile.open(path, "w" if suffix == "tar" else "w:gz") as archive:
        for name, data in (("cars/Kia Rio/1.jpg", JPEG), ("cars/ВАЗ/1.jpg", JPEG), ("../evil.jpg", JPEG)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    found = read_dataset(path)
    assert found.nameplates == ("Kia Rio", "ВАЗ")
    assert [(entry.name, entry.reason) for entry in found.refused][:1] == [
        ("../evil.jpg", "its name would leave the folder")
    ]
    assert not (tmp_path / "home" / "cache" / "evil.jpg").exists()


def test_inner_tars_are_unpacked_too(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("1.jpg")
        entry.size = len(JPEG)
        archive.addfile(entry, io.BytesIO(JPEG))
    assert refusals(tmp_path, pack(GOOD, ("train.tar.gz", file.getvalue()), ("bad.tar", b"no tar"))) == {
        "bad.tar": "damaged: it is no tar"
    }
    assert "train/1.jpg" in files(unpack(tmp_path / "cars.zip", Limits())[0])


def test_an_encrypted_zip_is_called_so_and_by_its_own_name(tmp_path: Path) -> None:
    data = _patch_both(pack(("Kia/1.jpg", JPEG)), b"Kia/1.jpg", _encrypted)
    with pytest.raises(DataError) as caught:
        read_dataset(save(tmp_path, data))
    assert f"'{tmp_path}/cars.zip'" in str(caught.value)
    assert "Left out: 1, as it is encrypted." in str(caught.value)
    assert "home/cache" not in str(caught.value)


def test_a_competitions_table_that_unpacks_to_gigabytes_ends_at_its_limit(tmp_path: Path) -> None:
    table = b"Id,Category\n" + b"1.jpg,0\n" * 600_000
    data = pack(("train.csv", table), GOOD, method=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    refused = refusals(tmp_path, data, ArchiveLimits(table_bytes=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused == {"train.csv": f"it unpacks to {len(table):,} bytes, the limit is 1,000,000"}
    assert peak < 3_000_000


def test_a_table_of_contents_has_a_limit_before_it_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, pack(*((f"{number}.jpg", JPEG) for number in range(50))))
    with pytest.raises(DataError, match=r"The table of contents of '.*cars\.zip' claims .* bytes, the limit is 1,000"):
        unpack(path, Limits(), ArchiveLimits(header_bytes=1000))


def test_tables_together_inflate_no_further_than_the_whole_may(tmp_path: Path) -> None:
    data = pack(*((f"{number}.csv", bytes(1_000_000)) for number in range(5)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"cars\.zip' unpacks to more than 200 times its size: a bomb"):
        unpack(save(tmp_path, data), Limits(), ArchiveLimits(table_bytes=1_000_000))


def test_a_zip_with_an_encrypted_zip_is_reported_by_the_name_that_the_user_gave(tmp_path: Path) -> None:
    inner = _patch_both(pack(("Kia/1.jpg", JPEG)), b"Kia/1.jpg", _encrypted)
    path = save(tmp_path, pack(("inner.zip", inner)))
    for read in (read_dataset, list_photos):
        with pytest.raises(DataError, match=r"cars\.zip'.* Left out: 1, as it is encrypted\.") as caught:
            read(path)
        assert "home/cache" not in str(caught.value)
