"""A job on disk: what is to be named, how, and which parts of it are done. However many runs, one result.

job.json            all that the rows depend on; written after the listing, so that where it is the listing is whole
listing/00000.txt   references, a JSON string a line, `part` of them a file: the photos of one part
left-out.json       what the listing left out: counts, and the first entries; there where anything was
part-00000.parquet  the rows of one part (or .csv, .jsonl): temporary name, fsync, rename
ledger.jsonl        a line for each part that is done, fsynced after the rename
.lock               held by the run that writes
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import msgspec

from nameplate.batch.tables import AnsweredPhoto, Format, write_rows
from nameplate.batch.uris import of_line, to_line
from nameplate.data.archive import Refused
from nameplate.data.listing import LeftOut
from nameplate.errors import NameplateError, WriteError
from nameplate.storage import LOCK, sha256, whole_file, working_in

# JOINED A journal: what is done of a long job, a JSON line each, so that an interrupted one goes on.


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


JOB, LISTING, LEFT_OUT, MANIFEST = "job.json", "listing", "left-out.json", "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """job.json: all that the rows depend on beside the photos' own bytes."""

    bundle: str
    """`Bundle.full_digest`."""
    runtime: str
    """Pinned by the first run, so that all rows are one runtime's."""
    tta: str
    top: int
    format: Format
    part: int
    """Photos a part."""
    limits: str
    versions: dict[str, str]
    """Of all that touches a photo."""
    sources: tuple[str, ...]
    """As they were given."""
    folder: str
    """What relative paths are meant from; nothing where there are none."""
    photos: int = 0
    """How many were listed."""
    listing: str = ""
    """SHA-256 of the listing."""


FOUND_OUT = ("photos", "listing")
"""By the first run; so is the runtime, where `auto` is asked for."""


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished part."""

    part: int
    rows: int
    bytes: int
    sha256: str
    errors: dict[str, int]
    """Reason → photos that could not be read."""
    verdicts: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """A planned job."""

    root: Path
    terms: JobSpec

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.terms.photos // self.terms.part)

    def rows(self, part: int) -> int:
        """Photos of a part."""
        return min(self.terms.part, self.terms.photos - part * self.terms.part)

    def path(self, part: int) -> Path:
        """The file of a part's rows."""
        return self.root / f"part-{part:05d}.{self.terms.format}"

    def references(self, part: int) -> list[str]:
        """The photos of a part.

        Raises:
            NameplateError: the listing is gone.
        """
        path = _listing(self.root, part)
        try:
            return [of_line(line) for line in path.read_text("ascii").splitlines()]
        except (OSError, ValueError) as error:
            raise NameplateError(
                f"Cannot read '{path}' ({error}): the job cannot go on. Delete its folder to start again."
            ) from None

    def left_out(self) -> LeftOut:
        """What the listing left out.

        Raises:
            NameplateError: the file that says so is damaged.
        """
        path = self.root / LEFT_OUT
        try:
            return msgspec.json.decode(path.read_bytes(), type=LeftOut)
        except FileNotFoundError:
            return LeftOut()
        except (OSError, msgspec.DecodeError) as error:
            raise NameplateError(f"Cannot read '{path}' ({error}). Delete the job's folder to start again.") from None

    def done(self) -> dict[int, ShardRecord]:
        """The parts in the ledger whose files are there, whole."""
        return {
            line.part: line
            for line in _read_manifest(self.root / MANIFEST)
            if _size(self.path(line.part)) == line.bytes
        }

    def todo(self) -> list[int]:
        """The parts that are not."""
        done = self.done()
        return [part for part in range(self.parts) if part not in done]

    def write(self, part: int, answers: Sequence[AnsweredPhoto], seconds: float) -> ShardRecord:
        """Write a part whole; `record` then says that it is done.

        Raises:
            WriteError: the folder cannot be written to, or the disk is full.
        """
        path = self.path(part)
        with whole_file(path) as temporary:
            write_rows(temporary, self.terms.format, answers, self.terms.top)
        _sync_folder(self.root)
        data = path.read_bytes()
        errors: Counter[str] = Counter(answer.reason for answer in answers if answer.reason is not None)
        verdicts = Counter(str(answer.prediction.verdict) for answer in answers)
        return ShardRecord(part, len(answers), len(data), sha256(data), dict(errors), dict(verdicts), round(seconds, 3))

    def record(self, line: ShardRecord) -> None:
        """Write a finished part into the ledger.

        Raises:
            WriteError: as above.
        """
        _append(self.root / MANIFEST, msgspec.json.encode(line) + b"\n")


