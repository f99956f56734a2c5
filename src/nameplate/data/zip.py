"""Zip archives: their entries in order, each checked before it is opened, and their bytes in bounded memory."""

from __future__ import annotations

import io
import stat
import time
import zipfile
from collections.abc import Iterator, Sequence
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
    unicode_path,
)
from nameplate.errors import DataError, PhotoError, Reason
from nameplate.images.formats import SNIFFED
from nameplate.types import Limits

PIECE = 1 << 20
"""Number of bytes that are unpacked at a time."""
_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = 30
_TAIL = 1 << 17
"""More bytes than the comment of a zip and the record before it have, which zipfile reads to the end of the file."""
_UTF_8, _ENCRYPTED = 0x800, 0x1
METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "Zstandard", 95: "xz", 97: "WavPack", 98: "PPMd", 99: "AES"}
"""Compression methods that are not read (PKWARE's APPNOTE 6.3.10, 4.4.5). Most cannot be unpacked in bounded memory."""


class Zip:
    """An open zip archive. Its members may be read in any order and from any thread."""

    def __init__(self, file: BinaryIO, limits: Limits, budget: ArchiveBudget) -> None:
        self.limits, self.budget, self.names = limits, budget, Names()
        began = time.perf_counter()
        self._file = file
        try:
            self._zip = zipfile.ZipFile(_Guarded(file, budget))
        except DataError:
            file.close()
            raise
        except Exception as error:  # zipfile raises errors of many classes on hostile bytes.
            file.seek(0)
            start = file.read(SNIFFED)
            file.close()
            other = other_archive(start) if not start.startswith(b"PK") else None
            raise NoArchiveError(budget.archive, other or str(error)) from None
        budget.time(began)
        self._entries = self._zip.infolist()
        self._done = 0

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def contents(self) -> Iterator[str]:
        """Yield a row for each entry with everything that identifies the content of the archive."""
        for entry in self._entries:
            kept = (entry.CRC, entry.file_size, entry.compress_size, entry.compress_type, entry.flag_bits)
            yield f"{_raw_name(entry)!r}\0{kept}\0{entry.external_attr}\0{entry.header_offset}\n"

    def progress(self) -> tuple[int, int]:
        """Number of entries that were read, and of all entries."""
        return self._done, len(self._entries)

    def members(self, name: str) -> Iterator[Member]:
        """Yield all entries but folders, in their order. Errors call the archive `name`."""
        self.budget.count(name, len(self._entries), sum(entry.file_size for entry in self._entries))
        self.names = Names()
        named = [self.names.add(_raw_name(entry), number) for number, entry in enumerate(self._entries, start=1)]
        reaching = _reaching(self._entries, [again for _, _, again in named], self._zip.start_dir)
        for number, (entry, (shown, plain, again)) in enumerate(zip(self._entries, named, strict=True)):
            self._done = number
            if shown.endswith(("/", "\\")):
                continue
            kind = kind_of(plain) if not again else kind_of(shown)
            problem = _problem(entry, shown)
            reason: Reason = "not a photo"
            if problem is None and again:
                problem = AGAIN
            if problem is None and number in reaching:
                problem, reason = "it reaches into the next entry", "damaged"
            if problem is None:
                problem = size_problem(kind, entry.file_size, entry.compress_size, self.limits, self.budget.limits)
                reason = "too large"
            yield Member(plain, shown, kind, entry.file_size, number, problem, reason)

    def start(self, member: Member) -> bytes:
        """Read the first bytes of a member.

        Raises:
            PhotoError: they cannot be unpacked.
        """
        return next(self.pieces(member, SNIFFED), b"")

    def pieces(self, member: Member, piece: int = PIECE) -> Iterator[bytes]:
        """Yield the bytes of a member. No more are unpacked than the size that the archive states.

        Raises:
            PhotoError: they are damaged.
        """
        entry, done = self._entries[member.place], 0
        try:
            with self._zip.open(entry) as file:
                while data := file.read(min(piece, entry.file_size + 1 - done)):
                    done += len(data)
                    yield data
        except Exception as error:  # zipfile and zlib raise errors of many classes on hostile bytes.
            raise PhotoError("damaged", str(error) or type(error).__name__) from None
        if done != entry.file_size:
            raise PhotoError("damaged", f"it claims {entry.file_size:,} bytes and has {done:,}")


class _Guarded(io.RawIOBase):
    """The file of a zip. One read returns no more bytes than the limit on a table of contents."""

    def __init__(self, file: BinaryIO, budget: ArchiveBudget) -> None:
        self._file, self._budget = file, budget

    def read(self, size: int = -1) -> bytes:
        limits = self._budget.limits
        size = _TAIL if size < 0 else size
        if size > limits.header_bytes:
            raise DataError(
                f"The table of contents of '{self._budget.archive}' claims {size:,} bytes, "
                f"the limit is {limits.header_bytes:,}."
            )
        data = self._file.read(size)
        if data.startswith(_ENTRY) and data.count(_ENTRY) > limits.entries:  # Before zipfile makes objects.
            raise DataError(
                f"'{self._budget.archive}' holds {data.count(_ENTRY):,} entries, the limit is {limits.entries:,}."
            )
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def _problem(entry: zipfile.ZipInfo, shown: str) -> str | None:
    """Why an entry is refused before it is opened, apart from its size; None where it is accepted."""
    if problem := name_problem(shown, windows=True):
        return problem
    # The upper 16 bits are the Unix mode; 0 means that the archive was made on a system without one.
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return LINK
    if entry.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"it is packed with {method}, another method than deflate"
    return None


def _raw_name(entry: zipfile.ZipInfo) -> bytes | str:
    """The name of an entry: text where its encoding is stated, or else its bytes."""
    if entry.flag_bits & _UTF_8:
        return entry.orig_filename
    # `zipfile` decodes names without the UTF-8 flag as cp437, which maps every byte, so encoding restores the bytes.
    raw = entry.orig_filename.encode("cp437")
    return unicode_path(entry.extra, raw) or raw


def _reaching(entries: Sequence[zipfile.ZipInfo], again: Sequence[bool], end: int) -> set[int]:
    """Numbers of the entries whose bytes overlap the next entry or the table of contents.

    Overlapping entries let a small archive unpack to a huge size (D. Fifield, "A better zip bomb", 2019).
    """
    # From the last entry to the first, `end` is where the next entry, or the table of contents, begins. Duplicates are
    # refused anyway.
    order = sorted((entry.header_offset, number) for number, entry in enumerate(entries) if not again[number])
    reaching: set[int] = set()
    for place in range(len(order) - 1, -1, -1):
        start, number = order[place]
        entry = entries[number]
        if start + _LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size > end:
            reaching.add(number)
        end = start
    return reaching
