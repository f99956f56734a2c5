"""Folders whose photos are listed in files, as other tools write them: Hugging Face's `metadata.csv`, JSON, shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nameplate.data.exports import EXPORT_NAMES, Export, located, read_export
from nameplate.data.labelled import LABEL_COLUMNS, USED_COLUMNS, Source, read_labelled_table
from nameplate.data.layouts import split_of
from nameplate.data.listing import PATH_COLUMNS, entries, find_column
from nameplate.data.tables import stream_table
from nameplate.errors import DataError
from nameplate.types import Photo, SplitName

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of the table of an ImageFolder: https://huggingface.co/docs/datasets/image_dataset."""
COCO_FOLDER = "annotations"
"""The folder in which COCO keeps its files."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A file that lists photos, and the part of the data set that it lies in."""

    file: Path
    split: SplitName | None
    export: Export | None = None
    """What it says, if it is JSON; None of a table."""


def find_listings(folder: Path) -> list[Listing]:
    """The files that list a folder's photos with their labels; none where folders say what the photos show.

    They lie in the folder or in its parts (`train`, `valid`, `test`). A `metadata` table comes before JSON.

    Raises:
        DataError: such a file cannot be read.
    """
    inside = entries(folder)
    places = [(folder, None), *((folder / name, split) for name in inside.folders if (split := split_of(name)))]
    tables = [Listing(place / name, split) for place, split in places for name in METADATA if _is_file(place / name)]
    if found := [each for each in tables if _has_labels(each.file)]:
        return found
    files = [(place / name, split) for place, split in places for name in EXPORT_NAMES]
    if COCO_FOLDER in inside.folders:
        names = entries(folder / COCO_FOLDER).files
        files += [(folder / COCO_FOLDER / name, None) for name in names if name.endswith(".json")]
    read = [Listing(file, split, read_export(file)) for file, split in files if _is_file(file)]
    return [each for each in read if each.export is not None]


def read_listings(listings: Iterable[Listing]) -> Source:
    """The labelled photos of such files, as one source.

    Raises:
        DataError: a file cannot be read, or none of the photos that it lists is there.
    """
    return _joined(_read_listing(each) for each in listings)


def read_shards(files: Iterable[Path]) -> Source:
    """The labelled photos of a table in several Parquet files, such as `data/train-00000-of-00002.parquet`.

    The first word of a file's name, or the name of a folder above it, is its part of the data set.

    Raises:
        DataError: a file cannot be read or lacks the columns.
    """

    def read(file: Path) -> Source:
        words = [file.name.split("-")[0].split(".")[0], *(parent.name for parent in list(file.parents)[:2])]
        part = next((split for word in words if (split := split_of(word))), None)
        return _in_parts(read_labelled_table(file), lambda _: part)

    return _joined((read(file) for file in sorted(files)), lambda count: f"{count} Parquet file{'s' * (count > 1)}")


def read_json(file: Path) -> Source:
    """The labelled photos that an export in JSON lists.

    Raises:
        DataError: it cannot be read or is of no known form, or none of its photos is there.
    """
    export = read_export(file)
    if export is None:
        raise DataError(f"'{file}' is no export of COCO, FiftyOne or Label Studio, which are the forms of JSON known.")
    return _of_export(export, file)


def _of_export(export: Export, file: Path) -> Source:
    photos, refused = located(export, file)
    if not photos:
        more = f" The first: '{refused[0].name}': {refused[0].reason}." if refused else ""
        raise DataError(f"None of the {len(export.rows):,} photos of '{file}' can be used.{more}")
    return Source(f"{export.kind} in {file.name}", photos, refused)


def _read_listing(listing: Listing) -> Source:
    if listing.export is not None:
        return _in_parts(_of_export(listing.export, listing.file), lambda _: listing.split)
    folder = listing.file.parent
    # The folders of an ImageFolder are its parts, where its one table lies above them.
    return _in_parts(
        read_labelled_table(listing.file),
        lambda photo: listing.split or split_of(Path(os.path.relpath(photo.path, folder)).parts[0]),
    )


def _in_parts(found: Source, part_of: Callable[[Photo], SplitName | None]) -> Source:
    """The photos with their parts, which those keep that have one already."""
    found.photos = [photo if photo.split else photo.with_(split=part_of(photo)) for photo in found.photos]
    return found


def _joined(sources: Iterable[Source], kind: Callable[[int], str] | None = None) -> Source:
    every = list(sources)
    return Source(
        kind(len(every)) if kind else ", ".join(dict.fromkeys(each.kind for each in every)),
        [photo for each in every for photo in each.photos],
        [entry for each in every for entry in each.refused],
        [note for each in every for note in each.notes],
    )


def _has_labels(table: Path) -> bool:
    """Whether a table has a path and a label column; ImageFolders have others for captions and boxes."""
    rows: Iterator[dict[str, str]] = stream_table(table, wanted=USED_COLUMNS)
    first = next(rows, {})
    return all(find_column(first, columns) is not None for columns in (PATH_COLUMNS, LABEL_COLUMNS))


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - false, too, where it may not be asked
