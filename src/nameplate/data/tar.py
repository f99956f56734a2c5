"""Tar archives, also with gzip: their entries in order, in bounded memory. All damage is reported.

Python's `tarfile` is not used: it reads headers of any size, fails with internal errors on hostile ones, and takes a
damaged header for the end of the archive. This reader knows the formats in use (ustar, pax, GNU long names). After a
damaged header it searches for the next valid one, and it reads to the end, where the checksum of gzip is. Sources:
POSIX.1-2017, pax; the GNU tar manual 1.35, "Basic Tar Format".
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nameplate.data.members import (
    AGAIN,
    LINK,
    ArchiveBudget,
    Member,
    Names,
    NoArchiveError,
    kind_of,
    name_problem,
    other_archive,
    size_problem,
)
from nameplate.errors import PhotoError, Reason
from nameplate.images.formats import SNIFFED
from nameplate.types import Limits

BLOCK = 512
PIECE = 1 << 18
"""Number of bytes that are read or unpacked at a time."""
_ZERO, _ZEROS = bytes(BLOCK), bytes(PIECE)
_GZIP = b"\x1f\x8b"
_FOLDER, _LINKS, _SPARSE, _VOLUME = b"5", b"12346", b"S", b"M"
_SPARSE_KEYS = (b"GNU.sparse.", b"SCHILY.realsize")


@dataclass(frozen=True, slots=True)
class _Header:
    """The content of a header block."""

    name: bytes
    size: int
    type: bytes
    extended: bool
    """Whether blocks with the map of a sparse file follow (GNU's old format)."""


@dataclass(slots=True)
class _Extra:
    """What extension headers (pax, GNU long names) state about the next entry."""

    name: bytes | None = None
    size: int | None = None
    problem: str | None = None
    reason: Reason = "not a photo"


class Tar:
    """An open tar archive. Members come in order, and the bytes of a member can be read until the next one comes."""

    def __init__(self, file: BinaryIO, limits: Limits, budget: ArchiveBudget) -> None:
        self.limits, self.budget, self.names = limits, budget, Names()
        self._file = file
        self.packed = file.read(2) == _GZIP
        """Whether it is compressed, so that it can only be read from its beginning."""
        file.seek(0)
        self._stream = _Stream(file, budget, packed=self.packed)
        self._left = self._size = 0  # Bytes of the last member that were not read, and its size.
        self._number = 0
        self._last = ""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def contents(self) -> Iterator[str]:
        """Yield the SHA-256 of the file, which identifies its content. Must be called before `members`."""
        digest = hashlib.sha256(usedforsecurity=False)
        while piece := self._file.read(PIECE):
            digest.update(piece)
        self._file.seek(0)
        yield digest.hexdigest()

    def progress(self) -> tuple[int, int]:
        """Number of bytes of the file that were read, and of all bytes."""
        return self._file.tell(), self.budget.packed

    def members(self, name: str) -> Iterator[Member]:
        """Yield all entries but folders, and the damaged ranges between them. Errors call the archive `name`.

        Raises:
            DataError: the file is no tar, or reading it exceeds a limit.
        """
        stream, extra = self._stream, _Extra()
        lost: int | None = None  # Offset of the first byte that belongs to no entry.
        zeros: int | None = None  # Offset of the first zero block, which may be the end mark.
        guess = ""
        while True:
            began, at = time.perf_counter(), stream.at
            block = stream.take(BLOCK)
            if len(block) < BLOCK:
                break
            if block == _ZERO:
                # Two zero blocks end a tar, but joined archives go on after them (`cat a.tar b.tar`). So reading
                # continues, and zeros count as a gap only if an entry follows.
                zeros = at if zeros is None else zeros
                stream.skip_zeros()
                self.budget.time(began)
                continue
            header = _parse(block)
            self.budget.time(began)
            # Without a valid header the search goes on, block by block, until the next header whose checksum is
            # right.
            if header is None:
                if lost is None:
                    lost, guess = at if zeros is None else zeros, _guess(block)
                continue
            # An extension header before the gap may have described a lost entry, so it must not rename the next one.
            gap = lost if lost is not None else zeros
            if gap is not None:
                yield self._damage(gap, at, guess if lost is not None else None)
                lost = zeros = None
                extra = _Extra()
            if header.type in (b"x", b"X", b"L", b"K", b"g"):
                self._extend(extra, header)
                continue
            self._number += 1
            member = self._member(name, header, extra)
            extra = _Extra()
            if member is not None:
                yield member
            # The caller has read as much of the member as it wanted; the next header follows the padded rest.
            missing = stream.skip(self._left)
            if missing and not stream.broken:
                stream.broken = f"it ends in the middle of '{self._last}'"
        yield from self._end(block, lost, zeros, guess)

    def _end(self, block: bytes, lost: int | None, zeros: int | None, guess: str) -> Iterator[Member]:
        """Yield what is wrong with the end of the archive, if anything."""
        stream = self._stream
        if not self._number and (stream.broken or lost is not None or block.strip(b"\0") or not stream.at):
            raise NoArchiveError(self.budget.archive, self._no_tar())
        if stream.broken:
            altered = ", and what came before may be altered" if self.packed else ""
            what = f"{stream.broken}: what follows '{self._last}', if anything, is lost{altered}"
            yield _damaged(stream.at, stream.at, what)
        elif lost is not None:
            yield self._damage(lost, stream.at, guess)
        elif block.strip(b"\0"):
            yield self._damage(stream.at - len(block), stream.at, "")  # The last block is incomplete.
        elif zeros is None:
            yield _damaged(stream.at, stream.at, f"it has no end mark after '{self._last}': it may be cut short")

    def _no_tar(self) -> str:
        """Why an archive without any entry is no tar."""
        if self._stream.broken:
            return self._stream.broken
        if not self._stream.at:
            return "it is empty"
        self._file.seek(0)
        return other_archive(self._file.read(SNIFFED)) or "it is no tar"

    def _damage(self, start: int, end: int, guess: str | None) -> Member:
        where = f"bytes {start:,} to {end:,}, after '{self._last}'" if self._last else f"bytes {start:,} to {end:,}"
        if guess is None:
            return _damaged(start, end, f"{where}, are zeros: it has a hole, or is two archives joined")
        return _damaged(start, end, f"{where}, are no entry" + f" (perhaps '{guess}')" * bool(guess))

    def _extend(self, extra: _Extra, header: _Header) -> None:
        """Read an extension header into `extra`."""
        # The size is checked before the header is read, because a header can claim any size.
        self.budget.head(BLOCK + header.size)
        if header.size > self.budget.limits.header:
            self._stream.skip(_padded(header.size))
            extra.problem = f"its header has {header.size:,} bytes, the limit is {self.budget.limits.header:,}"
            return
        began = time.perf_counter()
        payload = self._stream.take(_padded(header.size))[: header.size]
        if len(payload) < header.size or header.type == b"g" or header.type == b"K":
            return
        if header.type == b"L":
            extra.name = payload.split(b"\0", 1)[0]
        elif not _read_pax(payload, extra):
            extra.problem, extra.reason = "its header cannot be read", "damaged"
        self.budget.time(began)

    def _member(self, archive: str, header: _Header, extra: _Extra) -> Member | None:
        """Make the member of a header; None for a folder. The stream is at the bytes of the entry."""
        raw = extra.name if extra.name is not None else header.name
        size = extra.size if extra.size is not None else header.size
        # Old tars mark folders only by a slash at the end of the name of an ordinary entry.
        folder = header.type == _FOLDER or (header.type in b"\x000" and raw.endswith((b"/", b"\\")))
        if header.type == _SPARSE and header.extended:
            # The map of a sparse file may continue in further blocks; byte 504 of each says whether another one
            # follows.
            while (more := self._stream.take(BLOCK)) and len(more) == BLOCK and more[504]:
                pass
        # Links and folders have no bytes, whatever size their header claims (POSIX pax, "typeflag").
        self._left = 0 if header.type in _LINKS + _FOLDER else _padded(size)
        self.budget.count(archive, 1, size if self._left else 0)
        if folder:
            return None
        shown, name, again = self.names.add(raw, self._number)
        self._last = name[:200]
        kind = kind_of(shown if again else name)
        problem, reason = name_problem(shown, windows=False) or extra.problem, extra.reason
        if problem is None and header.type in _LINKS:
            problem = LINK
        if problem is None and header.type in (_SPARSE, _VOLUME):
            problem = "it is a sparse file, or goes on in another archive"
        if problem is None and again:
            problem = AGAIN
        if problem is None:
            problem, reason = size_problem(kind, size, None, self.limits, self.budget.limits), "too large"
        self._size = size
        return Member(name, shown, kind, size, self._stream.at, problem, reason)

    def start(self, _member: Member) -> bytes:
        """Return the first bytes of the current member without consuming them."""
        return self._stream.peek(min(SNIFFED, self._size))

    def pieces(self, member: Member) -> Iterator[bytes]:
        """Yield the bytes of the current member.

        Raises:
            PhotoError: the archive ends or cannot be unpacked before the end of the member.
        """
        done = 0
        while done < member.size:
            piece = self._stream.take(min(PIECE, member.size - done))
            if not piece:
                broken = self._stream.broken
                raise PhotoError(
                    "damaged", broken or f"it claims {member.size:,} bytes and has {done:,}, where the archive ends"
                )
            done += len(piece)
            self._left -= len(piece)
            yield piece


class _Stream:
    """The bytes of a tar in order. No more are unpacked than are read and the budget allows."""

    def __init__(self, file: BinaryIO, budget: ArchiveBudget, *, packed: bool) -> None:
        self._file, self._budget = file, budget
        self._gzip = gzip.GzipFile(fileobj=file) if packed else None
        self._buffer, self._used = b"", 0
        self.at = 0
        """Offset of the next byte."""
        self.broken: str | None = None
        """Why reading stopped before the end; None where it did not."""

    def take(self, size: int) -> bytes:
        """Read the next bytes; fewer at the end."""
        found = self._buffer[self._used : self._used + size]
        self._used += len(found)
        if len(found) < size:
            parts = [found]
            while size > (have := sum(map(len, parts))) and self._refill():
                parts.append(self._buffer[: size - have])
                self._used = len(parts[-1])
            found = b"".join(parts)
        self.at += len(found)
        return found

    def peek(self, size: int) -> bytes:
        """Return the next bytes without consuming them; fewer at the end."""
        rest = self._buffer[self._used :]
        while len(rest) < size and self._refill():
            rest += self._buffer
            self._buffer, self._used = rest, 0
        self._buffer, self._used = rest, 0
        return rest[:size]

    def skip(self, size: int) -> int:
        """Skip bytes; return how many of them are missing."""
        here = min(size, len(self._buffer) - self._used)
        self._used += here
        self.at += here
        size -= here
        if size and self._gzip is None:
            # A plain file can be skipped without reading it. Seeking beyond the end would succeed silently, so the
            # bytes that are missing are computed from the size of the file.
            there = min(size, max(0, os.fstat(self._file.fileno()).st_size - self._file.tell()))
            self._file.seek(there, os.SEEK_CUR)
            self.at += there
            return size - there
        while size and self._refill():
            self._used = min(size, len(self._buffer))
            self.at += self._used
            size -= self._used
        return size

    def skip_zeros(self) -> None:
        """Skip whole blocks of zeros."""
        while self._used < len(self._buffer) or self._refill():
            rest = self._buffer[self._used :]
            count = len(rest) if rest == _ZEROS[: len(rest)] else len(rest) - len(rest.lstrip(b"\0"))
            if count < len(rest):
                # The next header begins at a multiple of 512 bytes, and may itself begin with zeros.
                count -= (self.at + count) % BLOCK
                self._used += max(count, 0)
                self.at += max(count, 0)
                return
            self._used += count
            self.at += count

    def _refill(self) -> bool:
        """Replace the used buffer by the next bytes; false at the end."""
        if self.broken:
            return False
        began = time.perf_counter()
        try:
            data = self._file.read(PIECE) if self._gzip is None else self._gzip.read1(PIECE)
        except (OSError, EOFError, zlib.error) as error:
            self.broken = f"it cannot be unpacked ({error})" if self._gzip else f"it cannot be read ({error})"
            data = b""
        self._buffer, self._used = data, 0
        if self._gzip is not None:
            # `read1` returns at most `PIECE` bytes, so a bomb exceeds the budget long before it fills the memory.
            self._budget.inflate(len(data))
        self._budget.time(began)
        return bool(data)


def _damaged(start: int, end: int, what: str) -> Member:
    """A member that stands for a range of bytes that is no entry."""
    name = f"damaged bytes {start}-{end}"
    return Member(name, name, "damage", end - start, start, f"in the archive: {what}", "damaged")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _parse(block: bytes) -> _Header | None:
    """Parse a header block; None where it is no header, or its checksum is wrong."""
    stored = _number(block[148:156])
    # The checksum is the sum of all bytes, with its own eight bytes taken as spaces.
    if stored is None or stored != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        return None
    size = _number(block[124:136])
    if size is None:
        return None
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return _Header(name, size, block[156:157], bool(block[482]))


def _number(field: bytes) -> int | None:
    """Parse a number in a header: octal digits, or GNU's binary form; None where it is neither."""
    # GNU tar writes numbers that do not fit into octal digits in binary, and marks them by the highest bit.
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    try:
        return int(digits, 8) if digits.isdigit() else None
    except ValueError:
        return None


def _guess(block: bytes) -> str:
    """The name in a block that looks like a damaged header; empty where it does not."""
    name = block[:100].split(b"\0", 1)[0]
    return name.decode("utf-8", "replace") if block[257:262] == b"ustar" and name.isascii() and name else ""


def _read_pax(payload: bytes, extra: _Extra) -> bool:
    """Read the records of a pax header (`LENGTH key=value` and a newline) into `extra`; false where it is damaged."""
    if not any(key in payload for key in (b" path=", b" size=", *_SPARSE_KEYS)):
        return True
    at = 0
    while at < len(payload) and payload[at]:
        space = payload.find(b" ", at, at + 20)
        length = payload[at:space]
        if space < 0 or not length.isdigit() or not space - at < int(length) <= len(payload) - at:
            return False
        key, equals, value = payload[space + 1 : at + int(length) - 1].partition(b"=")
        if not equals:
            return False
        if key == b"path":
            extra.name = value
        elif key == b"size":
            if not value.isdigit() or len(value) > 20:
                return False
            extra.size = int(value)
        elif key.startswith(_SPARSE_KEYS):
            extra.problem = "it is a sparse file, or goes on in another archive"
        at += int(length)
    return True
