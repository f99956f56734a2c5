"""Archives read in place: every photo, or a row with the reason, whatever is wrong with the archive."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from nameplate.batch import archives
from nameplate.batch.shards import Reader
from nameplate.batch.uris import read_uri
from nameplate.data.archive import ArchiveLimits, Refused, unpack
from nameplate.errors import DataError, PhotoError
from nameplate.types import Limits
from tests.batch.listed import list_references
from tests.images.torture import encode, picture

LIMITS = Limits()
PHOTOS = {f"p/{number:02}.jpg": encode(picture(8, 8, seed=number), "JPEG") for number in range(12)}
NAMES = list(PHOTOS)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that relative paths are meant from, and a cache of the test's own."""
    monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tar(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def pack(suffix: str, members: Sequence[tuple[str, bytes]], path: Path | None = None) -> Path:
    path = path or Path(f"shard.{suffix}")
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
    else:
        path.write_bytes(tar(members) if suffix == "tar" else gzip.compress(tar(members)))
    return path


def outcome(source: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """By name: bytes that were read in one stream, and errors."""
    found, errors = {}, {}
    references = [entry for entry in archives.list_members(str(source)) if isinstance(entry, str)]
    assert len(set(references)) == len(references)
    with Reader(LIMITS) as reader:
        for reference, source_ in zip(references, reader.sources(references), strict=True):
            name = archives.split(reference)[1]
            try:
                assert callable(source_)
                found[name] = source_()
            except PhotoError as error:
                errors[name] = str(error)
    return found, errors


def left_out(source: Path) -> list[str]:
    return [entry.reason for entry in archives.list_members(str(source)) if isinstance(entry, Refused)]


def reasons(source: Path) -> list[str]:
    """All that unpacking it says."""
    return [entry.reason for entry in unpack(source, LIMITS)[1]]


# --- formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_names_long_and_foreign_are_read_in_every_form(form: int, suffix: str) -> None:
    names = ["a.jpg", "x" * 70 + "/" + "y" * 80 + ".jpg", "ёлка/ё.jpg", "./b.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names.append("/".join(["ё" * 90] * 5) + ".jpg")
    data = tar([(name, name.encode()) for name in names], form)
    Path(f"s.{suffix}").write_bytes(data if suffix == "tar" else gzip.compress(data))
    found, errors = outcome(Path(f"s.{suffix}"))
    assert found == {name.removeprefix("./"): name.encode() for name in names}
    assert errors == {}
    assert read_uri(f"s.{suffix}::./b.jpg", LIMITS) == b"./b.jpg"


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_a_photo_is_recognised_by_its_bytes_and_the_rest_left_out_by_name(suffix: str) -> None:
    inner = pack("zip", [("1.jpg", PHOTOS[NAMES[0]])], Path("inner.bin")).read_bytes()
    source = pack(
        suffix,
        [("one", PHOTOS[NAMES[0]]), ("note.txt", b"x"), (".hidden", PHOTOS[NAMES[0]]), ("inner.tar", inner)],
    )
    if suffix != "zip":  # such a zip is unpacked
        assert left_out(source)[1:] == ["it is an archive in an archive: unpack it, and give what is in it"]
        assert list(list_references([str(source)])) == [f"{source}::one"]
    assert left_out(source)[0] == "it is neither a photo nor a table"
    assert read_uri(f"{source}::one", LIMITS) == PHOTOS[NAMES[0]]


def test_a_tar_of_archives_alone_says_so() -> None:
    with pytest.raises(
        DataError, match=r"no photos in 'shard\.tar' \(.*\)\. Left out: 1, as it is an archive in an archive"
    ):
        list(list_references([str(pack("tar", [("a.zip", b"x")]))]))


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_the_first_of_two_members_of_one_name_counts_and_the_second_is_reported(suffix: str) -> None:
    members = [("a.jpg", PHOTOS[NAMES[0]]), ("./a.jpg", PHOTOS[NAMES[1]]), ("e\u0301.jpg", b"1"), ("\xe9.jpg", b"2")]
    source = pack(suffix, members)
    found, errors = outcome(source)
    assert found == {"a.jpg": PHOTOS[NAMES[0]], "\xe9.jpg": b"1"}
    assert set(errors.values()) == {"not a photo: another entry has the same name"}
    assert len(errors) == 2
    assert read_uri(f"{source}::e\u0301.jpg", LIMITS) == b"1"
    assert reasons(source)[0] == "another entry has the same name"
    assert (unpack(source, LIMITS)[0] / "a.jpg").read_bytes() == PHOTOS[NAMES[0]]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_links_and_names_that_leave_the_folder_are_rows(suffix: str) -> None:
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
    data = tar([("a.jpg", b"a"), (link, b""), ("../b.jpg", b"b"), ("C:\\c.jpg", b"c"), ("12:30.jpg", b"t")])
    source = Path(f"s.{suffix}")
    source.write_bytes(data if suffix == "tar" else gzip.compress(data))
    found, errors = outcome(source)
    assert found == {"a.jpg": b"a", "12:30.jpg": b"t"}
    assert errors == {
        "link.jpg": "not a photo: it is a link or a special file",
        "../b.jpg": "not a photo: its name would leave the folder",
        "C:/c.jpg": "not a photo: its name would leave the folder",
    }


# --- damage -------------------------------------------------------------------------------------------


def _header_at(data: bytes | bytearray, name: str) -> int:
    return data.index(name.encode() + b"\0")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("new", [b"\xff", bytes(512)], ids=["one byte", "zeros"])
def test_a_damaged_header_in_the_middle_costs_one_photo_and_is_reported(suffix: str, new: bytes) -> None:
    data = bytearray(tar(PHOTOS.items()))
    at = _header_at(data, NAMES[5]) + (0 if len(new) > 1 else 150)
    data[at : at + len(new)] = new
    source = Path(f"s.{suffix}")
    source.write_bytes(data if suffix == "tar" else gzip.compress(data))
    found, errors = outcome(source)
    assert found == {name: data for name, data in PHOTOS.items() if name != NAMES[5]}
    [(name, error)] = errors.items()
    assert name.startswith("damaged bytes ")
    assert f"after '{NAMES[4]}', are no entry" in error
    assert (f"perhaps '{NAMES[5]}'" in error) == (len(new) == 1)
    assert reasons(source) == [error]
    with pytest.raises(PhotoError, match=f"damaged: there is no '{NAMES[5]}' left"):
        read_uri(f"{source}::{NAMES[5]}", LIMITS)


def test_a_hole_of_zeros_over_several_photos_and_two_joined_tars_are_reported() -> None:
    data = bytearray(tar(PHOTOS.items()))
    start, end = _header_at(data, NAMES[3]), _header_at(data, NAMES[7])
    data[start:end] = bytes(end - start)
    Path("hole.tar").write_bytes(data)
    found, errors = outcome(Path("hole.tar"))
    assert list(found) == NAMES[:3] + NAMES[7:]
    assert len(errors) == 1
    Path("two.tar").write_bytes(tar(list(PHOTOS.items())[:6]) + tar(list(PHOTOS.items())[6:]))
    found, errors = outcome(Path("two.tar"))
    assert found == PHOTOS
    assert "two archives joined" in next(iter(errors.values()))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_that_ends_early_at_any_place_says_so(suffix: str) -> None:
    whole = tar(PHOTOS.items())
    last = whole.rindex(b"ustar") - 257 + 512 + len(PHOTOS[NAMES[-1]])
    source = Path(f"s.{suffix}")
    data = whole[:last] if suffix == "tar" else gzip.compress(whole)[:-1]
    for end in range(400, len(data), len(data) // 60):
        source.write_bytes(data[:end])
        try:
            found, errors = outcome(source)
        except DataError:
            continue
        assert any(name.startswith("damaged bytes") for name in errors), end
        assert all(PHOTOS[name] == data for name, data in found.items())


def test_a_flipped_bit_of_a_compressed_tar_never_goes_unnoticed() -> None:
    whole, source = gzip.compress(tar(PHOTOS.items()), mtime=0), Path("s.tar.gz")
    places = random.Random(14).sample(
        range(10 * 8, len(whole) * 8), 150
    )  # behind the header, which only names the file
    for place in places:
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        source.write_bytes(data)
        try:
            _, errors = outcome(source)
        except DataError:
            continue
        assert any(error.startswith("damaged") for error in errors.values()), place


def test_photos_before_and_after_damage_are_read_out_of_order_too() -> None:
    data = bytearray(tar(PHOTOS.items()))
    data[_header_at(data, NAMES[5]) + 150] ^= 0xFF
    Path("s.tar.gz").write_bytes(gzip.compress(data))
    names = [f"s.tar.gz::{name}" for name in reversed(NAMES)]
    with Reader(LIMITS) as reader:
        sources = list(reader.sources(names))
    for name, source in zip(names, sources, strict=True):
        assert callable(source)
        if not name.endswith(NAMES[5]):
            assert source() == PHOTOS[name.partition("::")[2]]
            continue
        with pytest.raises(PhotoError, match="damaged"):
            source()


# --- hostile ------------------------------------------------------------------------------------------


def _zeros(size: int) -> bytes:
    """A gzip member of so many zeros, made without holding them."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as packed:
        for _ in range(size >> 20):
            packed.write(bytes(1 << 20))
    return file.getvalue()


def test_a_compressed_bomb_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_LIMITS", limits := ArchiveLimits(table_bytes=1 << 20))
    Path("bomb.tar.gz").write_bytes(gzip.compress(tar([("a.jpg", b"")])[:512]) + _zeros(8 << 20) * 40)
    with pytest.raises(DataError, match=r"^'bomb\.tar\.gz' unpacks to more than 200 times its size: a bomb\.$"):
        list(archives.list_members("bomb.tar.gz"))
    with pytest.raises(DataError, match="a bomb"):
        unpack(Path("bomb.tar.gz"), LIMITS, limits)
    assert not list(Path("cache/archives").iterdir())


def _raw_header(type_: bytes, size: int, name: bytes = b"x") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[124:136] = b"0000644\0", f"{size:011o}\0".encode()
    block[148:156], block[156:157], block[257:265] = b" " * 8, type_, b"ustar\x0000"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("type_", [b"x", b"g", b"L", b"K"])
def test_headers_of_any_size_cost_no_memory(type_: bytes) -> None:
    size = 100 << 20
    parts = [gzip.compress(_raw_header(type_, size)), _zeros(size), gzip.compress(tar([("a.jpg", b"a")]))]
    Path("long.tar.gz").write_bytes(b"".join(parts))
    tracemalloc.start()
    listed = list(archives.list_members("long.tar.gz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert listed == ["long.tar.gz::a.jpg"]
    assert peak < 20_000_000
    with pytest.raises(PhotoError, match="its header has 104,857,600 bytes, the limit is 1,048,576"):
        read_uri("long.tar.gz::a.jpg", LIMITS)


def test_all_headers_together_have_a_limit() -> None:
    part = _raw_header(b"x", 1 << 20) + bytes(1 << 20)
    Path("many.tar").write_bytes(part * 5 + tar([("a.jpg", b"a")]))
    with pytest.raises(DataError, match=r"'many\.tar' has more than 3,000,000 bytes of headers, which is the limit"):
        unpack(Path("many.tar"), LIMITS, ArchiveLimits(header_bytes=3_000_000))


def test_more_entries_than_bytes_are_a_bomb() -> None:
    """4.2 MB of these took tarfile 145 seconds to list: folders were not counted."""
    Path("tiny.tar.gz").write_bytes(gzip.compress(_raw_header(b"5", 0) * 60_000))
    with pytest.raises(DataError, match=r"'tiny\.tar\.gz' holds .* entries or more in .* bytes: a bomb"):
        list(archives.list_members("tiny.tar.gz"))


def test_reading_has_a_time_limit() -> None:
    with pytest.raises(DataError, match="is not read within 0 s, which is the limit"):
        unpack(pack("tar", list(PHOTOS.items())), LIMITS, ArchiveLimits(seconds=0))


@pytest.mark.parametrize(
    "record",
    [b"GNU.sparse.major=1", b"GNU.sparse.map=1,2,x", b"GNU.sparse.size=-5", b"GNU.sparse.numblocks=9999999999"],
)
def test_broken_sparse_headers_are_a_row(record: bytes) -> None:
    line = b"%d %s\n" % (len(record) + 4, record)
    extended = _raw_header(b"x", len(line)) + line.ljust(512, b"\0")
    Path("sparse.tar").write_bytes(extended + tar([("a.jpg", b"a"), ("b.jpg", b"b")]))
    found, errors = outcome(Path("sparse.tar"))
    assert found == {"b.jpg": b"b"}
    assert errors == {"a.jpg": "not a photo: it is a sparse file, or goes on in another archive"}


@pytest.mark.parametrize(
    "payload", [b"9999999999 path=x\n", b"0 path=x\n", b" path=x", b"-5 path=\n", b"18 size=abcdefghi\n"]
)
def test_a_broken_pax_header_is_a_row(payload: bytes) -> None:
    extended = _raw_header(b"x", len(payload)) + payload.ljust(512, b"\0")
    Path("pax.tar").write_bytes(extended + tar([("a.jpg", b"a"), ("b.jpg", b"b")]))
    found, errors = outcome(Path("pax.tar"))
    assert found == {"b.jpg": b"b"}
    assert errors in ({"a.jpg": "damaged: its header cannot be read"},)


def test_random_bytes_over_a_tar_are_read_or_refused() -> None:
    whole, chance = tar(PHOTOS.items()), random.Random(4)
    for _ in range(150):
        data = bytearray(whole)
        for at in chance.sample(range(len(whole)), 3):
            block = at - at % 512
            data[block + chance.randrange(512)] = chance.randrange(256)
        Path("s.tar").write_bytes(data)
        try:
            found, errors = outcome(Path("s.tar"))
        except DataError:
            continue
        assert len(found) + len(errors) >= len(PHOTOS) or any("damaged bytes" in name for name in errors)


def test_entries_over_the_same_bytes_are_refused() -> None:
    data = pack("zip", [("0.jpg", PHOTOS[NAMES[0]] * 50)]).read_bytes()
    row, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = 3_000
    rows = [data[row:end].replace(b"0.jpg", f"{n:05}".encode()) for n in range(count)]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, count * (end - row), row, 0)
    Path("over.zip").write_bytes(data[:row] + b"".join(rows) + tail)
    found = reasons(Path("over.zip"))
    assert len(found) == count
    assert found.count("damaged: it reaches into the next entry") == count - 1


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_devices_and_named_pipes_are_refused_at_once(here: Path, suffix: str) -> None:
    os.mkfifo(f"pipe.{suffix}")
    Path(f"zero.{suffix}").symlink_to("/dev/zero")
    for name in (f"pipe.{suffix}", f"zero.{suffix}"):
        with pytest.raises(DataError, match=r"Cannot read the archive '.*': it is not a regular file\."):
            list(list_references([name]))
        with pytest.raises(PhotoError, match="it is not a regular file"):
            read_uri(f"{name}::a.jpg", LIMITS)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a.zip", b"7z\xbc\xaf\x27\x1c", "it is a 7z archive"),
        ("a.zip", b"Rar!\x1a\x07\x01\0", "it is a RAR archive"),
        ("a.tar", b"BZh91AY&SY", "it is packed with bzip2"),
        ("a.tar.gz", b"\xfd7zXZ\0", "it is packed with xz"),
        ("a.tgz", b"PK\x03\x04", "it is a zip"),
        ("a.tar", b"\x1f\x8b\x08", r"it is packed with gzip, so its name must end in \.tar\.gz"),
    ],
)
def test_other_archives_are_named(name: str, start: bytes, said: str) -> None:
    Path(name).write_bytes(start + os.urandom(2000))
    with pytest.raises(DataError, match=f"Cannot read the archive '{name}': {said}"):
        list(list_references([name]))