def plan(
    root: Path,
    terms: JobSpec,
    entries: Callable[[], Iterable[str | Refused]],
    pin: Callable[[list[str]], str],
    *,
    replace_other: bool,
    listed: Callable[[int], None] = lambda _: None,
) -> Job:
    """The job in a folder: that of an interrupted run of the same terms, or a new one.

    Args:
        root: the job's folder; locked by the caller.
        terms: without photos and listing, which are found out here, as is the runtime where it is `auto`.
        entries: references of the photos, and what is left out among them; asked for a new job only.
        pin: given the first part's references, names the runtime.
        replace_other: whether another job's folder is emptied; else it is refused.
        listed: called with the photos listed so far.

    Raises:
        NameplateError: the folder holds another job, or anything else.
    """
    before = _read_terms(root)
    if before is not None and not _differing(before, terms):
        return Job(root, before)
    if before is not None and not replace_other:
        raise NameplateError(f"'{root}' holds another job: {_differences(before, terms)}. Choose another folder.")
    _clear(root)
    count, digest = _freeze(root, entries(), terms.part, listed)
    first = Job(root, terms).references(0) if count else []
    complete = replace(terms, runtime=pin(first), photos=count, listing=digest)
    with whole_file(root / JOB) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2) + b"\n")
    return Job(root, complete)


def open_job(root: Path) -> Job:
    """The job that a folder holds.

    Raises:
        NameplateError: it holds none.
    """
    terms = _read_terms(root)
    if terms is None:
        raise NameplateError(f"'{root}' holds no job that can be read.")
    return Job(root, terms)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a job's folder, made where it is not there.

    Raises:
        NameplateError: another run holds it, or it is no folder of a job.
        WriteError: it cannot be made.
    """
    if root.is_dir() and not (root / LOCK).exists() and any(root.iterdir()):
        raise NameplateError(f"'{root}' is there and holds no job. Choose another folder.")
    with working_in(root, keep=True):  # so that what a killed run leaves is known for a job's
        yield


def remove(root: Path) -> None:
    """Delete a job's folder; job.json goes first, so that what an interruption leaves is no job."""
    (root / JOB).unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)


def _listing(root: Path, part: int) -> Path:
    return root / LISTING / f"{part:05d}.txt"


def _freeze(root: Path, entries: Iterable[str | Refused], part: int, listed: Callable[[int], None]) -> tuple[int, str]:
    """Write the listing, and what it leaves out; how many photos there are, and the listing's SHA-256."""
    left_out = LeftOut()
    rest, count, digest = left_out.sift(entries), 0, hashlib.sha256(usedforsecurity=False)
    while some := "".join(map(to_line, islice(rest, part))).encode("ascii"):
        with whole_file(_listing(root, count // part)) as temporary:
            temporary.write_bytes(some)
        digest.update(some)
        count += some.count(b"\n")
        listed(count)
    if left_out.total:
        with whole_file(root / LEFT_OUT) as temporary:
            temporary.write_bytes(msgspec.json.encode(left_out.printable()) + b"\n")
    return count, digest.hexdigest()


def _clear(root: Path) -> None:
    """Delete what a job left, job.json first, and nothing else."""
    (root / JOB).unlink(missing_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    (root / LEFT_OUT).unlink(missing_ok=True)
    shutil.rmtree(root / LISTING, ignore_errors=True)
    for pattern in ("part-*", ".part-*"):
        for path in root.glob(pattern):
            path.unlink(missing_ok=True)


def _read_terms(root: Path) -> JobSpec | None:
    try:
        return msgspec.json.decode((root / JOB).read_bytes(), type=JobSpec)
    except (OSError, msgspec.DecodeError):
        return None


def _differing(before: JobSpec, now: JobSpec) -> list[str]:
    left_open = (*FOUND_OUT, "runtime") if now.runtime == "auto" else FOUND_OUT
    names = (field.name for field in fields(JobSpec) if field.name not in left_open)
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _differences(before: JobSpec, now: JobSpec) -> str:
    shown = (f"its {name} is {getattr(before, name)!r}, not {getattr(now, name)!r}" for name in _differing(before, now))
    return "; ".join(shown)


def _read_manifest(path: Path) -> list[ShardRecord]:
    """The ledger's lines; a last one cut short is dropped, as is what cannot be read: its part is made again."""
    found = []
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=ShardRecord))
    return found


def _append(path: Path, line: bytes) -> None:
    """Append to the ledger, on a line of its own even after one that was cut short."""
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"Cannot write '{path}': {error.strerror or error}.") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    with suppress(OSError):  # not every system opens folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
