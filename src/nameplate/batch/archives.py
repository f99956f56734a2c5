"""Archives of photos, read in place: `shard.zip::photos/a.jpg`, also in .tar, .tar.gz and .tgz.

Nothing is unpacked to disk. A zip's entry is inflated only up to its size limit, a tar's entry is read in place, and a
compressed tar is read as a stream, in order. Entries that are refused, and damage between entries, are listed too, so
that they get a row; reading them raises the reason.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial

from nameplate.data.archive import is_archive, open_archive, sniffed
from nameplate.data.listing import is_hidden
from nameplate.data.members import (
    DEEP,
    NO_PHOTO,
    ArchiveLimits,
    Member,
    NoArchiveError,
    Refused,
    is_junk,
    plain_name,
    raw_name,
)
from nameplate.data.tar import Tar
from nameplate.data.zip import Zip
from nameplate.errors import DataError, PhotoError
from nameplate.storage import open_regular
from nameplate.types import Limits

STREAMED = (".tar.gz", ".tgz")
"""Suffixes of archives that can only be read from their beginning."""
OPEN = 4
"""The most archives that are kept open, each with its table of contents."""
_MEMBER = re.compile(r"(?P<shard>.*?\.(?:zip|tar|tar\.gz|tgz))::(?P<name>.+)", re.IGNORECASE | re.DOTALL)
_LIMITS = ArchiveLimits()
_opening = threading.Lock()


def is_shard(source: str) -> bool:
    """Whether a name has an archive's suffix."""
    return is_archive(source)


def is_member(uri: str) -> bool:
    """Whether a URI names a member of an archive."""
    return _MEMBER.fullmatch(uri) is not None


def is_streamed(uri: str) -> bool:
    """Whether a URI names a member of an archive that can only be read in order."""
    return split(uri)[0].lower().endswith(STREAMED)


def split(uri: str) -> tuple[str, str]:
    """Split a URI into the archive's path and the member's name."""
    found = _MEMBER.fullmatch(uri)
    if found is None:
        raise ValueError(f"{uri!r} names no member of an archive")
    return found["shard"], found["name"]


def is_nested(source: str) -> bool:
    """Whether a zip holds archives or a competition's table; `data.archive` must unpack such a zip.

    Raises:
        DataError: it cannot be read.
    """
    if not source.lower().endswith(".zip"):
        return False
    archive = open_archive(source, Limits(), _LIMITS)  # only names are read here, so the limits on photos do not matter
    try:
        names = (member.name.lower() for member in archive.members(source) if not is_junk(member.name))
        return any(is_archive(name) or name.rpartition("/")[2] == "train.csv" for name in names)
    finally:
        archive.close()


def list_members(source: str) -> Iterator[str | Refused]:
    """Yield the URIs of an archive's photos, in its order, and a `Refused` for each entry that is no photo.

    Photos that are refused or damaged are listed too; reading them raises the reason. The last entry may be a note on
    how names were decoded.

    Raises:
        DataError: the archive cannot be read, or exceeds a limit on archives.
    """
    archive = _open(source, Limits())
    try:
        for member in archive.members(source):
            if is_junk(member.name) or is_hidden(member.name.rpartition("/")[2]):
                continue
            uri = f"{source}::{member.name}"
            reason = _left_out(archive, member)
            yield uri if reason is None else Refused(uri, reason)
        yield from archive.names.note(source)
    finally:
        archive.close()


def _open(source: str, limits: Limits) -> Zip | Tar:
    archive = open_archive(source, limits, _LIMITS)
    if isinstance(archive, Tar) and archive.packed and not source.lower().endswith(STREAMED):
        archive.close()
        raise NoArchiveError(source, "it is packed with gzip, so its name must end in .tar.gz")
    return archive


def _left_out(archive: Zip | Tar, member: Member) -> str | None:
    """Why an entry gets no row; None if it gets one."""
    if member.kind in ("photo", "damage"):
        return None
    try:
        member = sniffed(archive, member)
    except PhotoError as error:
        return str(error)
    if member.kind == "photo":
        return None
    return member.problem or (DEEP if member.kind == "archive" else NO_PHOTO)


def read_member(uri: str, limits: Limits) -> bytes:
    """Read a member's bytes; any thread may call this.

    Raises:
        PhotoError: the member is missing, refused, damaged or too large.
    """
    shard, name = split(uri)
    try:
        if not is_streamed(uri):
            return _index(shard, limits).read(name)
        with closing(MemberStream(limits)) as stream:
            return stream.read(uri)
    except DataError as error:
        raise PhotoError("missing", str(error)) from None
    except OSError as error:
        raise PhotoError("missing", f"cannot read '{shard}': {error.strerror or error}") from None


def _key(name: str) -> str:
    """Normalise a member's name, so that different spellings by users find it."""
    return plain_name(raw_name(name))


