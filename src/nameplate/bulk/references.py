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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nameplate.bulk import objects, shards
from nameplate.datasets.archive import Refused, first_reasons, unpack
from nameplate.datasets.sources import PATH_COLUMNS, is_hidden, path_column, photos_root
from nameplate.datasets.tables import TABLE_SUFFIXES, photo_path, stream_table
from nameplate.errors import DataError, UsageError
from nameplate.photos.decode import read_bytes
from nameplate.photos.formats import PHOTO_SUFFIXES, is_photo_name
from nameplate.types import Limits

STDIN = "-"
"""As a source: references on standard input, one a line."""
LISTS = (*TABLE_SUFFIXES, ".jsonl")
_MAGIC = re.compile(r"[*?\[]")


def list_references(sources: Iterable[str]) -> Iterator[str]:
    """The photos behind what a user gives, lazily, in an order that is the same every time.

    A source is a photo, a folder (searched whole), a pattern with `*`, `?`, `[…]` and once `**`, a table (CSV, Parquet,
    JSON Lines) with a column of references, a zip or tar, an object or prefix in a store, or `-`. Sources come in their
    order, tables and archives in theirs, folders in byte order. No more is held than one folder's listing a level.

    Raises:
        DataError: a folder, table, archive or store that cannot be read, or a source without photos.
        UsageError: a pattern or an address that cannot be one.
    """
    for source in sources:
        empty = True
        for reference in _of_source(source):
            empty = False
            yield reference
        if empty:
            raise DataError(f"There are no photos in '{source}' ({', '.join(sorted(PHOTO_SUFFIXES))}).")


def read_reference(reference: str, limits: Limits) -> bytes:
    """The bytes that a reference names.

    Raises:
        PhotoError: missing, empty or too large, or an archive's entry that is refused.
        DataError: the object's store does not answer.
    """
    if objects.is_remote(reference):
        return objects.read_object(reference, limits)
    if shards.is_member(reference):
        return shards.read_member(reference, limits)
    return read_bytes(reference, limits)


def _of_source(source: str, *, tables: bool = True) -> Iterator[str]:
    if source == STDIN:
        return _lines()
    if objects.is_remote(source):
        return objects.list_objects(source)
    if os.path.isdir(source):  # noqa: PTH112 - false, too, for names that no file can have
        return _walk(os.fspath(photos_root(Path(source))))
    if not os.path.lexists(source) and _MAGIC.search(source):
        return _expanded(source)
    if shards.is_shard(source):
        return _of_shard(source)
    if tables and source.lower().endswith(LISTS):
        return _listed(Path(source))
    return iter([source])  # whether it can be read is for decoding to say


def _lines() -> Iterator[str]:
    """References on standard input; bytes that are no UTF-8 stay what they are."""
    for line in sys.stdin.buffer:
        if name := os.fsdecode(line).strip("\r\n"):
            yield name


def _listed(table: Path) -> Iterator[str]:
    """The references in a table's column; relative paths are meant from its folder."""
    column = ""
    for row in stream_table(table, wanted=PATH_COLUMNS):
        column = column or path_column(table, row)
        name = row.get(column, "").strip()
        if name:
            yield name if objects.is_remote(name) else photo_path(table, name)


def _of_shard(source: str) -> Iterator[str]:
    """An archive's photos; one that holds archives or a competition is unpacked, once, since those have a structure."""
    if shards.is_nested(source):
        folder = unpack(Path(source), Limits())[0]
        return _walk(os.fspath(photos_root(folder)))
    return _photos_of(source)


def _photos_of(source: str) -> Iterator[str]:
    """An archive's photos alone."""
    left_out, empty = [], True
    for entry in shards.list_members(source):
        if isinstance(entry, Refused):
            left_out.append(entry)
        else:
            empty = False
            yield entry
    if empty:
        raise DataError(f"There are no photos in '{source}'.{first_reasons(left_out)}")


def _walk(folder: str, seen: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Every photo below a folder in the byte order of its path; links are followed, but never in a circle."""
    status = os.stat(folder)  # noqa: PTH116
    here = (status.st_dev, status.st_ino)
    if here in seen:
        return
    for name in _entries(folder):
        if name.endswith("/"):
            yield from _walk(f"{folder}/{name[:-1]}", seen | {here})
        elif is_photo_name(name):
            yield f"{folder}/{name}"


def _entries(folder: str) -> list[str]:
    """Names in a folder, folders with a `/` behind, in byte order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name + "/" * entry.is_dir() for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"Cannot list '{folder}': {error.strerror}.") from None
    names.sort(key=os.fsencode)
    return names


def _expanded(pattern: str) -> Iterator[str]:
    """What a pattern matches: photos, folders, archives; tables only where it ends as their names do."""
    parts = [part for part in pattern.split("/") if part]
    if parts.count("**") > 1:
        raise UsageError(f"'{pattern}' holds ** twice: give it once, or several patterns.")
    for match in _matches("/" if pattern.startswith("/") else "", parts):
        folder = os.path.isdir(match)  # noqa: PTH112
        if folder and "**" in parts[:-1]:
            continue  # what is in it matches for itself
        if folder or is_photo_name(match) or shards.is_shard(match) or _is_list(match, pattern):
            yield from _of_source(match)


def _is_list(match: str, pattern: str) -> bool:
    return match.lower().endswith(LISTS) and pattern.lower().endswith(LISTS)


def _matches(base: str, parts: Sequence[str]) -> Iterator[str]:
    if not parts:
        yield base.rstrip("/")
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matches(base, rest)
        if not rest:
            return  # a folder, which is searched whole
        for name in _entries(base or "."):
            if name.endswith("/") and not os.path.islink(base + name[:-1]):  # noqa: PTH114
                yield from _matches(base + name, parts)
    elif not _MAGIC.search(head):
        if os.path.lexists(base + head):
            yield from _matches(f"{base}{head}/", rest)
    else:
        for name in _entries(base or ".") if os.path.isdir(base or ".") else ():  # noqa: PTH112
            if fnmatch.fnmatchcase(name.rstrip("/"), head) and (name.endswith("/") or not rest):
                yield from _matches(f"{base}{name.rstrip('/')}/", rest)


def to_line(reference: str) -> str:
    """A reference as a line of a listing: a JSON string, whatever bytes are in it."""
    return json.dumps(reference) + "\n"


def of_line(line: str) -> str:
    """A reference from a line of a listing."""
    return str(json.loads(line))
