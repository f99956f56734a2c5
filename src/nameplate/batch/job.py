"""A job on disk: which photos it identifies, how, and which of its shards are done.

The result is the same however often a job was interrupted. Its folder holds:

job.json            everything that the rows depend on; written last, so if it exists the listing is complete
listing/00000.txt   the URIs of one shard's photos, one JSON string per line
left-out.json       what the listing left out: counts and the first entries; missing if nothing was
part-00000.parquet  the rows of one shard (or .csv, .jsonl), written to a temporary name, fsynced and renamed
ledger.jsonl        the manifest: a line for each finished shard, fsynced after the rename
.lock               held by the run that writes

Small jobs, which hold their results in memory, use a `journal` instead: one JSON line per result in one file.
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
from nameplate.batch.uris import from_line, to_line
from nameplate.data.archive import Refused
from nameplate.data.listing import LeftOut
from nameplate.errors import NameplateError, WriteError
from nameplate.storage import LOCK, sha256, whole_file, working_in
from nameplate.types import Cars

# The journal of a small job.

T = TypeVar("T")
FLUSH = 256
"""Lines between two flushes to disk."""
FORMAT = 3
"""Version of the lines' format. A journal of another version is not resumed: msgspec would silently drop the fields
that it does not know."""


@dataclass(slots=True)
class Journal(Generic[T]):
    """An open journal."""

    done: list[T]
    """All results so far, in order."""
    resumed: int
    """How many of these an interrupted run left."""
    _file: BinaryIO

    def add(self, result: T) -> None:
        """Append one result."""
        self.done.append(result)
        self._file.write(msgspec.json.encode(result) + b"\n")
        if len(self.done) % FLUSH == 0:
            self._file.flush()


@contextmanager
def journal(target: Path, job: object, kind: type[T]) -> Iterator[Journal[T]]:
    """Open the journal beside `target`. It is deleted when the block ends normally, and kept when it raises.

    Args:
        target: the file that the job writes in the end.
        job: everything that the results depend on. An interrupted job is resumed only if its `repr` is the same.
        kind: the results' type.

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
    """Read the results of an interrupted run of the same job. A last line that is cut short is removed."""
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
    if len(whole) < len(lines):  # or the next line would be appended to half of one
        os.truncate(path, sum(map(len, whole)))
    return done


JOB, LISTING, LEFT_OUT, MANIFEST = "job.json", "listing", "left-out.json", "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The contents of job.json: everything that the rows depend on, except the photos' bytes.

    The field names are the JSON's keys, so jobs on disk depend on them.
    """

    bundle: str
    """The bundle's `full_digest`."""
    runtime: str
    """The runtime; the first run chooses it for all, because another one may change a confidence's last digit."""
    tta: str
    top: int
    format: Format
    part: int
    """Photos per shard; the key is older than the word."""
    limits: str
    versions: dict[str, str]
    """Versions of all packages that process a photo."""
    sources: tuple[str, ...]
    """The sources as the user gave them."""
    folder: str
    """The folder that relative sources start from; empty if all are absolute."""
    photos: int = 0
    """Number of listed photos."""
    listing: str = ""
    """SHA-256 of the listing."""
    cars: Cars = "main"
    """Which cars of a photo are named."""


SET_BY_FIRST_RUN = ("photos", "listing")
"""Fields that a user does not give; nor the runtime, if `auto` is asked for."""


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One finished shard: a line of the manifest, whose keys are the field names."""

    part: int
    """The shard's number, from 0; the key is older than the word."""
    rows: int
    bytes: int
    sha256: str
    errors: dict[str, int]
    """Reason → photos that could not be read."""
    verdicts: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """A planned job: its folder and its specification."""

    root: Path
    spec: JobSpec

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.spec.photos // self.spec.part)

    def rows(self, shard: int) -> int:
        """Number of a shard's photos; only the last shard may have fewer than the others."""
        return min(self.spec.part, self.spec.photos - shard * self.spec.part)

    def path(self, shard: int) -> Path:
        """Path of a shard's file of rows."""
        return self.root / f"part-{shard:05d}.{self.spec.format}"

    def uris(self, shard: int) -> list[str]:
        """Read the URIs of a shard's photos.

        Raises:
            NameplateError: the listing is missing or damaged.
        """
        path = _listing(self.root, shard)
        try:
            return [from_line(line) for line in path.read_text("ascii").splitlines()]
        except (OSError, ValueError) as error:
            raise NameplateError(
                f"Cannot read '{path}' ({error}): the job cannot go on. Delete its folder to start again."
            ) from None

    def left_out(self) -> LeftOut:
        """Read what the listing left out.

        Raises:
            NameplateError: the file is damaged.
        """
        path = self.root / LEFT_OUT
        try:
            return msgspec.json.decode(path.read_bytes(), type=LeftOut)
        except FileNotFoundError:
            return LeftOut()
        except (OSError, msgspec.DecodeError) as error:
            raise NameplateError(f"Cannot read '{path}' ({error}). Delete the job's folder to start again.") from None

    def done(self) -> dict[int, ShardRecord]:
        """Return the shards that are in the manifest and whose files exist in full length: number → record."""
        return {
            line.part: line
            for line in _read_manifest(self.root / MANIFEST)
            if _size(self.path(line.part)) == line.bytes
        }

    def todo(self) -> list[int]:
        """Return the numbers of the shards that are not done."""
        done = self.done()
        return [shard for shard in range(self.shards) if shard not in done]

    def write(self, shard: int, answers: Sequence[AnsweredPhoto], seconds: float) -> ShardRecord:
        """Write a shard's file atomically. It counts as done only after `record`.

        Raises:
            WriteError: the folder cannot be written to, or the disk is full.
        """
        path = self.path(shard)
        with whole_file(path) as temporary:
            write_rows(temporary, self.spec.format, answers, self.spec.top)
        _sync_folder(self.root)  # the file must be on disk before the manifest says so
        data = path.read_bytes()
        # The counts stand in the manifest so that a resumed job can report them without reading its rows.
        errors: Counter[str] = Counter(answer.reason for answer in answers if answer.reason is not None)
        verdicts = Counter(str(answer.prediction.verdict) for answer in answers)
        return ShardRecord(
            shard, len(answers), len(data), sha256(data), dict(errors), dict(verdicts), round(seconds, 3)
        )

    def record(self, line: ShardRecord) -> None:
        """Append a finished shard to the manifest.

        Raises:
            WriteError: the folder cannot be written to, or the disk is full.
        """
        _append(self.root / MANIFEST, msgspec.json.encode(line) + b"\n")


