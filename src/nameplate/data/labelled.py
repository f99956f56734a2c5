"""Tables of labelled photos: a path and a label in each row, and optionally split, source and group."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.data.archive import Refused
from nameplate.data.labels import natural_key
from nameplate.data.layouts import SPLIT_WORDS, split_of
from nameplate.data.listing import PATH_COLUMNS, need_column, path_column
from nameplate.data.tables import photo_path, read_table
from nameplate.errors import DataError
from nameplate.storage import nfc
from nameplate.types import Photo, SplitName

LABEL_COLUMNS = ("label", "class", "category", "nameplate", "target")
USED_COLUMNS = frozenset({*PATH_COLUMNS, *LABEL_COLUMNS, "split", "source", "group"})
"""Columns that are read from a labelled table."""
MISSING = frozenset(
    {"", "#n/a", "#n/a n/a", "#na", "<na>", "n/a", "na", "nan", "-nan", "nat", "none", "null", "1.#ind", "1.#qnan"}
)
"""Cells that count as empty, in lower case: the words that pandas reads and writes for a missing value."""


@dataclass(slots=True)
class Source:
    """The content of one source, with the labels as they are written there."""

    kind: str
    photos: list[Photo]
    refused: list[Refused]
    notes: list[str] = field(default_factory=list)


def read_labelled_table(path: Path) -> Source:
    """Read a labelled table: CSV, Parquet, or JSON Lines.

    Raises:
        DataError: it cannot be read, lacks a column, or a cell of its split is none.
    """
    rows = read_table(path, wanted=USED_COLUMNS)
    lines = path.suffix.lower() == ".jsonl"  # each row has keys of its own
    columns = {name: "" for row in rows for name in row} if lines else rows[0]
    column, label_column = path_column(path, columns), need_column(path, columns, LABEL_COLUMNS)
    lowered = {name.casefold(): name for name in columns}
    split, source, group = (lowered.get(name, "") for name in ("split", "source", "group"))
    found = Source(f"table with {column} and {label_column}", [], [])
    labels: dict[str, str] = {}
    contradictory: set[str] = set()
    for number, row in enumerate(rows, start=1 if lines else 2):
        name, label = row.get(column, "").strip(), row.get(label_column, "")
        if says_nothing(name) or says_nothing(label):
            found.refused.append(_without_label(path, number, name, label.strip()))
            continue
        photo = Photo(
            on_disk(photo_path(path, name)),
            label,
            _split(path, number, row.get(split, "")),
            _said(row.get(source)) or path.stem,
            _said(row.get(group)),
        )
        found.photos.append(photo)
        label, first = nfc(label).strip(), labels.setdefault(photo.path, nfc(label).strip())
        if label != first and photo.path not in contradictory:
            contradictory.add(photo.path)
            found.refused.append(Refused(name, f"listed as '{first}' and again, in row {number}, as '{label}'"))
    found.photos = [photo for photo in found.photos if photo.path not in contradictory]
    _as_whole_numbers(path, found)
    return found


def says_nothing(cell: str) -> bool:
    return cell.strip().casefold() in MISSING


def _said(cell: str | None) -> str | None:
    return None if cell is None or says_nothing(cell) else cell


def _split(path: Path, number: int, cell: str) -> SplitName | None:
    split = split_of(cell)
    if split is None and not says_nothing(cell):
        words = ", ".join(SPLIT_WORDS)
        raise DataError(f"'{path}', row {number}: split '{cell.strip().casefold()}' is none of {words}.")
    return split


def _without_label(path: Path, number: int, name: str, label: str) -> Refused:
    stands = "".join(f"; '{cell}' stands for none" for cell in (name, label) if cell and says_nothing(cell))
    shown = f"row {number}" if says_nothing(name) else name
    return Refused(shown, f"row {number} of '{path.name}' has no path or no label{stands}")


def _as_whole_numbers(path: Path, found: Source) -> None:
    """Turn labels such as `1.0` into integers where all labels are of this form.

    pandas writes the integers of a column with gaps as fractions.
    """
    labels = {str(photo.label).strip() for photo in found.photos}
    if labels and all(re.fullmatch(r"\d+\.0+", label, re.ASCII) for label in labels):
        found.photos = [photo.with_(label=str(photo.label).strip().partition(".")[0]) for photo in found.photos]
        example = min(labels, key=natural_key)
        found.notes.append(f"'{path}': its labels are whole numbers, and '{example}' is read as such.")


def on_disk(name: str) -> str:
    """A path from a table, in the Unicode form of the disk: macOS writes names in NFD."""
    if name.isascii() or os.path.lexists(name):
        return name
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(form)), name)
