"""References: text that names one photo's bytes, and how they are listed from what a user gives.

a path                       photos/a.jpg
a member of an archive       shard.zip::photos/a.jpg, also of .tar, .tar.gz, .tgz
an object in a store         s3://bucket/photos/a.jpg, gs://…
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from nameplate.batch import archives
from nameplate.data import uris
from nameplate.data.archive import Refused
from nameplate.data.dataset import LIST_SUFFIXES, no_photos, photos_root, walk_unpacked
from nameplate.data.listing import LeftOut, entries, judged, list_rows, walk
from nameplate.data.tables import photo_path
from nameplate.errors import DataError, UsageError
from nameplate.images.decode import read_bytes
from nameplate.types import Limits

STDIN = "-"
"""As a source: references on standard input, one a line."""
LINE_BYTES = 65_536
"""Of one such line at most; no path and no address is as long."""
UNFOLLOWED = "a link to a folder: ** follows none"
_MAGIC = re.compile(r"[*?\[]")


Listed = Iterator[str | Refused]
"""References, and what is left out among them."""


def list_entries(sources: Iterable[str], passing_over: Collection[str] = ()) -> Listed:
    """The photos behind what a user gives, and what is left out among them, lazily, in an order that is the same every
    time.

    A source is a photo, a folder (searched whole), a pattern with `*`, `?`, `[…]` and once `**`, a table (CSV, Parquet,
    JSON Lines) with a column of references, a zip or tar, an object or prefix in a store, or `-`. Sources come in their
    order, tables and archives in theirs, folders in byte order. No more is held than one folder's listing a level.

    Args:
        sources: as the user wrote them.
        passing_over: folders that are not searched, without a word: those that a command writes itself.

    Raises:
        DataError: a table, archive or store that cannot be read, or a source without photos; `left_out` of it says
            what was there instead.
        UsageError: a pattern or an address that cannot be one.
    """
    for source in sources:
        empty, left_out = True, LeftOut()
        for entry in _of_source(source, passing_over):
            if isinstance(entry, Refused):
                left_out.add(entry)
            else:
                empty = False
            yield entry
        if empty:
            raise no_photos(source, left_out.first)


def read_uri(reference: str, limits: Limits) -> bytes:
    """The bytes that a reference names.

    Raises:
        PhotoError: missing, empty or too large, or an archive's entry that is refused.
        DataError: the object's store does not answer.
    """
    if uris.is_remote(reference):
        return uris.read_object(reference, limits)
    if archives.is_member(reference):
        return archives.read_member(reference, limits)
    return read_bytes(reference, limits)


def _of_source(source: str, passing_over: Collection[str]) -> Listed:
    if source == STDIN:
        return _lines()
    if uris.is_remote(source):
        return uris.list_objects(source)
    if os.path.isdir(source):  # noqa: PTH112 - false, too, for names that no file can have
        return walk(os.fspath(photos_root(Path(source))), passing_over)
    if not os.path.lexists(source) and _MAGIC.search(source):
        return _expanded(source, passing_over)
    if archives.is_shard(source):
        return _of_shard(source)
    if source.lower().endswith(LIST_SUFFIXES):
        return _listed(Path(source))
    return iter([source])  # whether it can be read is for decoding to say


def _lines() -> Iterator[str]:
    """References on standard input; bytes that are no UTF-8 stay what they are, but for a BOM.

    Raises:
        DataError: a line that is no reference.
    """
    number = 0
    while line := sys.stdin.buffer.readline(LINE_BYTES + 1):
        number += 1
        if len(line) > LINE_BYTES:
            raise DataError(f"Line {number} on standard input is longer than {LINE_BYTES:,} bytes: it is no list.")
        if b"\0" in line or (number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))):
            raise DataError(f"Line {number} on standard input is no text in UTF-8: save the list as UTF-8.")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if name := os.fsdecode(line).strip("\r\n"):
            yield name


def _listed(table: Path) -> Listed:
    """The references in a table's column; relative paths are meant from its folder."""
    left_out: list[Refused] = []
    for name in list_rows(table, left_out.append):
        yield from _taken(left_out)
        yield name if uris.is_remote(name) else photo_path(table, name)
    yield from left_out


def _taken(entries_: list[Refused]) -> list[Refused]:
    taken = list(entries_)
    entries_.clear()
    return taken


def _of_shard(source: str) -> Listed:
    """An archive's photos; one that holds archives or a competition is unpacked, once, since those have a structure."""
    if not archives.is_nested(source):
        return archives.list_members(source)
    return walk_unpacked(Path(source))


def lists_in(source: str) -> list[str]:
    """The files that are read as lists behind a source: itself, or those that it matches where it is a pattern."""
    if os.path.lexists(source) or not _MAGIC.search(source) or not source.lower().endswith(LIST_SUFFIXES):
        return [source]
    return [match for match in _all_matches(source) if isinstance(match, str)]


def _all_matches(pattern: str) -> Listed:
    parts = [part for part in pattern.split("/") if part]
    if parts.count("**") > 1:
        raise UsageError(f"'{pattern}' holds ** twice: give it once, or several patterns.")
    return _matches("/" if pattern.startswith("/") else "", parts)


def _expanded(pattern: str, passing_over: Collection[str]) -> Listed:
    """What a pattern matches: photos, folders, archives; tables only where it ends as their names do."""
    for match in _all_matches(pattern):
        if isinstance(match, Refused):
            yield match
        elif os.path.isdir(match):  # noqa: PTH112
            if "**" not in pattern.strip("/").split("/")[:-1]:  # else what is in it matches for itself
                yield from _of_source(match, passing_over)
        elif archives.is_shard(match) or _is_list(match, pattern):
            yield from _of_source(match, passing_over)
        else:
            yield judged(match)


def _is_list(match: str, pattern: str) -> bool:
    return match.lower().endswith(LIST_SUFFIXES) and pattern.lower().endswith(LIST_SUFFIXES)


def _matches(base: str, parts: Sequence[str]) -> Listed:
    if not parts:
        yield base.rstrip("/")
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matches(base, rest)
        if rest:  # else it is a folder, which is searched whole
            yield from _matches_below(base, parts)
    elif not _MAGIC.search(head):
        if os.path.lexists(base + head):
            yield from _matches(f"{base}{head}/", rest)
    elif os.path.isdir(base or "."):  # noqa: PTH112
        found = entries(base or ".")
        if found.reason is not None:
            yield Refused(base or ".", found.reason)
        for name in found.folders if rest else found.names:
            if fnmatch.fnmatchcase(name.rstrip("/"), head):
                yield from _matches(f"{base}{name.rstrip('/')}/", rest)


def _matches_below(base: str, parts: Sequence[str]) -> Listed:
    found = entries(base or ".")
    if found.reason is not None:
        yield Refused(base or ".", found.reason)
    for name in found.folders:
        if os.path.islink(base + name):  # noqa: PTH114
            yield Refused(base + name, UNFOLLOWED)
        else:
            yield from _matches(f"{base}{name}/", parts)


def to_line(reference: str) -> str:
    """A reference as a line of a listing: a JSON string, whatever bytes are in it."""
    return json.dumps(reference) + "\n"


def of_line(line: str) -> str:
    """A reference from a line of a listing."""
    return str(json.loads(line))
