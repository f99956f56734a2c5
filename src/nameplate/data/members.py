"""Entries of archives, whatever the format: their names, their kinds, what is refused, and one budget for reading."""

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
TEXT_SUFFIXES = frozenset({*TABLE_SUFFIXES, ".txt"})
"""Tables, and the names of their classes."""
JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
"""What operating systems leave in folders and archives; passed over without a word."""
LONGEST_NAME = 4096
"""Characters of an entry's name (Linux' PATH_MAX)."""
EASY_ENTRIES = 10_000
"""Entries that no archive is too small for."""
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
"""What a file that has an archive's name may be instead: (first bytes, what it is)."""

Kind = Literal["photo", "table", "archive", "other", "damage"]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may cost, with all archives inside it."""

    entries: int = 2_000_000
    """Files in one archive."""
    bytes: int = 64 * 1024**3
    """Unpacked size of all entries together."""
    table_bytes: int = TABLE_BYTES
    """Unpacked size of one table."""
    ratio: int = 200
    """Unpacked size against the packed one (photos hardly compress): of each photo and inner archive, and of all
    together, where `table_bytes` are free."""
    entry_bytes: int = 16
    """Bytes of the archive's file that an entry takes at least."""
    header: int = 1024**2
    """Bytes of one header of an entry: a long name, extended attributes."""
    header_bytes: int = 512 * 1024**2
    """Bytes of all such headers, or of a table of contents."""
    seconds: float = 60.0
    """Time to read it, besides one second a million bytes of its file; what is done with the photos does not count."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Member:
    """An entry of an archive, or a piece of it that is damaged."""

    name: str
    """What it is called by: NFC, `/` between folders; no two members of an archive share one."""
    shown: str
    """The name as the archive has it."""
    kind: Kind
    """As the name says; `damage`: bytes that are no entry."""
    size: int
    """Bytes, unpacked, as the archive claims."""
    place: int
    """Where it is: of a zip the number of the entry, of a tar the offset of its bytes."""
    problem: str | None = None
    """Why it is not read."""
    reason: Reason = "not a photo"
    """The kind of problem."""


class NoArchiveError(DataError):
    """A file that is no archive of the kind that its name says, or cannot be opened."""

    def __init__(self, archive: str, detail: str) -> None:
        super().__init__(f"Cannot read the archive '{archive}': {detail}.")
        self.detail = detail


class Budget:
    """Counts what an archive costs, and ends the reading with a sentence where it is more than it may be."""

    def __init__(self, archive: str, packed: int, limits: ArchiveLimits) -> None:
        self.archive, self.packed, self.limits = archive, packed, limits
        self.entries = self.bytes = self._inflated = self._headers = 0
        self._seconds = 0.0

    def count(self, name: str, entries: int, size: int) -> None:
        """Add entries and their claimed size."""
        self.entries += entries
        self.bytes += size
        limits = self.limits
        if self.entries > limits.entries:
            raise DataError(f"'{name}' holds {self.entries:,} entries, the limit is {limits.entries:,}.")
        if self.entries > EASY_ENTRIES + self.packed // limits.entry_bytes:
            raise DataError(
                f"'{self.archive}' holds {self.entries:,} entries or more in {self.packed:,} bytes: a bomb."
            )
        if self.bytes > limits.bytes:
            raise DataError(f"'{name}' unpacks to {self.bytes:,} bytes, the limit is {limits.bytes:,}.")

    def inflate(self, size: int) -> None:
        """Add bytes that were unpacked."""
        self._inflated += size
        if self._inflated > self.limits.bytes:
            raise DataError(f"'{self.archive}' unpacks to more than {self.limits.bytes:,} bytes, which is the limit.")
        if self._inflated > self.limits.table_bytes + self.limits.ratio * self.packed:
            raise DataError(f"'{self.archive}' unpacks to more than {self.limits.ratio} times its size: a bomb.")

    def head(self, size: int) -> None:
        """Add a header's bytes."""
        self._headers += size
        if self._headers > self.limits.header_bytes:
            raise DataError(
                f"'{self.archive}' has more than {self.limits.header_bytes:,} bytes of headers, which is the limit."
            )

    def time(self, since: float) -> None:
        """Add the time since a reading of `time.perf_counter`."""
        self._seconds += time.perf_counter() - since
        allowed = self.limits.seconds + self.packed / 1e6
        if self.limits.seconds <= 0 or self._seconds > allowed:
            raise DataError(f"'{self.archive}' is not read within {allowed:,.0f} s, which is the limit. Split it.")