def plan(
    root: Path,
    spec: JobSpec,
    entries: Callable[[], Iterable[str | Refused]],
    pin: Callable[[list[str]], str],
    *,
    replace_other: bool,
    listed: Callable[[int], None] = lambda _: None,
) -> Job:
    """Return the job in a folder: an interrupted one with the same specification, or else a new one.

    Args:
        root: the job's folder, which the caller has locked.
        spec: the specification. Photos and listing are set here, as is the runtime if it is `auto`.
        entries: gives the photos' URIs, and what is left out among them; called only for a new job.
        pin: chooses the runtime, given the first shard's URIs.
        replace_other: whether the folder of another job is emptied; otherwise it is refused.
        listed: called with the number of photos listed so far.

    Raises:
        NameplateError: the folder holds another job, or something else.
    """
    before = _read_spec(root)
    if before is not None and not _differing(before, spec):  # resume; sources are not listed again
        return Job(root, before)
    if before is not None and not replace_other:
        raise NameplateError(f"'{root}' holds another job: {_differences(before, spec)}. Choose another folder.")
    _clear(root)
    count, digest = _freeze(root, entries(), spec.part, listed)
    first = Job(root, spec).uris(0) if count else []
    complete = replace(spec, runtime=pin(first), photos=count, listing=digest)
    # From here on the listing counts as complete.
    with whole_file(root / JOB) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(complete), indent=2) + b"\n")
    return Job(root, complete)


def open_job(root: Path) -> Job:
    """Return the job that a folder holds.

    Raises:
        NameplateError: it holds none that can be read.
    """
    spec = _read_spec(root)
    if spec is None:
        raise NameplateError(f"'{root}' holds no job that can be read.")
    return Job(root, spec)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock a job's folder, and make it if it does not exist.

    Raises:
        NameplateError: another run has locked it, or the folder is not a job's.
        WriteError: the folder cannot be made.
    """
    if root.is_dir() and not (root / LOCK).exists() and any(root.iterdir()):
        raise NameplateError(f"'{root}' exists and holds no job. Choose another folder.")
    with working_in(root, keep=True):  # the lock file stays, so that a killed run's folder is recognised as a job's
        yield


def remove(root: Path) -> None:
    """Delete a job's folder, job.json first: if this is interrupted, the rest is not taken for a job."""
    (root / JOB).unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)


def _listing(root: Path, shard: int) -> Path:
    return root / LISTING / f"{shard:05d}.txt"


def _freeze(root: Path, entries: Iterable[str | Refused], size: int, listed: Callable[[int], None]) -> tuple[int, str]:
    """Write the listing, `size` photos per shard, and what it leaves out.

    Returns:
        The number of photos, and the listing's SHA-256.
    """
    left_out = LeftOut()
    rest, count, digest = left_out.sift(entries), 0, hashlib.sha256(usedforsecurity=False)
    while lines := "".join(map(to_line, islice(rest, size))).encode("ascii"):
        with whole_file(_listing(root, count // size)) as temporary:
            temporary.write_bytes(lines)
        digest.update(lines)
        count += lines.count(b"\n")
        listed(count)
    if left_out.total:
        with whole_file(root / LEFT_OUT) as temporary:
            temporary.write_bytes(msgspec.json.encode(left_out.printable()) + b"\n")
    return count, digest.hexdigest()


def _clear(root: Path) -> None:
    """Delete a job's files, job.json first, and nothing else."""
    (root / JOB).unlink(missing_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    (root / LEFT_OUT).unlink(missing_ok=True)
    shutil.rmtree(root / LISTING, ignore_errors=True)
    for pattern in ("part-*", ".part-*"):
        for path in root.glob(pattern):
            path.unlink(missing_ok=True)


def _read_spec(root: Path) -> JobSpec | None:
    try:
        return msgspec.json.decode((root / JOB).read_bytes(), type=JobSpec)
    except (OSError, msgspec.DecodeError):
        return None


def _differing(before: JobSpec, now: JobSpec) -> list[str]:
    left_open = (*SET_BY_FIRST_RUN, "runtime") if now.runtime == "auto" else SET_BY_FIRST_RUN
    names = (field.name for field in fields(JobSpec) if field.name not in left_open)
    return [name for name in names if getattr(before, name) != getattr(now, name)]


def _differences(before: JobSpec, now: JobSpec) -> str:
    shown = (f"its {name} is {getattr(before, name)!r}, not {getattr(now, name)!r}" for name in _differing(before, now))
    return "; ".join(shown)


def _read_manifest(path: Path) -> list[ShardRecord]:
    """Read the manifest. Lines that are cut short or damaged are skipped: their shards are made again."""
    found = []
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=ShardRecord))
    return found


def _append(path: Path, line: bytes) -> None:
    """Append a line to the manifest, after a newline if the last line was cut short."""
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
    """Make a rename in a folder survive a power failure."""
    with suppress(OSError):  # not every system lets one open a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
