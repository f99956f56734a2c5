"""Entries of archives of any format: their names and kinds, the reasons to refuse them, and the budget of reading."""

from __future__ import annotations

import os
import re
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from nameplate.data.tables import TABLE_BYTES, TABLE_SUFFIXES
from nameplate.errors import DataError, Reason
from nameplate.images.formats import is_photo_name
from nameplate.types import Limits

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
TEXT_SUFFIXES = frozenset({*TABLE_SUFFIXES, ".json", ".jsonl", ".txt"})
"""Suffixes of tables, of labels in JSON, and of files with the names of classes."""
JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
"""Files that operating systems leave in folders and archives. They are ignored without a message."""
LONGEST_NAME = 4096
"""Greatest number of characters of an entry's name (PATH_MAX of Linux)."""
EASY_ENTRIES = 10_000
"""Number of entries that an archive of any size may have."""
AGAIN = "another entry has the same name"
LINK = "it is a link or a special file"
NO_PHOTO = "it is neither a photo nor a table"
DEEP = "it is an archive in an archive: unpack it, and give what is in it"
OTHER_ARCHIVES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip"),
    (b"\x1f\x8b", "packed with gzip"),
    (b"BZh", "packed with bzip2"),
    (b"\xfd7zXZ\0", "packed with xz"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
)
"""What a file with the name of an archive may be instead: (first bytes, what it is)."""

Kind = Literal["photo", "table", "archive", "other", "damage"]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may cost, together with the archives inside it."""

    entries: int = 2_000_000
    """Greatest number of files in one archive."""
    bytes: int = 64 * 1024**3
    """Greatest unpacked size of all entries together."""
    table_bytes: int = TABLE_BYTES
    """Greatest unpacked size of one table."""
    ratio: int = 200
    """Greatest ratio of the unpacked to the packed size, since photos hardly compress. It holds for each photo and
    inner archive, and for all entries together, of which `table_bytes` are not counted."""
    entry_bytes: int = 16
    """Fewest bytes of the archive's file that an entry takes."""
    header: int = 1024**2
    """Greatest size of one header of an entry, in bytes, such as a long name or extended attributes."""
    header_bytes: int = 512 * 1024**2
    """Greatest size of all such headers together, or of the table of contents, in bytes."""
    seconds: float = 60.0
    """Time limit of reading, in addition to one second for each million bytes of the file. Time that is spent on the
    photos does not count."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was left out, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive, or a damaged range of bytes in it."""

    name: str
    """Unique name: Unicode NFC, with `/` between folders."""
    shown: str
    """The name as the archive has it."""
    kind: Kind
    """What the entry is by its name; `damage` stands for bytes that are no entry."""
    size: int
    """Unpacked size in bytes, as the archive states it."""
    place: int
    """Position: in a zip the number of the entry, in a tar the offset of its bytes."""
    problem: str | None = None
    """Why it is not read; None where it is."""
    reason: Reason = "not a photo"
    """The kind of problem."""


class NoArchiveError(DataError):
    """A file that cannot be opened, or is no archive of the kind that its name states."""

    def __init__(self, archive: str, detail: str) -> None:
        super().__init__(f"Cannot read the archive '{archive}': {detail}.")
        self.detail = detail


class ArchiveBudget:
    """Counts what reading an archive costs. Each method raises a `DataError` where a limit is exceeded."""

    def __init__(self, archive: str, packed: int, limits: ArchiveLimits) -> None:
        self.archive, self.packed, self.limits = archive, packed, limits
        self.entries = self.bytes = self._inflated = self._headers = 0
        self._seconds = 0.0

    def count(self, name: str, entries: int, size: int) -> None:
        """Count entries and their stated size in bytes."""
        self.entries += entries
        self.bytes += size
        limits = self.limits
        if self.entries > limits.entries:
            raise DataError(f"'{name}' holds {self.entries:,} entries, the limit is {limits.entries:,}.")
        # Each entry takes at least a header in the file. More entries than that overlap, or are invented by a damaged
        # table.
        if self.entries > EASY_ENTRIES + self.packed // limits.entry_bytes:
            raise DataError(
                f"'{self.archive}' holds {self.entries:,} entries or more in {self.packed:,} bytes: a bomb."
            )
        if self.bytes > limits.bytes:
            raise DataError(f"'{name}' unpacks to {self.bytes:,} bytes, the limit is {limits.bytes:,}.")

    def inflate(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self._inflated += size
        if self._inflated > self.limits.bytes:
            raise DataError(f"'{self.archive}' unpacks to more than {self.limits.bytes:,} bytes, which is the limit.")
        # Tables compress much better than photos, so what one table may take is not counted against the ratio.
        if self._inflated > self.limits.table_bytes + self.limits.ratio * self.packed:
            raise DataError(f"'{self.archive}' unpacks to more than {self.limits.ratio} times its size: a bomb.")

    def head(self, size: int) -> None:
        """Count the bytes of a header."""
        self._headers += size
        if self._headers > self.limits.header_bytes:
            raise DataError(
                f"'{self.archive}' has more than {self.limits.header_bytes:,} bytes of headers, which is the limit."
            )

    def time(self, since: float) -> None:
        """Count the time since `since`, a value of `time.perf_counter`."""
        self._seconds += time.perf_counter() - since
        # The limit grows with the file, so that large archives can be read on slow disks.
        allowed = self.limits.seconds + self.packed / 1e6
        if self.limits.seconds <= 0 or self._seconds > allowed:
            raise DataError(f"'{self.archive}' is not read within {allowed:,.0f} s, which is the limit. Split it.")


class Names:
    """The names of the entries of an archive, which makes each of them unique."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        """The unique names."""
        self.assumed: Counter[str] = Counter()
        """Encoding → number of names that do not state their encoding and were read in this one."""

    def add(self, raw: bytes | str, number: int) -> tuple[str, str, bool]:
        """Add a name; return it as text, its unique form, and whether an earlier entry has the same name."""
        shown, encoding = decode_name(raw) if isinstance(raw, bytes) else (raw, "utf-8")
        if encoding != "utf-8":
            self.assumed[encoding] += 1
        # One character more than the limit is kept, so that `name_problem` still sees that the name is too long.
        name = plain_name(shown[: LONGEST_NAME + 1])
        again = name in self.seen
        if again:
            name = f"{name} (entry {number})"
        self.seen.add(name)
        return shown, name, again

    def note(self, archive: str) -> Iterable[Refused]:
        """Yield a note on the encodings that were assumed, if there were any."""
        if self.assumed:
            counts = ", ".join(f"{count:,} as {encoding}" for encoding, count in sorted(self.assumed.items()))
            yield Refused(archive, f"names of entries that say no encoding were read: {counts}; nothing is left out")


def is_archive(name: str) -> bool:
    """Whether a name has the suffix of an archive that is read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(name: str) -> str:
    """The name of an archive without folder and suffix.

    >>> archive_stem("data/cars.tar.gz")
    'cars'
    """
    last = PurePosixPath(name).name
    suffix = next((end for end in (".tar.gz", *ARCHIVE_SUFFIXES) if last.lower().endswith(end)), "")
    return last[: len(last) - len(suffix)]


def is_junk(name: str) -> bool:
    """Whether a path contains a name in `JUNK`."""
    return any(part.casefold() in JUNK for part in PurePosixPath(name).parts)


def plain_name(name: str) -> str:
    r"""Normalise the name of an entry: Unicode NFC, `/` between folders, no empty or `.` part.

    >>> plain_name("./photos\\\\BMW//1.jpg")
    'photos/BMW/1.jpg'
    """
    return str(PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))))


