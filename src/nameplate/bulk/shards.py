"""Archives of photos, read in place: `shard.zip::photos/a.jpg`, also in .tar, .tar.gz and .tgz.

Nothing is unpacked to disk. A zip's entry is inflated no further than it may be; a tar's lies as it is, and a
compressed tar is read in order, as a stream.
"""

from __future__ import annotations

import os
import re
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

from nameplate.datasets.archive import ArchiveLimits, Refused, is_junk, refusal
from nameplate.datasets.listing import is_hidden
from nameplate.errors import DataError, PhotoError
from nameplate.photos.formats import is_photo_name
from nameplate.types import Limits

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
STREAMED = (".tar.gz", ".tgz")
"""These can only be read from their beginning."""
OPEN = 4
"""Archives that are held open, each with its table of contents."""
_MEMBER = re.compile(r"(?P<shard>.*?\.(?:zip|tar|tar\.gz|tgz))::(?P<name>.+)", re.IGNORECASE | re.DOTALL)
NO_PHOTO_NAME = "its name is not a photo's"
_LIMITS = ArchiveLimits()
_opening = threading.Lock()


def is_shard(source: str) -> bool:
    """Whether a name is an archive's."""
    return source.lower().endswith(SUFFIXES)


def is_member(reference: str) -> bool:
    """Whether a reference names a member of an archive."""
    return _MEMBER.fullmatch(reference) is not None


def is_streamed(reference: str) -> bool:
    """Whether it names a member of an archive that can only be read in order."""
    return split(reference)[0].lower().endswith(STREAMED)


def split(reference: str) -> tuple[str, str]:
    """The archive and the member's name."""
    found = _MEMBER.fullmatch(reference)
    if found is None:
        raise ValueError(f"{reference!r} names no member of an archive")
    return found["shard"], found["name"]


def is_nested(source: str) -> bool:
    """Whether a zip holds archives or a competition's table; those are for `datasets.archive` to unpack.

    Raises:
        DataError: it cannot be read.
    """
    if not source.lower().endswith(".zip"):
        return False
    with _open_zip(source) as archive:
        names = (entry.filename.lower() for entry in archive.infolist() if not is_junk(entry.filename))
        return any(name.endswith(".zip") or name.rpartition("/")[2] == "train.csv" for name in names)


def list_members(source: str) -> Iterator[str | Refused]:
    """References to an archive's photos, in its order, and a `Refused` for each member that is none by its name; what
    is refused of the photos is for reading to say.

    Raises:
        DataError: it cannot be read, or holds more entries or bytes than an archive may.
    """
    total = 0
    for number, (name, size) in enumerate(_members(source), start=1):
        total += size
        if number > _LIMITS.entries or total > _LIMITS.bytes:
            raise DataError(
                f"'{source}' holds more than {_LIMITS.entries:,} entries or {_LIMITS.bytes:,} bytes. Split it."
            )
        if is_junk(name) or is_hidden(name.rpartition("/")[2]):
            continue
        yield f"{source}::{name}" if is_photo_name(name) else Refused(f"{source}::{name}", NO_PHOTO_NAME)


def _members(source: str) -> Iterator[tuple[str, int]]:
    if source.lower().endswith(".zip"):
        with _open_zip(source) as archive:
            yield from ((entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir())
        return
    try:
        with tarfile.open(source, "r|*" if source.lower().endswith(STREAMED) else "r:") as archive:
            for entry in archive:
                archive.members = []  # type: ignore[attr-defined] # else it keeps them all
                if entry.isreg():
                    yield entry.name, entry.size
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"Cannot read the archive '{source}': {error}.") from None


def read_member(reference: str, limits: Limits) -> bytes:
    """A member's bytes, from any thread.

    Raises:
        PhotoError: missing, refused, damaged or too large.
    """
    shard, name = split(reference)
    try:
        if shard.lower().endswith(".zip"):
            return _from_zip(shard, name, limits)
        if shard.lower().endswith(".tar"):
            return _from_tar(shard, name, limits)
        return MemberStream(limits).read(reference)
    except DataError as error:
        raise PhotoError("missing", str(error)) from None
    except OSError as error:
        raise PhotoError("missing", f"cannot read '{shard}': {error.strerror or error}") from None


