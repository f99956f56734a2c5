"""URIs: each names one photo's bytes. `list_entries` lists them from what a user gives, `read_uri` reads one.

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
from nameplate.data.listing import LeftOut, entries, list_rows, photo_or_refused, walk
from nameplate.data.tables import photo_path
from nameplate.errors import DataError, UsageError
from nameplate.images.decode import read_bytes
from nameplate.types import Limits

STDIN = "-"
"""The source that stands for URIs on standard input, one per line."""
LINE_BYTES = 65_536
"""The most bytes of such a line; no path and no address is as long."""
UNFOLLOWED = "a link to a folder: ** follows none"
_MAGIC = re.compile(r"[*?\[]")


Listed = Iterator[str | Refused]
"""URIs, and among them the entries that are left out."""


def list_entries(sources: Iterable[str], passing_over: Collection[str] = ()) -> Listed:
    """List the photos of some sources lazily, always in the same order, with what is left out among them.

    A source is a photo, a folder (searched recursively), a pattern with `*`, `?`, `[…]` and at most one `**`, a table
    (CSV, Parquet, JSON Lines) with a column of URIs, a zip or tar, an object or prefix in a store, or `-`. Tables and
    archives keep their own order, folders are sorted by bytes. Memory holds one folder's listing per level at most.

    Args:
        sources: the sources as the user wrote them.
        passing_over: folders that are skipped silently, such as those that the command itself writes.

    Raises:
        DataError: a table, archive or store cannot be read, or a source has no photos; its `left_out` says what was
            there instead.
        UsageError: a pattern or an address is malformed.
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


def read_uri(uri: str, limits: Limits) -> bytes:
    """Read the bytes that a URI names.

    Raises:
        PhotoError: they are missing, empty or too large, or an archive's entry is refused.
        DataError: the object's store does not answer.
    """
    if uris.is_remote(uri):
        return uris.read_object(uri, limits)
    if archives.is_member(uri):
        return archives.read_member(uri, limits)
    return read_bytes(uri, limits)


def _of_source(source: str, passing_over: Collection[str]) -> Listed:
    if source == STDIN:
        return _lines()
    if uris.is_remote(source):
        return uris.list_objects(source)
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises for names that no file can have
        return walk(os.fspath(photos_root(Path(source))), passing_over)
    if not os.path.lexists(source) and _MAGIC.search(source):
        return _expanded(source, passing_over)
    if archives.is_shard(source):
        return _of_shard(source)
    if source.lower().endswith(LIST_SUFFIXES):
        return _listed(Path(source))
    return iter([source])  # if it cannot be read, it gets a row that says so


def _lines() -> Iterator[str]:
    """Yield the URIs on standard input. Bytes that are not UTF-8 are kept as they are; a BOM is removed.

    Raises:
        DataError: a line is too long or no text in UTF-8.
    """
    number = 0
    while line := sys.stdin.buffer.readline(LINE_BYTES + 1):
        number += 1
        if len(line) > LINE_BYTES:
            raise DataError(f"Line {number} on standard input is longer than {LINE_BYTES:,} bytes: it is no list.")
        # UTF-16, which Windows writes, has NUL bytes or begins with one of these marks.
        if b"\0" in line or (number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff"))):
            raise DataError(f"Line {number} on standard input is no text in UTF-8: save the list as UTF-8.")
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        # `os.fsdecode` keeps bytes that are not UTF-8 as surrogates, so any file name survives.
        if name := os.fsdecode(line).strip("\r\n"):
            yield name


def _listed(table: Path) -> Listed:
    """Yield the URIs in a table's column. Relative paths start from the table's folder."""
    # `list_rows` reports refused rows through a callback; they are yielded here in their place among the others.
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
    """List an archive's photos. One that holds archives or a competition is unpacked first, once, and then searched."""
    if not archives.is_nested(source):
        return archives.list_members(source)
    return walk_unpacked(Path(source))


def lists_in(source: str) -> list[str]:
    """Return the files that a source may read as lists: the source itself, or if it is a pattern, its matches."""
    if os.path.lexists(source) or not _MAGIC.search(source) or not source.lower().endswith(LIST_SUFFIXES):
        return [source]
    return [match for match in _all_matches(source) if isinstance(match, str)]


def _all_matches(pattern: str) -> Listed:
    parts = [part for part in pattern.split("/") if part]
    if parts.count("**") > 1:
        raise UsageError(f"'{pattern}' holds ** twice: give it once, or several patterns.")
    return _matches("/" if pattern.startswith("/") else "", parts)


def _expanded(pattern: str, passing_over: Collection[str]) -> Listed:
    """List what a pattern matches: photos, folders and archives; tables only if the pattern has their suffix."""
    for match in _all_matches(pattern):
        if isinstance(match, Refused):
            yield match
        elif os.path.isdir(match):  # noqa: PTH112
            # Below ** the folder's contents match for themselves, so listing the folder would repeat them.
            if "**" not in pattern.strip("/").split("/")[:-1]:
                yield from _of_source(match, passing_over)
        elif archives.is_shard(match) or _is_list(match, pattern):
            yield from _of_source(match, passing_over)
        else:
            yield photo_or_refused(match)


def _is_list(match: str, pattern: str) -> bool:
    return match.lower().endswith(LIST_SUFFIXES) and pattern.lower().endswith(LIST_SUFFIXES)


def _matches(base: str, parts: Sequence[str]) -> Listed:
    if not parts:
        yield base.rstrip("/")
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matches(base, rest)
        if rest:  # otherwise the match is a folder, which is searched recursively anyway
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


def to_line(uri: str) -> str:
    """Encode a URI as a line of a listing: a JSON string, which can hold any bytes of a file name."""
    return json.dumps(uri) + "\n"  # escapes newlines and lone surrogates, so a line is always one URI in ASCII


def from_line(line: str) -> str:
    """Decode a line of a listing."""
    return str(json.loads(line))
