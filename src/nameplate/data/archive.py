"""Archives, unpacked once into the cache with every entry checked: zip, tar, tar.gz.

An entry is refused by name and reason when it would leave the folder, is a link, is encrypted, is not a
photo, table or known inner archive, has the name of an earlier one, or unpacks to more than it should. The rest is
unpacked. So is what is sound of a damaged archive, and the damage is told.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

from nameplate.data.members import (
    DEEP,
    JUNK,
    NO_PHOTO,
    ArchiveLimits,
    Budget,
    Member,
    NoArchiveError,
    Refused,
    archive_stem,
    is_archive,
    is_junk,
    size_problem,
)
from nameplate.data.tar import Tar
from nameplate.data.zip import Zip
from nameplate.errors import DataError, Failure, PhotoError
from nameplate.images.decode import read_header
from nameplate.images.formats import picture_format
from nameplate.storage import cache_folder, open_regular, whole_folder
from nameplate.types import Limits

__all__ = [
    "JUNK",
    "REPORT",
    "ArchiveLimits",
    "Progress",
    "Refused",
    "archive_stem",
    "first_reasons",
    "is_archive",
    "open_archive",
    "sniffed",
    "speaking_of",
    "unpack",
]

Progress = Callable[[int, int], None]
Archive = Zip | Tar

REPORT = "refused.json"
"""In the folder of an unpacked archive: what of it was refused."""
FORM = 3
"""Of an unpacked folder; raised when the same archive would be unpacked otherwise."""
SAID = 3
"""Reasons that an error gives, with their counts."""


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
        DataError: not an archive, not a regular file, or it costs more than the limits allow.
    """
    archive_limits = archive_limits or ArchiveLimits()
    outer = open_archive(archive, limits, archive_limits)
    try:
        folder = cache_folder() / "archives" / _digest(outer, limits, archive_limits)
        report = folder / REPORT
        # One with damaged entries that was fetched again looks the same from outside.
        if not report.is_file() or _read_report(report).damaged:
            with whole_folder(folder, overwrite=True) as temporary:
                left_out = list(_unpack_into(outer, temporary, "", progress))
                (temporary / REPORT).write_bytes(msgspec.json.encode(_report(left_out)))
    finally:
        outer.close()
    return folder, _read_report(report).refused


