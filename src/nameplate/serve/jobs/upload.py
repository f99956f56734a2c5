"""A job's photos: written to disk while they arrive, and read back in their order, from a zip or one after another.

An upload is one file: the zip as it came, or the photos one behind another, with a list of where each begins. Zips are
hostile input: `data/zip.py` checks every entry, and an entry that is no photo is an unreadable photo with the reason.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from nameplate.data.archive import ArchiveLimits, sniffed
from nameplate.data.members import DEEP, NO_PHOTO, ArchiveBudget, Member, is_junk
from nameplate.data.zip import Zip
from nameplate.errors import PhotoError
from nameplate.storage import open_regular, printable
from nameplate.types import Limits

UPLOAD, PLACES = "upload", "places.json"
"""Names of the file that holds the bytes, and of the list of the photos in it, which a zip does without."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins; the second is an empty one."""
PIECE = 1024 * 1024
"""Bytes that are collected before a thread writes them."""
HEADERS = 64 * 1024 * 1024
"""The most bytes of a zip's table of contents."""


class Place(msgspec.Struct, frozen=True):
    """Where in the upload a photo lies."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A photo of a job, on disk."""

    name: str
    read: Callable[[], bytes]
    """Reads its file's bytes; raises `PhotoError`."""


class Spool:
    """Writes an upload to its file. The event loop adds to it, and threads write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / UPLOAD).open("xb", buffering=0)
        self._waiting: list[bytes] = []
        self._bytes = self.size = 0
        self.start = b""
        """Its first bytes."""

    def add(self, data: bytes) -> None:
        """Add bytes."""
        if len(self.start) < len(ZIP[0]):
            self.start += data[: len(ZIP[0])]
        self._waiting.append(data)
        self._bytes += len(data)
        self.size += len(data)

    async def write(self, *, least: int = PIECE) -> None:
        """Write what waits, if it is so much at least."""
        if self._bytes >= least:
            data, self._waiting, self._bytes = b"".join(self._waiting), [], 0
            await asyncio.to_thread(self._write, data)

    async def end(self, places: list[Place] | None) -> None:
        """Write the rest, and the list of the photos, None for a zip."""
        await self.write(least=1)
        if places is not None:
            (self._folder / PLACES).write_bytes(msgspec.json.encode(places))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]


def is_zip(start: bytes) -> bool:
    """Whether bytes begin as a zip does."""
    return start.startswith(ZIP)


def count_photos(folder: Path, limits: Limits, most: int) -> int:
    """Count the photos of an upload; of a zip every entry is looked at, and none is unpacked.

    Args:
        folder: of the job.
        limits: on one photo.
        most: how many photos a job may have.

    Raises:
        DataError: the zip cannot be read, or has more entries.
    """
    return sum(1 for _ in stored_photos(folder, limits, most))


def stored_photos(folder: Path, limits: Limits, most: int) -> Iterator[StoredPhoto]:
    """Yield the photos of an upload in their order, unread; see `count_photos`."""
    if (folder / PLACES).exists():
        places = msgspec.json.decode((folder / PLACES).read_bytes(), type=list[Place])
        with open_regular(folder / UPLOAD) as file:
            for place in places:
                yield StoredPhoto(place.name, partial(_read, file, place))
        return
    # The errors name no file of ours, since clients get them.
    file = open_regular(folder / UPLOAD)
    archive_limits = ArchiveLimits(entries=2 * most, bytes=most * limits.bytes, header_bytes=HEADERS)
    budget = ArchiveBudget("the zip", os.fstat(file.fileno()).st_size, archive_limits)
    with closing(Zip(file, limits, budget)) as archive:
        for member in archive.members("the zip"):
            if not is_junk(member.name):
                yield StoredPhoto(printable(member.shown), partial(_unpack, archive, member))


def _read(file: BinaryIO, place: Place) -> bytes:
    file.seek(place.start)
    return file.read(place.size)


def _unpack(archive: Zip, member: Member) -> bytes:
    member = sniffed(archive, member)
    if member.problem is not None:
        raise PhotoError(member.reason, member.problem)
    if member.kind != "photo":
        raise PhotoError("not a photo", DEEP if member.kind == "archive" else NO_PHOTO)
    return b"".join(archive.pieces(member))
