"""Unpacking archives (zip, tar, tar.gz) into the cache, once, with a check of every entry.

An entry is refused, with its name and the reason, where it would be written outside the folder, is a link, is
encrypted, is no photo, table or inner archive, has the name of an earlier entry, or unpacks to more than the limits
allow. All other entries are unpacked. Of a damaged archive the intact entries are unpacked, and the damage is reported.
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
    ArchiveBudget,
    ArchiveLimits,
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
from nameplate.images.formats import image_format
from nameplate.storage import cache_folder, open_regular, whole_folder
from nameplate.types import Limits

__all__ = [
    "JUNK",
    "REPORT",
    "ArchiveLimits",
    "Refused",
    "UnpackProgress",
    "archive_stem",
    "first_reasons",
    "is_archive",
    "open_archive",
    "sniffed",
    "speaking_of",
    "unpack",
]

UnpackProgress = Callable[[int, int], None]
Archive = Zip | Tar

REPORT = "refused.json"
"""Name of the file, in the folder of an unpacked archive, that lists the refused entries."""
FORM = 4
"""Version of an unpacked folder. It is increased when the same archive would be unpacked in another way."""
SAID = 3
"""Number of reasons that an error states, with their counts."""


def unpack(
    archive: Path,
    limits: Limits,
    archive_limits: ArchiveLimits | None = None,
    progress: UnpackProgress | None = None,
) -> tuple[Path, tuple[Refused, ...]]:
    """Unpack an archive into the cache, unless an earlier call did; return its folder and the refused entries.

    Archives inside it (train.zip, test.zip) become folders of the same name, one level deep. Where their only top
    folder has that name already, it is not repeated.

    Raises:
        DataError: the file is no archive or not regular, or unpacking exceeds a limit.
    """
    archive_limits = archive_limits or ArchiveLimits()
    outer = open_archive(archive, limits, archive_limits)
    try:
        folder = cache_folder() / "archives" / _digest(outer, limits, archive_limits)
        report = folder / REPORT
        # A zip with damaged entries has the same digest as its intact copy, so that it is always unpacked again.
        if not report.is_file() or _read_report(report).damaged:
            with whole_folder(folder, overwrite=True) as temporary:
                left_out = list(_unpack_into(outer, temporary, "", progress))
                (temporary / REPORT).write_bytes(msgspec.json.encode(_report(left_out)))
    finally:
        outer.close()
    return folder, _read_report(report).refused


def open_archive(
    path: str | os.PathLike[str], limits: Limits, archive_limits: ArchiveLimits, budget: ArchiveBudget | None = None
) -> Archive:
    """Open an archive to read its members.

    Args:
        path: the archive.
        limits: what a photo in it may cost.
        archive_limits: what the archive may cost.
        budget: the budget of the archive that contains this one; None makes a new one.

    Raises:
        DataError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        file = open_regular(name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NoArchiveError(name, str(reason)) from None
    budget = budget or ArchiveBudget(name, os.fstat(file.fileno()).st_size, archive_limits)
    return Zip(file, limits, budget) if name.lower().endswith(".zip") else Tar(file, limits, budget)


def sniffed(archive: Archive, member: Member) -> Member:
    """Recognise a photo by its first bytes where the name of the member does not tell; hidden members stay as they are.

    Raises:
        PhotoError: the first bytes cannot be read.
    """
    if member.kind != "other" or member.problem is not None or PurePosixPath(member.name).name.startswith("."):
        return member
    if image_format(archive.start(member)) is None:
        return member
    problem = size_problem("photo", member.size, None, archive.limits, archive.budget.limits)
    return replace(member, kind="photo", problem=problem, reason="too large" if problem else member.reason)


@contextmanager
def speaking_of(archive: Path, folder: Path, refused: Iterable[Refused]) -> Iterator[None]:
    """Make a `DataError` about an unpacked folder name the archive instead, and add what was left out of it."""
    try:
        yield
    except DataError as error:
        said = str(error).replace(str(folder), str(archive))
        left_out = [(name.replace(str(folder), str(archive)), reason) for name, reason in error.left_out]
        left_out += [(entry.name, entry.reason) for entry in refused]
        raise DataError(said + first_reasons(refused), left_out) from None


def first_reasons(refused: Iterable[Refused]) -> str:
    """The most frequent reasons why entries were left out, with counts, as sentences to append to a message."""
    counts = Counter(entry.reason for entry in refused).most_common(SAID)
    return "".join(f" Left out: {count:,}, as {reason}." for reason, count in counts)


@dataclass(frozen=True, slots=True)
class _Report:
    """The refused entries of an archive, stored beside those that were unpacked."""

    refused: tuple[Refused, ...]
    damaged: bool
    """Whether an entry is damaged."""


ReasonLeftOut = Failure | str
"""Why an entry is left out: a `Failure` where it cannot be read, or else a sentence."""


def _report(left_out: Iterable[tuple[str, ReasonLeftOut]]) -> _Report:
    entries = list(left_out)
    damaged = any(isinstance(why, Failure) and why.reason == "damaged" for _, why in entries)
    return _Report(tuple(Refused(name, str(why)) for name, why in entries), damaged)


def _read_report(report: Path) -> _Report:
    return msgspec.json.decode(report.read_bytes(), type=_Report)


def _digest(archive: Archive, *limits: object) -> str:
    """Digest of the content of an archive and of the limits, which names its folder in the cache."""
    digest = hashlib.sha256(repr((FORM, *limits)).encode(), usedforsecurity=False)
    for row in archive.contents():
        digest.update(row.encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def _unpack_into(
    archive: Archive, folder: Path, prefix: str, progress: UnpackProgress | None
) -> Iterator[tuple[str, ReasonLeftOut]]:
    """Write all accepted entries; yield the names of the others with the reasons."""
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


def _unpack_member(archive: Archive, member: Member, folder: Path) -> ReasonLeftOut | None:
    """Write one photo or table; return why it was refused, None where it was written."""
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
            # Entries that are no photos are refused now, with their reason, and not one by one in a later command.
            read_header(data, archive.limits)
            pieces = (data,)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, pieces)
    except PhotoError as error:
        return error.failure
    # File systems that ignore case take `A.jpg` and `a.jpg` for one file.
    except FileExistsError:
        return "another entry has the same name"
    except (OSError, ValueError) as error:
        return why_left_out(error, target.parent)
    return None


def _pieces(archive: Archive, member: Member) -> Iterator[bytes]:
    """Yield the bytes of a member and count them in the budget; `Tar` counts its own."""
    pieces, began = archive.pieces(member), time.perf_counter()
    for piece in pieces:
        if isinstance(archive, Zip):
            archive.budget.inflate(len(piece))
            archive.budget.time(began)
        yield piece
        began = time.perf_counter()


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    # `x` refuses an existing file and does not follow a symbolic link at the target.
    with target.open("xb") as file:
        try:
            for piece in pieces:
                file.write(piece)
        except BaseException:
            target.unlink()
            raise


def why_left_out(error: Exception, folder: Path) -> ReasonLeftOut:
    """Why an entry is left out after an error. Errors of the disk end the unpacking, since the user has to solve them.

    Raises:
        DataError: the disk is full or cannot be written to.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):
        return f"it cannot have this name here: {error.strerror}"
    if isinstance(error, OSError) and error.errno is not None:
        raise DataError(
            f"Cannot unpack into '{folder}': {error.strerror}. Free some space and run the command again."
        ) from None
    return Failure("damaged", str(error) or type(error).__name__)


def _unpack_inner(
    archive: Archive, member: Member, folder: Path, progress: UnpackProgress | None
) -> Iterator[tuple[str, ReasonLeftOut]]:
    suffix = ".zip" if member.name.lower().endswith(".zip") else ".tar"
    with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix) as copy:
        try:
            for piece in _pieces(archive, member):
                copy.write(piece)
            copy.flush()
            target = folder / _inner_folder(copy.name, member.name, archive)
            # The inner archive shares the budget of the outer one, so nesting cannot multiply what is allowed.
            inner = open_archive(copy.name, archive.limits, archive.budget.limits, archive.budget)
        except (PhotoError, NoArchiveError) as error:
            yield member.shown, error.failure if isinstance(error, PhotoError) else Failure("damaged", error.detail)
            return
        except OSError as error:
            yield member.shown, why_left_out(error, folder)
            return
        try:
            yield from _unpack_into(inner, target, f"{member.shown}/", progress)
        finally:
            inner.close()


def _inner_folder(copy: str, name: str, outer: Archive) -> PurePosixPath:
    """The folder for an inner archive: one with its name, unless its only top folder has that name already."""
    own = archive_stem(name).strip(".") or "archive"  # '...zip' must not become '..'.
    limits = outer.budget.limits
    # A budget of its own: reading the names first must not count twice.
    inner = open_archive(copy, outer.limits, limits, ArchiveBudget(outer.budget.archive, outer.budget.packed, limits))
    try:
        names = (PurePosixPath(member.name) for member in inner.members(name) if not is_junk(member.name))
        doubled = all(path.parts[0] == own and len(path.parts) > 1 for path in names)
    finally:
        inner.close()
    parent = PurePosixPath(name).parent
    return parent if doubled else parent / own
