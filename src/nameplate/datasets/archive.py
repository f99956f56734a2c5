"""Zip archives, unpacked once into the cache with every entry checked.

An entry is refused by name and reason when it would leave the folder, is a link, is encrypted, is not a
photo, table or known inner archive, or unpacks to more than it should. The rest is unpacked.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from nameplate.datasets.tables import TABLE_SUFFIXES
from nameplate.errors import DataError, PhotoError
from nameplate.photos.decode import read_header
from nameplate.photos.formats import PHOTO_SUFFIXES
from nameplate.storage import cache_folder, whole_folder
from nameplate.types import Limits

TEXT_SUFFIXES = frozenset({*TABLE_SUFFIXES, ".txt"})
"""Tables, and the names of their classes."""
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

    Archives inside it (train.zip, test.zip) become folders of their own name, one level deep; a top folder
    of that same name is not doubled.

    Raises:
        DataError: not a zip file, damaged, or more entries or bytes than the limits allow.
    """
    archive_limits = archive_limits or ArchiveLimits()
    with _open(archive) as outer:
        folder = cache_folder() / "archives" / _digest(outer, limits, archive_limits)
        report = folder / "refused.json"
        if not report.is_file() or _is_damaged(report):
            with whole_folder(folder, overwrite=True) as temporary:
                budget = _Budget(archive_limits)
                refused = list(_unpack_into(outer, temporary, "", limits, budget, progress))
                (temporary / "refused.json").write_bytes(msgspec.json.encode(refused))
    return folder, tuple(_read_report(report))


def _read_report(report: Path) -> list[Refused]:
    return msgspec.json.decode(report.read_bytes(), type=list[Refused])


def _is_damaged(report: Path) -> bool:
    """Whether the archive had damaged entries; one that was fetched again looks the same from outside."""
    return any(entry.reason.startswith("damaged:") for entry in _read_report(report))


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except Exception as error:  # zipfile raises all sorts on hostile bytes
        raise DataError(f"Cannot read the archive '{archive}': {error}.") from None


def _digest(archive: zipfile.ZipFile, *limits: object) -> str:
    """Names an archive's content by its table of contents, which holds each CRC, and what is let in."""
    digest = hashlib.sha256(repr(limits).encode(), usedforsecurity=False)
    for entry in archive.infolist():
        row = f"{entry.filename}\0{entry.CRC}\0{entry.file_size}\0{entry.compress_size}\n"
        digest.update(row.encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


class _Budget:
    """Counts entries and bytes over an archive and those inside it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits, self.entries, self.bytes = limits, 0, 0

    def spend(self, archive: zipfile.ZipFile, name: str) -> None:
        self.entries += len(archive.infolist())
        self.bytes += sum(entry.file_size for entry in archive.infolist())
        if self.entries > self.limits.entries:
            raise DataError(f"'{name}' holds {self.entries:,} entries, the limit is {self.limits.entries:,}.")
        if self.bytes > self.limits.bytes:
            raise DataError(f"'{name}' unpacks to {self.bytes:,} bytes, the limit is {self.limits.bytes:,}.")


def _unpack_into(
    archive: zipfile.ZipFile,
    folder: Path,
    prefix: str,
    limits: Limits,
    budget: _Budget,
    progress: Progress | None,
) -> Iterator[Refused]:
    budget.spend(archive, prefix.rstrip("/") or str(archive.filename))
    entries = archive.infolist()
    for number, entry in enumerate(entries):
        if progress:
            progress(number, len(entries))
        if entry.is_dir() or is_junk(entry.filename):
            continue
        name = prefix + entry.filename
        inner = entry.filename.lower().endswith(".zip") and not prefix
        reason = refusal(entry, limits, budget.limits, inner=inner)
        if reason is None and inner:
            yield from _unpack_inner(archive, entry, folder, limits, budget, progress)
            continue
        if reason is None:
            reason = _extract(archive, entry, folder / _safe(entry.filename), limits)
        if reason is not None:
            yield Refused(name, reason)


def is_junk(name: str) -> bool:
    """Whether an entry is one of those that operating systems leave."""
    return any(part.casefold() in JUNK for part in PurePosixPath(name).parts)


def _safe(name: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part != "."))


def refusal(entry: zipfile.ZipInfo, limits: Limits, archive_limits: ArchiveLimits, *, inner: bool) -> str | None:
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
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is packed with another method than deflate"  # the others cannot be read in bounded pieces
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        allowed = archive_limits.table_bytes
    elif suffix in PHOTO_SUFFIXES:
        allowed = limits.bytes
    elif inner:
        allowed = archive_limits.bytes
    else:
        return "it is neither a photo nor a table"
    if entry.file_size > allowed:
        return f"it unpacks to {entry.file_size:,} bytes, the limit is {allowed:,}"
    if suffix not in TEXT_SUFFIXES and entry.file_size > archive_limits.ratio * max(entry.compress_size, 1):
        return f"it unpacks to {entry.file_size // max(entry.compress_size, 1):,} times its size: a bomb"
    return None


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, limits: Limits) -> str | None:
    """Write one photo or table; why not, where it cannot be."""
    try:
        with archive.open(entry) as source:
            data = source.read(entry.file_size + 1)  # a plain read() would inflate what the size denies
        if len(data) != entry.file_size:
            return f"damaged: it claims {entry.file_size:,} bytes and has {len(data):,}"
        if target.suffix.lower() in PHOTO_SUFFIXES:
            read_header(data, limits)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
    except PhotoError as error:
        return str(error)
    except FileExistsError:
        return "another entry has the same name"
    except Exception as error:  # zipfile and zlib raise all sorts on hostile bytes
        return _reason(error, target.parent)
    return None


def _reason(error: Exception, folder: Path) -> str:
    """Why an entry is left out; the disk's own trouble is the user's to mend, and ends the unpacking."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):
        return f"it cannot have this name here: {error.strerror}"
    if isinstance(error, OSError) and error.errno is not None:
        raise DataError(f"Cannot unpack into '{folder}': {error.strerror}. Free some space and go on.") from None
    return f"damaged: {error or type(error).__name__}"


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
            yield Refused(entry.filename, _reason(error, folder))
            return
        with inner:
            path = _safe(entry.filename)
            top = {_safe(name).parts[:1] for name in inner.namelist() if not is_junk(name)}
            own = path.stem.strip(".") or "archive"  # '...zip' must not become '..'
            target = folder / (path.parent if top == {(own,)} else path.parent / own)
            yield from _unpack_into(inner, target, f"{entry.filename}/", limits, budget, progress)