def _allowed(member: Member) -> Member:
    """Return the member if it may be read.

    Raises:
        PhotoError: it is refused, damaged or empty.
    """
    if member.problem is not None:
        raise PhotoError(member.reason, member.problem)
    if member.size == 0:
        raise PhotoError("empty", "the file has no bytes")
    return member


def _absent(name: str, shard: str, damage: Iterable[Member]) -> PhotoError:
    """Make the error for a member that is missing: it may be among what is damaged."""
    if found := next(iter(damage), None):
        return PhotoError("damaged", f"there is no '{name}' left in '{shard}', {found.problem}")
    return PhotoError("missing", f"there is no '{name}' in '{shard}'")


def _check_size(member: Member, limits: Limits) -> None:
    if member.size > limits.bytes:
        raise PhotoError("too large", f"{member.size:,} bytes, the limit is {limits.bytes:,}")


class _Index:
    """An open archive with the place of each member."""

    def __init__(self, shard: str, limits: Limits) -> None:
        self._shard, self._limits = shard, limits
        self._archive = _open(shard, limits)
        self._members = {member.name: member for member in self._archive.members(shard)}
        self._file = None if isinstance(self._archive, Zip) else open_regular(shard)

    def read(self, name: str) -> bytes:
        """Read a member's bytes; any thread may call this."""
        member = self._members.get(name) or self._members.get(_key(name))
        if member is None:
            raise _absent(name, self._shard, (m for m in self._members.values() if m.kind == "damage"))
        _allowed(member)
        _check_size(member, self._limits)
        if isinstance(self._archive, Zip):
            return b"".join(self._archive.pieces(member))
        # pread has no file position, so threads can share the file without a lock.
        data = os.pread(self._file.fileno(), member.size, member.place) if self._file else b""
        if len(data) != member.size:  # the file was cut short after it was opened
            raise PhotoError("damaged", f"it claims {member.size:,} bytes and has {len(data):,}")
        return data

    def __del__(self) -> None:
        for file in (getattr(self, "_archive", None), getattr(self, "_file", None)):
            if file is not None:
                file.close()


@lru_cache(OPEN)
def _opened(shard: str, _changed: tuple[int, int], limits: Limits) -> _Index:
    return _Index(shard, limits)


def _index(shard: str, limits: Limits) -> _Index:
    with _opening:  # otherwise several threads would open the same archive at once
        status = os.stat(shard)  # noqa: PTH116 - called for each photo
        # Time and size are part of the key, so a file that is replaced is opened again.
        # `lru_cache` closes nothing itself: an index that falls out of it is closed by its `__del__`.
        return _opened(os.path.abspath(shard), (status.st_mtime_ns, status.st_size), limits)  # noqa: PTH100


class MemberStream:
    """Reads members of compressed tars, fast in the archive's order; to go back it starts from the beginning again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shard = ""
        self._archive: Zip | Tar | None = None
        self._members: Iterator[Member] = iter(())
        self._damage: list[Member] = []
        self._ended = False

    def source(self, uri: str) -> Callable[[], bytes]:
        """Return a function that gives a member's bytes or raises its PhotoError.

        The member is read now: the stream must have passed it before the next one is read.
        """
        try:
            return partial(bytes, self.read(uri))
        except PhotoError as error:
            return partial(_refuse, error)

    def read(self, uri: str) -> bytes:
        """Read a member's bytes.

        Raises:
            PhotoError: the member is missing, refused, damaged or too large.
        """
        shard, name = split(uri)
        try:
            # A member further on is found by reading on; only for an earlier one the archive is read again.
            ahead = self._archive is not None and shard == self._shard
            found = self._find(name) if ahead else None
            if found is None and not (shard == self._shard and self._ended and self._is_absent(name)):
                self._reopen(shard)
                found = self._find(name)
        except DataError as error:
            self.close()
            raise PhotoError("missing", str(error)) from None
        if found is None:
            raise _absent(name, shard, self._damage)
        return found

    def close(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _reopen(self, shard: str) -> None:
        self.close()
        self._damage, self._ended = [], False
        self._shard, self._archive = shard, open_archive(shard, self._limits, _LIMITS)
        self._members = self._archive.members(shard)

    def _is_absent(self, name: str) -> bool:
        """Whether the archive, which was read to its end, has no member of that name: then it is not read again."""
        archive = self._archive
        return archive is not None and not {name, _key(name)} & ({m.name for m in self._damage} | archive.names.seen)

    def _find(self, name: str) -> bytes | None:
        """Read the stream up to a member and return its bytes; None if no later member has that name."""
        key = _key(name)
        for member in self._members:
            if member.kind == "damage":  # kept, to say later what may have become of a missing member
                self._damage.append(member)
            if member.name in (name, key) and self._archive is not None:
                _allowed(member)
                _check_size(member, self._limits)
                return b"".join(self._archive.pieces(member))
        self._ended = True
        return None


def _refuse(error: PhotoError) -> bytes:
    raise error