def open_archive(
    path: str | os.PathLike[str], limits: Limits, archive_limits: ArchiveLimits, budget: Budget | None = None
) -> Archive:
    """Open an archive to read its members; `budget`: that of the archive that this one came from.

    Raises:
        DataError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        file = open_regular(name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NoArchiveError(name, str(reason)) from None
    budget = budget or Budget(name, os.fstat(file.fileno()).st_size, archive_limits)
    return Zip(file, limits, budget) if name.lower().endswith(".zip") else Tar(file, limits, budget)


def sniffed(archive: Archive, member: Member) -> Member:
    """A member whose name does not say what it is as what its first bytes say; hidden ones are left alone.

    Raises:
        PhotoError: they cannot be read.
    """
    if member.kind != "other" or member.problem is not None or PurePosixPath(member.name).name.startswith("."):
        return member
    if picture_format(archive.start(member)) is None:
        return member
    problem = size_problem("photo", member.size, None, archive.limits, archive.budget.limits)
    return replace(member, kind="photo", problem=problem, reason="too large" if problem else member.reason)


@contextmanager
def speaking_of(archive: Path, folder: Path, refused: Iterable[Refused]) -> Iterator[None]:
    """Errors about an unpacked folder speak of the archive instead, and say what of it was left out."""
    try:
        yield
    except DataError as error:
        said = str(error).replace(str(folder), str(archive))
        left_out = [*error.left_out, *((entry.name, entry.reason) for entry in refused)]
        raise DataError(said + first_reasons(refused), left_out) from None


def first_reasons(refused: Iterable[Refused]) -> str:
    """The most frequent reasons why entries were left out, with counts, as sentences to follow another."""
    counts = Counter(entry.reason for entry in refused).most_common(SAID)
    return "".join(f" Left out: {count:,}, as {reason}." for reason, count in counts)


@dataclass(frozen=True, slots=True)
class _Report:
    """What of an archive was not unpacked, kept beside what was."""

    refused: tuple[Refused, ...]
    damaged: bool
    """Whether an entry is damaged."""


Why = Failure | str
"""Why an entry is left out: its failure where it cannot be read, else a sentence."""


def _report(left_out: Iterable[tuple[str, Why]]) -> _Report:
    entries = list(left_out)
    damaged = any(isinstance(why, Failure) and why.reason == "damaged" for _, why in entries)
    return _Report(tuple(Refused(name, str(why)) for name, why in entries), damaged)


def _read_report(report: Path) -> _Report:
    return msgspec.json.decode(report.read_bytes(), type=_Report)


def _digest(archive: Archive, *limits: object) -> str:
    """Names an archive's content by what tells it from another's, and what is let in."""
    digest = hashlib.sha256(repr((FORM, *limits)).encode(), usedforsecurity=False)
    for row in archive.contents():
        digest.update(row.encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _unpack_into(archive: Archive, folder: Path, prefix: str, progress: Progress | None) -> Iterator[tuple[str, Why]]:
    """Write all that is let in; names of what is not, and why."""
    called = prefix.rstrip("/") or archive.budget.archive
    for member in archive.members(called):
        if progress:
            progress(*archive.progress())
        if is_junk(member.name):
            continue
        if member.kind == "archive" and member.problem is None and not prefix:
            yield from _unpack_inner(archive, member, folder, progress)
        elif reason := _unpack_member(archive, member, folder):
            yield prefix + member.shown, reason
    yield from ((note.name, note.reason) for note in archive.names.note(called))


def _unpack_member(archive: Archive, member: Member, folder: Path) -> Why | None:
    """Write one photo or table; why not, where it cannot be."""
    target = folder / member.name
    try:
        member = sniffed(archive, member)
        if member.problem is not None:
            return Failure("damaged", member.problem) if member.reason == "damaged" else member.problem
        if member.kind not in ("photo", "table"):
            return DEEP if member.kind == "archive" else NO_PHOTO
        pieces: Iterable[bytes] = _pieces(archive, member)
        if member.kind == "photo":
            data = b"".join(pieces)
            read_header(data, archive.limits)
            pieces = (data,)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, pieces)
    except PhotoError as error:
        return error.failure
    except FileExistsError:
        return "another entry has the same name"
    except (OSError, ValueError) as error:
        return _reason(error, target.parent)
    return None


def _pieces(archive: Archive, member: Member) -> Iterator[bytes]:
    """A member's bytes, on the budget; a tar counts its own."""
    pieces, began = archive.pieces(member), time.perf_counter()
    for piece in pieces:
        if isinstance(archive, Zip):
            archive.budget.inflate(len(piece))
            archive.budget.time(began)
        yield piece
        began = time.perf_counter()


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    with target.open("xb") as file:
        try:
            for piece in pieces:
                file.write(piece)
        except BaseException:
            target.unlink()
            raise


def _reason(error: Exception, folder: Path) -> Why:
    """Why an entry is left out; the disk's own trouble is the user's to mend, and ends the unpacking."""
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):
        return f"it cannot have this name here: {error.strerror}"
    if isinstance(error, OSError) and error.errno is not None:
        raise DataError(f"Cannot unpack into '{folder}': {error.strerror}. Free some space and go on.") from None
    return Failure("damaged", str(error) or type(error).__name__)


def _unpack_inner(
    archive: Archive, member: Member, folder: Path, progress: Progress | None
) -> Iterator[tuple[str, Why]]:
    suffix = ".zip" if member.name.lower().endswith(".zip") else ".tar"
    with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix) as copy:
        try:
            for piece in _pieces(archive, member):
                copy.write(piece)
            copy.flush()
            target = folder / _inner_folder(copy.name, member.name, archive)
            inner = open_archive(copy.name, archive.limits, archive.budget.limits, archive.budget)
        except (PhotoError, NoArchiveError) as error:
            yield member.shown, error.failure if isinstance(error, PhotoError) else Failure("damaged", error.detail)
            return
        except OSError as error:
            yield member.shown, _reason(error, folder)
            return
        try:
            yield from _unpack_into(inner, target, f"{member.shown}/", progress)
        finally:
            inner.close()


def _inner_folder(copy: str, name: str, outer: Archive) -> PurePosixPath:
    """Where an inner archive goes: a folder of its name, unless its only folder is called so already."""
    own = archive_stem(name).strip(".") or "archive"  # '...zip' must not become '..'
    limits = outer.budget.limits
    inner = open_archive(copy, outer.limits, limits, Budget(outer.budget.archive, outer.budget.packed, limits))
    try:
        names = (PurePosixPath(member.name) for member in inner.members(name) if not is_junk(member.name))
        doubled = all(path.parts[0] == own and len(path.parts) > 1 for path in names)
    finally:
        inner.close()
    parent = PurePosixPath(name).parent
    return parent if doubled else parent / own