class Names:
    """The names of an archive's entries, in their order."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        """What entries are called by, those of one name once."""
        self.assumed: Counter[str] = Counter()
        """Encodings that were taken for that of names which say none."""

    def add(self, raw: bytes | str, number: int) -> tuple[str, str, bool]:
        """The name as it is shown, the one that the entry is called by, and whether an earlier entry has it."""
        shown, encoding = decode_name(raw) if isinstance(raw, bytes) else (raw, "utf-8")
        if encoding != "utf-8":
            self.assumed[encoding] += 1
        name = plain_name(shown[: LONGEST_NAME + 1])
        again = name in self.seen
        if again:
            name = f"{name} (entry {number})"
        self.seen.add(name)
        return shown, name, again

    def note(self, archive: str) -> Iterable[Refused]:
        """A line on the encodings that were assumed; nothing where none was."""
        if self.assumed:
            counts = ", ".join(f"{count:,} as {encoding}" for encoding, count in sorted(self.assumed.items()))
            yield Refused(archive, f"names of entries that say no encoding were read: {counts}; nothing is left out")


def is_archive(name: str) -> bool:
    """Whether a file's name is an archive's that is read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_stem(name: str) -> str:
    """An archive's name without folder and suffix.

    >>> archive_stem("data/cars.tar.gz")
    'cars'
    """
    last = PurePosixPath(name).name
    suffix = next((end for end in (".tar.gz", *ARCHIVE_SUFFIXES) if last.lower().endswith(end)), "")
    return last[: len(last) - len(suffix)]


def is_junk(name: str) -> bool:
    """Whether an entry is one of those that operating systems leave."""
    return any(part.casefold() in JUNK for part in PurePosixPath(name).parts)


def plain_name(name: str) -> str:
    r"""An entry's name in the one form that it is found by: NFC, `/` between folders, no empty or `.` part.

    >>> plain_name("./photos\\\\BMW//1.jpg")
    'photos/BMW/1.jpg'
    """
    return str(PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))))


def raw_name(name: str) -> str:
    """A name that a user gives for a member, as text: bytes of it that are no UTF-8 are read as an archive's are."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return decode_name(os.fsencode(name))[0]


def decode_name(raw: bytes) -> tuple[str, str]:
    """A name whose encoding is not said, and the one that it was taken for: UTF-8 where it is valid (macOS, Linux),
    else cp866 where that gives Cyrillic words (Russian Windows), else cp437 (the zip format's own).

    >>> decode_name("Лада Нива".encode("cp866")), decode_name("Citroën".encode("cp437"))
    (('Лада Нива', 'cp866'), ('Citroën', 'cp437'))
    """
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    cyrillic = raw.decode("cp866")
    return (cyrillic, "cp866") if _is_cyrillic(cyrillic) else (raw.decode("cp437"), "cp437")


def _is_cyrillic(text: str) -> bool:
    """Whether all letters beyond ASCII are Cyrillic, in words of their own (cp437 gives `CitroЙn`), with no frames."""
    words = [word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    strange = re.sub(r"[\u0400-\u045f№\u00a0\x00-\x7f]", "", text)
    return not strange and any(len(word) > 1 for word in words) and not any(re.search("[A-Za-z]", w) for w in words)


def kind_of(name: str) -> Kind:
    """What an entry is, going by its name."""
    if is_photo_name(name):
        return "photo"
    if PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES:
        return "table"
    return "archive" if is_archive(name) else "other"


def name_problem(shown: str, *, windows: bool) -> str | None:
    """Why an entry may not have its name; `windows`: a colon anywhere, not only behind a drive's letter, counts."""
    if len(shown) > LONGEST_NAME:
        return f"its name has {len(shown):,} characters, the limit is {LONGEST_NAME:,}"
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
    """Why an entry is too large; `packed`: the bytes that it takes in the archive, None where it alone takes none."""
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
    """The name in a zip entry's Info-ZIP Unicode Path field (0x7075), where it is that of the entry's own name."""
    at = 0
    while at + 4 <= len(extra):
        field, size = int.from_bytes(extra[at : at + 2], "little"), int.from_bytes(extra[at + 2 : at + 4], "little")
        value = extra[at + 4 : at + 4 + size]
        if field == 0x7075 and value[:1] == b"\1" and value[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return value[5:].decode("utf-8", "replace")
        at += 4 + size
    return None


def other_archive(start: bytes) -> str | None:
    """What else than an archive that is read a file is, going by its first bytes."""
    return next((f"it is {what}" for magic, what in OTHER_ARCHIVES if start.startswith(magic)), None)