def _from_zip(shard: str, name: str, limits: Limits) -> bytes:
    archive = _zips(shard)
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise PhotoError("missing", f"there is no '{name}' in '{shard}'") from None
    if reason := refusal(entry, limits, _LIMITS, inner=False):
        raise PhotoError("too large" if reason.startswith("it unpacks to") else "not a photo", reason)
    try:
        with archive.open(entry) as file:
            data = file.read(entry.file_size + 1)  # a plain read() would inflate what the size denies
    except Exception as error:  # zipfile and zlib raise all sorts on hostile bytes
        raise PhotoError("damaged", f"in '{shard}': {error or type(error).__name__}") from None
    return _whole(data, entry.file_size)


def _from_tar(shard: str, name: str, limits: Limits) -> bytes:
    archive = _tars(shard)
    if name not in archive.places:
        raise PhotoError("missing", f"there is no '{name}' in '{shard}'")
    start, size = archive.places[name]
    _check_size(size, limits)
    return _whole(os.pread(archive.file, size, start), size)


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.bytes:
        raise PhotoError("too large", f"{size:,} bytes, the limit is {limits.bytes:,}")


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise PhotoError("damaged", f"it claims {size:,} bytes and has {len(data):,}")
    if not data:
        raise PhotoError("empty", "the file has no bytes")
    return data


def _open_zip(source: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except Exception as error:  # as above
        raise DataError(f"Cannot read the archive '{source}': {error}.") from None


@lru_cache(OPEN)
def _opened_zip(shard: str, _changed: tuple[int, int]) -> zipfile.ZipFile:
    return _open_zip(shard)


class _Tar:
    """An uncompressed tar, open, and where in it each member lies; the last of a name counts, as tar has it."""

    def __init__(self, shard: str) -> None:
        try:
            with tarfile.open(shard, "r:") as archive:
                self.places = {entry.name: (entry.offset_data, entry.size) for entry in archive if entry.isreg()}
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"Cannot read the archive '{shard}': {error}.") from None
        self.file = os.open(shard, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


@lru_cache(OPEN)
def _opened_tar(shard: str, _changed: tuple[int, int]) -> _Tar:
    return _Tar(shard)


def _zips(shard: str) -> zipfile.ZipFile:
    with _opening:  # else several threads would open it at once
        return _opened_zip(*_as_it_is(shard))


def _tars(shard: str) -> _Tar:
    with _opening:
        return _opened_tar(*_as_it_is(shard))


def _as_it_is(shard: str) -> tuple[str, tuple[int, int]]:
    """What tells an archive from the one that was in its place before."""
    status = os.stat(shard)  # noqa: PTH116 - for each photo
    return os.path.abspath(shard), (status.st_mtime_ns, status.st_size)  # noqa: PTH100


class MemberStream:
    """Reads members of compressed tars in their order; one that comes before the last is read from the beginning."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shard = ""
        self._archive: tarfile.TarFile | None = None

    def source(self, reference: str) -> Callable[[], bytes]:
        """What gives a member's bytes, or the PhotoError that it is; read now, since the next comes after it."""
        try:
            return partial(bytes, self.read(reference))
        except PhotoError as error:
            return partial(_refuse, error)

    def read(self, reference: str) -> bytes:
        """A member's bytes.

        Raises:
            PhotoError: missing, damaged or too large.
        """
        shard, name = split(reference)
        try:
            ahead = self._archive is not None and shard == self._shard
            return self._find(name) if ahead and self._archive else self._reopened(shard, name)
        except KeyError:
            self.close()
            if ahead:
                return self.read(reference)
            raise PhotoError("missing", f"there is no '{name}' in '{shard}'") from None
        except (FileNotFoundError, PermissionError) as error:
            raise PhotoError("missing", f"cannot read '{shard}': {error.strerror}") from None
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            self.close()
            raise PhotoError("damaged", f"cannot read '{shard}': {error}") from None

    def close(self) -> None:
        """Let go of the archive."""
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _reopened(self, shard: str, name: str) -> bytes:
        self.close()
        self._shard, self._archive = shard, tarfile.open(shard, "r|*")  # noqa: SIM115 - closed by `close`
        return self._find(name)

    def _find(self, name: str) -> bytes:
        archive = self._archive
        while archive is not None and (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # else it keeps them all
            if entry.name == name and entry.isreg():
                _check_size(entry.size, self._limits)
                file = archive.extractfile(entry)
                return _whole(file.read() if file is not None else b"", entry.size)
        raise KeyError(name)


def _refuse(error: PhotoError) -> bytes:
    raise error
