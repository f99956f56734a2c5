"""A journal: what is done of a long job, a JSON line each, so that an interrupted one goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from nameplate.errors import NameplateError
from nameplate.storage import sha256

T = TypeVar("T")
FLUSH = 256
"""Lines between two flushes to disk."""
FORMAT = 2
"""Of the lines. A journal of another format is not resumed: msgspec would drop the fields that it does not know."""


@dataclass(slots=True)
class Journal(Generic[T]):
    """An open journal."""

    done: list[T]
    """What it holds, in order."""
    resumed: int
    """How many of these an interrupted job left."""
    _file: BinaryIO

    def add(self, result: T) -> None:
        """Keep one result."""
        self.done.append(result)
        self._file.write(msgspec.json.encode(result) + b"\n")
        if len(self.done) % FLUSH == 0:
            self._file.flush()


@contextmanager
def journal(target: Path, job: object, kind: type[T]) -> Iterator[Journal[T]]:
    """Open the journal beside `target`; it is deleted when the block ends well, and kept when it does not.

    Args:
        target: what the job writes in the end.
        job: all that the results depend on; its `repr` must be the same for the job to be gone on with.
        kind: of the results.

    Raises:
        NameplateError: the folder cannot be written to.
    """
    path, heading = _path(target), _heading(job)
    done = _resume(path, heading, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab" if done else "wb")
        if not done:
            file.write(heading)
    except OSError as error:
        raise NameplateError(f"Cannot write '{path}': {error.strerror or error}.") from None
    with file:
        yield Journal(done, len(done), file)
    path.unlink(missing_ok=True)


def _path(target: Path) -> Path:
    return target.with_name(f".{target.name}.journal")


def _heading(job: object) -> bytes:
    job_digest = sha256(os.fsencode(repr(job)))
    return msgspec.json.encode({"nameplate-journal": job_digest, "format": FORMAT}) + b"\n"


def _resume(path: Path, heading: bytes, kind: type[T]) -> list[T]:
    """The results of an interrupted run of the same job; a last line cut short is dropped."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    if not lines or lines[0] != heading:
        return []
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        done = [msgspec.json.decode(line, type=kind) for line in whole[1:]]
    except msgspec.DecodeError:
        return []
    if len(whole) < len(lines):
        os.truncate(path, sum(map(len, whole)))
    return done
