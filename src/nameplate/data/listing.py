"""Listing the photos below a folder or in a table, and everything that is left out, each with its reason.

Every command uses this module, so that all of them find the same photos. Hidden files and those in `JUNK` are ignored
without a message; every other file that is no photo is yielded as a `Refused`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.data.archive import JUNK, Refused
from nameplate.data.tables import stream_table
from nameplate.errors import DataError
from nameplate.images.formats import SNIFFED, image_format, is_photo_name
from nameplate.storage import NotRegularError, open_regular, printable

PATH_COLUMNS = ("path", "photo", "file", "filename", "file_name", "image", "image_path", "filepath", "id")
"""Columns of a table that may contain the paths of photos. The first of them that exists is used."""
KEPT = 1_000
"""Number of entries that a `LeftOut` keeps by name; further ones are only counted."""
KINDS = 100
"""Number of different reasons that a `LeftOut` counts."""
NO_PHOTO = "it is no photo, by its name or by its first bytes"
CIRCLE = "a link in a circle: it leads to a folder that holds it"
LISTED = "a link to a folder that another link led to already"

Tell = Callable[[Refused], None]
"""Callback for each entry that is left out."""


@dataclass(slots=True)
class LeftOut:
    """Entries that were left out, in bounded memory: the first of them, and the number of each reason."""

    first: list[Refused] = field(default_factory=list)
    total: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, entry: Refused) -> None:
        """Count an entry, and keep it if it is one of the first `KEPT`."""
        self.total += 1
        if len(self.first) < KEPT:
            self.first.append(entry)
        if entry.reason in self.reasons or len(self.reasons) < KINDS:
            self.reasons[entry.reason] = self.reasons.get(entry.reason, 0) + 1

    def sift(self, entries: Iterable[str | Refused]) -> Iterator[str]:
        """Yield the photos only; what is left out among them is added here."""
        for entry in entries:
            if isinstance(entry, Refused):
                self.add(entry)
            else:
                yield entry

    def printable(self) -> LeftOut:
        """A copy whose names and reasons can be written anywhere; see `storage.printable`."""
        first = [Refused(printable(entry.name), printable(entry.reason)) for entry in self.first]
        return LeftOut(first, self.total, {printable(reason): count for reason, count in self.reasons.items()})


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one folder without hidden ones and junk, in byte order of the names."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    """Everything that is no folder, including broken links and devices."""
    reason: str | None = None
    """Why the folder cannot be listed; None where it can be."""

    @property
    def names(self) -> list[str]:
        """All names. Folders end with `/`, so that they sort as the paths of their content do."""
        return sorted((*(f"{name}/" for name in self.folders), *self.files), key=os.fsencode)


@dataclass(slots=True)
class _Open:
    """A folder that `walk` is in."""

    path: str
    names: Iterator[str]
    key: tuple[int, int]
    linked: bool
    """Whether this folder, or one above it, was reached by a link."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is ignored, because it is hidden or in `JUNK`."""
    return name.startswith(".") or name.casefold() in JUNK


def entries(folder: str | os.PathLike[str]) -> Entries:
    """List one folder. A folder that cannot be read is empty, with the reason."""
    folders, files = list[str](), list[str]()
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not is_hidden(entry.name):
                    (folders if _is_folder(entry) else files).append(entry.name)
    except (OSError, ValueError) as error:
        return Entries((), (), f"its folder cannot be listed: {_words(error)}")
    return Entries(tuple(sorted(folders, key=os.fsencode)), tuple(sorted(files, key=os.fsencode)))


def walk(folder: str, passing_over: Collection[str] = ()) -> Iterator[str | Refused]:
    """Yield every photo below a folder, and a `Refused` for every other file, in byte order of the paths.

    A file is a photo by its name or, failing that, by its first bytes. Links are followed, but never in a circle, and
    inside a folder that was reached by a link no folder is entered twice. So the walk ends whatever links there are. In
    memory is one listing for each level.

    Args:
        folder: searched recursively.
        passing_over: folders that are ignored without a message, since the command writes them itself.
    """
    apart = {key for path in passing_over if (key := _identity(path)) is not None}
    entered: set[tuple[int, int]] = set()  # Only folders inside those that were reached by links.
    root = _opened(folder, linked=False)
    if isinstance(root, Refused):
        yield root
        return
    way, above = [root], _above(folder)
    while way:
        here = way[-1]
        name = next(here.names, None)
        if name is None:
            way.pop()
            continue
        path = f"{here.path.rstrip('/')}/{name}"
        if not name.endswith("/"):
            yield photo_or_refused(path)
            continue
        # A folder that contains this one is a circle. `way` holds those that were entered on the way, `above` those
        # above the root.
        below = _step(path[:-1], here, above | {each.key for each in way}, entered)
        if isinstance(below, Refused):
            yield below
        elif below.key not in apart:
            way.append(below)