def raw_name(name: str) -> str:
    """A member's name that a user gives, as text. Where its bytes are not UTF-8 they are decoded as those of an
    archive.
    """
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return decode_name(os.fsencode(name))[0]


def decode_name(raw: bytes) -> tuple[str, str]:
    """Decode a name whose encoding is not stated; return it with the encoding that was assumed.

    That is UTF-8 where the bytes are valid (macOS, Linux), else cp866 where the result is Cyrillic words (Russian
    Windows), else cp437 (the default of the zip format).

    >>> decode_name("Лада Нива".encode("cp866")), decode_name("Citroën".encode("cp437"))
    (('Лада Нива', 'cp866'), ('Citroën', 'cp437'))
    """
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    # cp866 and cp437 both decode any bytes without an error, so only the resulting text can decide between them.
    cyrillic = raw.decode("cp866")
    return (cyrillic, "cp866") if _is_cyrillic(cyrillic) else (raw.decode("cp437"), "cp437")


def _is_cyrillic(text: str) -> bool:
    """Whether all letters beyond ASCII are Cyrillic and form words of their own (a name in cp437 gives `CitroЙn`), and
    there are no box-drawing characters.
    """
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    strange = re.sub(r"[\u0400-\u045f№\u00a0\x00-\x7f]", "", text)
    return not strange and any(len(word) > 1 for word in words) and not any(re.search("[A-Za-z]", w) for w in words)


def kind_of(name: str) -> Kind:
    """What an entry is by its name."""
    if is_photo_name(name):
        return "photo"
    if PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES:
        return "table"
    return "archive" if is_archive(name) else "other"


def name_problem(shown: str, *, windows: bool) -> str | None:
    """Why a name is refused; None if it is accepted. With `windows` any colon is refused, else only a drive's."""
    if len(shown) > LONGEST_NAME:
        return f"its name has {len(shown):,} characters, the limit is {LONGEST_NAME:,}"
    # Backslashes count as separators on every system, because an archive made here may be unpacked on Windows.
    path = PurePosixPath(shown.replace("\\", "/"))
    drive = ":" in shown if windows else re.match("[A-Za-z]:", shown)
    if path.is_absolute() or ".." in path.parts or drive:
        return "its name would leave the folder"
    if any(ord(letter) < 32 for letter in shown):
        return "its name holds control characters"
    return None


def size_problem(
    kind: Kind, size: int, packed: int | None, limits: Limits, archive_limits: ArchiveLimits
) -> str | None:
    """Why an entry is refused for its size; None where it is accepted.

    `packed` is its size inside the archive in bytes, None where entries are not compressed one by one.
    """
    if kind == "table":
        allowed = archive_limits.table_bytes
    else:
        allowed = archive_limits.bytes if kind == "archive" else limits.bytes
    if size > allowed:
        return f"it unpacks to {size:,} bytes, the limit is {allowed:,}"
    if kind != "table" and packed is not None and size > archive_limits.ratio * max(packed, 1):
        return f"it unpacks to {size // max(packed, 1):,} times its size: a bomb"
    return None


def unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in the Info-ZIP Unicode Path field (0x7075) of a zip entry; None unless its CRC-32 matches `raw`."""
    at = 0
    while at + 4 <= len(extra):
        field, size = int.from_bytes(extra[at : at + 2], "little"), int.from_bytes(extra[at + 2 : at + 4], "little")
        value = extra[at + 4 : at + 4 + size]
        if field == 0x7075 and value[:1] == b"\1" and value[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return value[5:].decode("utf-8", "replace")
        at += 4 + size
    return None


def other_archive(start: bytes) -> str | None:
    """What a file that is no archive that is read is instead, by its first bytes; None where that is unknown."""
    return next((f"it is {what}" for magic, what in OTHER_ARCHIVES if start.startswith(magic)), None)
