"""Zip archives, unpacked once into the cache with every entry checked.

An entry is refused by name and reason when it would leave the folder, is a link, is encrypted, is not a
photo, table or known inner archive, or unpacks to more than it should. The rest is unpacked.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from nameplate.errors import DataError, PhotoError
from nameplate.photos.decode import read_header
from nameplate.storage import cache_folder, whole_folder
from nameplate.types import Limits

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".avif", ".bmp", ".gif"})
TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".txt"})
JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
"""What operating systems leave in folders and archives; passed over without a word."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may unpack to."""

    entries: int = 2_000_000
    """Files in one archive."""
    bytes: int = 64 * 1024**3
    """Unpacked size of all entries together."""
    table_bytes: int = 512 * 1024**2
    """Unpacked size of one table."""
    ratio: int = 200
    """Unpacked size of a photo or archive against its packed size (photos hardly compress)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was left out, and why."""

    name: str
    reason: str


Progress = Callable[[int, int], None]


def unpack(
    archive: Path,
    limits: Limits,
    archive_limits: ArchiveLimits | None = None,
    progress: Progress | None = None,
) -> tuple[Path, tuple[Refused, ...]]:
    """The folder that `archive` was unpacked into (once; later calls find it there), and what was refused.

    Archives inside it (train.zip, test.zip) become folders of their own name, one level deep.

    Raises:
        DataError: not a zip file, damaged, or more entries or bytes than the limits allow.
    """
    archive_limits = archive_limits or ArchiveLimits()
    with _open(archive) as outer:
        folder = cache_folder() / "archives" / _digest(outer)
        report = folder / "refused.json"
        if not report.is_file():
            with whole_folder(folder, overwrite=True) as temporary:
                budget = _Budget(archive_limits)
                refused = list(_unpack_into(outer, temporary, "", limits, budget, progress))
                (temporary / "refused.json").write_bytes(msgspec.json.encode(refused))
    return folder, tuple(msgspec.json.decode(report.read_bytes(), type=list[Refused]))


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"Cannot read the archive '{archive}': {error}.") from None


def _digest(archive: zipfile.ZipFile) -> str:
    """Names an archive's content by its table of contents, which holds every entry's CRC."""
    digest = hashlib.sha256(usedforsecurity=False)
    for entry in archive.infolist():
        digest.update(f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\0{entry.compress_size}\n".encode())
    return digest.hexdigest()[:32]


class _Budget:
    """Counts entries and bytes over an archive and those inside it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits, self.entries, self.bytes = limits, 0, 0

    def spend(self, archive: zipfile.ZipFile) -> None:
        self.entries += len(archive.infolist())
        self.bytes += sum(entry.file_size for entry in archive.infolist())
        if self.entries > self.limits.entries:
            raise DataError(
                f"'{archive.filename}' holds {self.entries:,} entries, the limit is {self.limits.entries:,}."
            )
        if self.bytes > self.limits.bytes:
            raise DataError(
                f"'{archive.filename}' unpacks to {self.bytes:,} bytes, the limit is {self.limits.bytes:,}."
            )


def _unpack_into(
    archive: zipfile.ZipFile,
    folder: Path,
    prefix: str,
    limits: Limits,
    budget: _Budget,
    progress: Progress | None,
) -> Iterator[Refused]:
    budget.spend(archive)
    entries = archive.infolist()
    for number, entry in enumerate(entries):
        if progress:
            progress(number, len(entries))
        if entry.is_dir() or _is_junk(entry.filename):
            continue
        name = prefix + entry.filename
        inner = entry.filename.lower().endswith(".zip") and not prefix
        reason = _refusal(entry, limits, budget.limits, inner=inner)
        if reason is None and inner:
            yield from _unpack_inner(archive, entry, folder, limits, budget, progress)
            continue
        if reason is None:
            reason = _extract(archive, entry, folder / _safe(entry.filename), limits)
        if reason is not None:
            yield Refused(name, reason)


def _is_junk(name: str) -> bool:
    return any(part.casefold() in JUNK for part in PurePosixPath(name).parts)


def _safe(name: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part != "."))


def _refusal(
    entry: zipfile.ZipInfo, limits: Limits, archive_limits: ArchiveLimits, *, inner: bool
) -> str | None:
    """Why an entry is not even opened; None where it may be."""
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
        return "its name would leave the folder"
    if any(ord(letter) < 32 for letter in entry.filename):
        return "its name holds control characters"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link or a special file"
    if entry.flag_bits & 0x1:
        return "it is encrypted"
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        allowed = archive_limits.table_bytes
    elif suffix in PHOTO_SUFFIXES:
        allowed = limits.bytes
    elif inner:
        allowed = archive_limits.bytes
    else:
        return "it is neither a photo nor a table"
    if entry.file_size > allowed:
        return f"it unpacks to {entry.file_size:,} bytes, the limit is {allowed:,}"
    if suffix not in TABLE_SUFFIXES and entry.file_size > archive_limits.ratio * max(entry.compress_size, 1):
        return f"it unpacks to {entry.file_size // max(entry.compress_size, 1):,} times its size: a bomb"
    return None


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limits: Limits) -> str | None:
    """Write one photo or table; why not, where it cannot be."""
    try:
        data = archive.read(entry)
        if target.suffix.lower() in PHOTO_SUFFIXES:
            read_header(data, limits)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
    except PhotoError as error:
        return str(error)
    except FileExistsError:
        return "another entry has the same name"
    except OSError as error:
        if error.errno is None:  # zipfile's and zlib's own complaints
            return f"damaged: {error}"
        raise DataError(
            f"Cannot unpack into '{target.parent}': {error.strerror}. Free some space and go on."
        ) from None
    except Exception as error:  # zipfile, zlib, lzma and bz2 raise all sorts on hostile bytes
        return f"damaged: {error}"
    return None


def _unpack_inner(
    archive: zipfile.ZipFile,
    entry: zipfile.ZipInfo,
    folder: Path,
    limits: Limits,
    budget: _Budget,
    progress: Progress | None,
) -> Iterator[Refused]:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".zip") as copy:
        try:
            with archive.open(entry) as source:
                shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            inner = zipfile.ZipFile(copy.name)
        except Exception as error:  # as in _extract
            yield Refused(entry.filename, f"damaged: {error}")
            return
        with inner:
            target = folder / _safe(entry.filename).parent
            yield from _unpack_into(inner, target, f"{entry.filename}/", limits, budget, progress)