def _above(folder: str) -> set[tuple[int, int]]:
    """The identities of the folders that contain this one."""
    parents = Path(os.path.realpath(folder)).parents
    return {key for parent in parents if (key := _identity(str(parent))) is not None}


def _step(path: str, here: _Open, above: set[tuple[int, int]], entered: set[tuple[int, int]]) -> _Open | Refused:
    """Open a subfolder, or say why it is not entered."""
    is_link = os.path.islink(path)  # noqa: PTH114 - a million names
    below = _opened(path, linked=here.linked or is_link)
    if isinstance(below, Refused):
        return below
    if below.key in above:
        return Refused(path, CIRCLE)
    # Outside linked folders a link may lead to a folder that is listed elsewhere, too: the user has put it there.
    if is_link and here.linked:
        if below.key in entered:
            return Refused(path, LISTED)
        entered.add(below.key)
    return below


def _opened(path: str, *, linked: bool) -> _Open | Refused:
    key = _identity(path)
    found = entries(path)
    if found.reason is not None or key is None:
        return Refused(path, found.reason or "its folder cannot be listed: it is gone")
    return _Open(path, iter(found.names), key, linked)


def photo_or_refused(path: str) -> str | Refused:
    """Return the path where it is a photo by its name or its first bytes, or else why it is left out.

    A file with the name of a photo is not opened, since decoding decides whether it can be read.
    """
    if is_photo_name(path):
        return path
    try:
        with open_regular(path) as file:
            return path if image_format(file.read(SNIFFED)) is not None else Refused(path, NO_PHOTO)
    except (OSError, ValueError) as error:
        return Refused(path, _unopened(path, error))


def list_rows(table: Path, tell: Tell) -> Iterator[str]:
    """Yield the photos that a table (CSV, Parquet, JSON Lines) names, as they are written there.

    A row without a name is left out and passed to `tell` with its number. Row 1 is the header in CSV and Parquet, and
    the first object in JSON Lines.

    Raises:
        DataError: the table cannot be read, or has no column of `PATH_COLUMNS`.
    """
    lines = table.suffix.lower() == ".jsonl"  # each row has keys of its own
    column = ""
    for number, row in enumerate(stream_table(table, wanted=PATH_COLUMNS), start=1 if lines else 2):
        if lines:
            column = find_column(row, PATH_COLUMNS) or ""
        column = column or ("" if lines else path_column(table, row))
        if name := row.get(column, "").strip():
            yield name
        else:
            tell(Refused(f"{table}, row {number}", f"it has no {column or 'path'}"))


def path_column(table: Path, row: dict[str, str]) -> str:
    """The column of a table that contains the paths of photos, one of `PATH_COLUMNS`.

    Raises:
        DataError: the table has none of them.
    """
    return need_column(table, row, PATH_COLUMNS)


def need_column(table: Path, row: dict[str, str], accepted: Sequence[str]) -> str:
    """The first of the accepted columns that a row has.

    Raises:
        DataError: the row has none of them.
    """
    found = find_column(row, accepted)
    if found is None:
        one = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
        raise DataError(f"'{table}' has the columns {', '.join(row)}; one must be named {one}.")
    return found


def find_column(row: dict[str, str], accepted: Sequence[str]) -> str | None:
    """The first of the accepted columns that a row has, in upper or lower case; None where it has none."""
    lowered = {name.casefold(): name for name in row}
    return next((lowered[name] for name in accepted if name in lowered), None)


def pairs(refused: Iterable[Refused]) -> list[tuple[str, str]]:
    """(name, reason) of each entry, as `DataError.left_out` holds them."""
    return [(entry.name, entry.reason) for entry in refused]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # For example a link to itself; opening it gives the reason.
        return False


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - as above
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _unopened(path: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if isinstance(error, FileNotFoundError) and os.path.islink(path):  # noqa: PTH114
        return "a link to nothing"
    return _words(error) if isinstance(error, NotRegularError) else f"it cannot be opened: {_words(error)}"


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
