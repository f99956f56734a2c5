"""The lists by which a user cleans data: photos to leave out (`excluding`) and photos to relabel (`relabelled`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nameplate.data.labelled import LABEL_COLUMNS, says_nothing
from nameplate.data.labels import count_of, few, natural_key
from nameplate.data.listing import need_column, path_column
from nameplate.data.tables import TABLE_SUFFIXES, read_table
from nameplate.errors import DataError
from nameplate.storage import absolute, nfc, read_text
from nameplate.types import Photo

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset


def read_excluded(path: Path) -> set[str]:
    """Read the paths of the photos that a file excludes.

    The file is a table with a path column (as `nameplate audit` writes it), or has one path on each line. Relative
    paths start at the folder of the file.

    Returns:
        Absolute paths in Unicode NFC.

    Raises:
        DataError: the file cannot be read, or is a table without a path column.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        rows = read_table(path, may_be_empty=True)
        column = path_column(path, rows[0]) if rows else ""
        named = [row[column].strip() for row in rows]
    else:
        named = [line.strip() for line in read_text(path).splitlines()]
    return {nfc(absolute(path.parent / name)) for name in named if name}


def excluding(photos: list[Photo], exclude: Path) -> tuple[list[Photo], list[str]]:
    """The photos that a file does not exclude, and notes on what it names besides.

    Args:
        photos: photos of the data.
        exclude: see `read_excluded`.

    Raises:
        DataError: see `read_excluded`; or none of the photos is in the data, or all of them are excluded.
    """
    excluded = read_excluded(exclude)
    kept = without(photos, excluded)
    if excluded and len(kept) == len(photos):
        raise DataError(
            f"None of the {len(excluded):,} photos that '{exclude}' names is in the data; "
            f"the first photo of the data is '{absolute(photos[0].path)}'."
        )
    if not kept:
        raise DataError(f"'{exclude}' leaves out all {len(photos):,} photos.")
    return kept, not_there(excluded, exclude, photos)


def without(photos: Sequence[Photo], excluded: set[str]) -> list[Photo]:
    """The photos whose absolute paths are not in `excluded`, which is what `read_excluded` returns."""
    return [photo for photo in photos if nfc(absolute(photo.path)) not in excluded]


def not_there(excluded: set[str], exclude: Path, *parts: Sequence[Photo]) -> list[str]:
    """A note on excluded photos that are in none of `parts`; empty where all of them are in the data."""
    missing = excluded - {nfc(absolute(photo.path)) for photos in parts for photo in photos}
    if not missing:
        return []
    which = few(missing)
    return [
        f"'{exclude}': {len(missing):,} of the {len(excluded):,} photos that it names are not in the data ({which})."
    ]


def read_relabelled(path: Path) -> dict[str, str]:
    """Read the new labels of photos.

    The file is a table with a path and a label column, as `nameplate audit --serve` writes it. Relative paths start at
    the folder of the file.

    Returns:
        Absolute path in Unicode NFC → label.

    Raises:
        DataError: the file cannot be read, lacks a column, or gives one photo two labels.
    """
    rows = read_table(path, may_be_empty=True)
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, label = row[path_column(path, row)].strip(), row[need_column(path, row, LABEL_COLUMNS)]
        if says_nothing(name) or says_nothing(label):
            raise DataError(f"'{path}', row {number}: there is no path or no label.")
        key, label = nfc(absolute(path.parent / name)), nfc(label).strip()
        if found.setdefault(key, label) != label:
            raise DataError(f"'{path}', row {number}: '{name}' is '{label}' here and '{found[key]}' in a row before.")
    return found


def relabelled(dataset: Dataset, relabel: Path) -> Dataset:
    """A data set in which the photos that a table names have its labels; a nameplate that loses all photos goes.

    Args:
        dataset: the labelled photos.
        relabel: see `read_relabelled`; a label is a nameplate of the data, or its id.

    Raises:
        DataError: see `read_relabelled`; or a label is no nameplate of the data, or none of the photos is in the data.
    """
    labels = read_relabelled(relabel)
    known = {nfc(id_): name for name, id_ in dataset.ids.items()} | {nfc(name): name for name in dataset.nameplates}
    strange = sorted({label for label in labels.values() if label not in known}, key=natural_key)
    if strange:
        raise DataError(f"'{relabel}': {few(strange)} is no nameplate of the data ({few(dataset.nameplates)}).")
    new = [labels.get(nfc(absolute(photo.path))) for photo in dataset.photos]
    changed = sum(label is not None for label in new)
    gone = len(labels.keys() - set(map(nfc, dataset.excluded_paths))) - changed
    if labels and not changed and gone:
        raise DataError(
            f"None of the {len(labels):,} photos that '{relabel}' names is in the data; "
            f"the first photo of the data is '{absolute(dataset.photos[0].path)}'."
        )
    photos = tuple(
        photo if label is None else photo.with_(label=known[label])
        for photo, label in zip(dataset.photos, new, strict=True)
    )
    there = {photo.label for photo in photos}
    nameplates = tuple(name for name in dataset.nameplates if name in there)
    notes = [f"'{relabel}': {count_of(changed, 'photo')} relabelled."] * (changed > 0)
    notes += [f"'{relabel}': {count_of(gone, 'photo')} named there and not in the data."] * (gone > 0)
    ids = {name: dataset.ids[name] for name in nameplates}
    return replace(dataset, photos=photos, nameplates=nameplates, ids=ids, notes=(*dataset.notes, *notes))
