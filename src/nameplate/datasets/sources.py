"""`read_dataset`: folders, tables and archives, told apart by looking → one table of labelled `Photo`s."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.datasets.archive import Progress, Refused, unpack
from nameplate.datasets.competition import TRAIN_TABLE, find_competition, read_competition, train_photos
from nameplate.datasets.listing import (
    Tell,
    entries,
    in_words,
    judged,
    list_rows,
    need_column,
    pairs,
    path_column,
    walk,
)
from nameplate.datasets.names import natural_key, read_names
from nameplate.datasets.tables import TABLE_SUFFIXES, read_table
from nameplate.errors import DataError
from nameplate.photos.formats import PHOTO_SUFFIXES
from nameplate.storage import absolute, printable, read_text, sha256
from nameplate.types import Limits, Photo, SplitName

LIST_SUFFIXES = (*TABLE_SUFFIXES, ".jsonl")
"""Of lists of photos; those of labelled tables are `TABLE_SUFFIXES`."""
LABEL_COLUMNS = ("label", "class", "category", "nameplate", "target")
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled photos. `Photo.label` is the nameplate, as it is shown."""

    photos: tuple[Photo, ...]
    nameplates: tuple[str, ...]
    """The classes in their order: that of the names file, else natural order."""
    ids: dict[str, str] = field(default_factory=dict)
    """Nameplate → the class as the data calls it (a competition's Category)."""
    refused: tuple[Refused, ...] = ()
    """Files that were left out, and why."""
    kinds: tuple[str, ...] = ()
    """What each source was taken for."""
    excluded: int = 0
    """Photos that were left out because they were named to be."""


def read_dataset(
    *sources: str | os.PathLike[str],
    names: str | os.PathLike[str] | None = None,
    exclude: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read labelled photos; several sources are merged by nameplate.

    A source is a folder with a folder per class (also under train/, val/, test/), a CSV or Parquet table
    with a path and a label column (and perhaps split, source, group), the original competition's folder,
    or a zip of any folder. No photo is opened.

    Args:
        sources: paths.
        names: a file that gives class ids their names (see `read_names`).
        exclude: a file that names photos to leave out (see `read_excluded`).
        limits: what a photo in an archive may cost.
        progress: called with entries done and in all while an archive is unpacked.

    Raises:
        DataError: nothing there, nothing labelled, or not a source; says what was found instead. Or nothing that
            `exclude` names is there.
    """
    if not sources:
        raise DataError("No data named. Give a folder with one folder per nameplate, a CSV, or a zip.")
    called = read_names(Path(names)) if names is not None else {}
    parts = [_read_source(Path(source), limits or Limits(), progress) for source in sources]
    photos = [photo for part in parts for photo in part[1]]
    refused = tuple(entry for part in parts for entry in part[2])
    if not photos:
        raise DataError(f"No labelled photos in '{sources[0]}'.{in_words(refused)}", pairs(refused))
    everything = len(photos)
    if exclude is not None:
        photos = _without(photos, Path(exclude))
    found = {str(photo.label) for photo in photos}
    order = [*called, *sorted(found - set(called), key=natural_key)]
    ids: dict[str, str] = {}
    for id_ in order:  # the named ids first, so that a folder of the name itself does not take their place
        if id_ in found or called.get(id_) in found:
            ids.setdefault(called.get(id_, id_), id_)
    named = tuple(photo.with_(label=called.get(str(photo.label), photo.label)) for photo in photos)
    nameplates = tuple(ids) if called else tuple(sorted(ids, key=natural_key))
    return Dataset(named, nameplates, ids, refused, tuple(part[0] for part in parts), everything - len(photos))


def read_excluded(path: Path) -> set[str]:
    """Absolute paths of the photos that a file names: a table with a path column (what `nameplate audit` writes), or
    a path a line. Relative ones are meant from the file's folder.

    Raises:
        DataError: the file cannot be read, or is a table without a path column.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        rows = read_table(path, may_be_empty=True)
        column = path_column(path, rows[0]) if rows else ""
        named = [row[column].strip() for row in rows]
    else:
        named = [line.strip() for line in read_text(path).splitlines()]
    return {absolute(path.parent / name) for name in named if name}


def without(photos: Sequence[Photo], excluded: set[str]) -> list[Photo]:
    """Photos but those whose absolute paths are named."""
    return [photo for photo in photos if absolute(photo.path) not in excluded]


def digest(photos: Iterable[Photo]) -> str:
    """SHA-256 of what is in which part under which name, wherever the files lie; their own digests are known."""
    return sha256("\n".join(sorted(f"{photo.sha256} {photo.label} {photo.split}" for photo in photos)).encode())


def _without(photos: list[Photo], exclude: Path) -> list[Photo]:
    excluded = read_excluded(exclude)
    kept = without(photos, excluded)
    if excluded and len(kept) == len(photos):
        raise DataError(
            f"None of the {len(excluded):,} photos that '{exclude}' names is in the data; "
            f"the first photo of the data is '{absolute(photos[0].path)}'."
        )
    if not kept:
        raise DataError(f"'{exclude}' leaves out all {len(photos):,} photos.")
    return kept


def list_photos(source: str | os.PathLike[str], tell: Tell = lambda _: None) -> list[Photo]:
    """The photos behind one argument of `identify`: a file, a folder (searched whole), a table, a zip.

    Args:
        source: its path.
        tell: called with each entry that is left out, and why.

    Raises:
        DataError: nothing there, or a folder or table without photos; `left_out` of it says what was there instead.
    """
    path, left_out = Path(source), list[Refused]()
    if os.path.isdir(path):  # noqa: PTH112 - false, too, where it may not be asked
        root = photos_root(path)
        photos = _sifted(walk(str(root)), root.name, left_out)
    elif path.suffix.lower() in LIST_SUFFIXES:
        photos = [Photo(str(path.parent / name), source=path.name) for name in list_rows(path, left_out.append)]
    elif path.suffix.lower() == ".zip":
        photos = _sifted(walk_unpacked(path), path.stem, left_out)
    else:
        return [Photo(str(path))]  # whether it can be read is for decoding to say
    if not photos:
        raise no_photos(str(path), left_out)
    for entry in left_out:
        tell(entry)
    return photos


def no_photos(source: str, left_out: Sequence[Refused]) -> DataError:
    """The error of a source without photos, which says what was there instead."""
    return DataError(
        f"There are no photos in '{source}' ({', '.join(sorted(PHOTO_SUFFIXES))}).{in_words(left_out)}", pairs(left_out)
    )


def walk_unpacked(archive: Path) -> Iterator[str | Refused]:
    """What `walk` finds in an archive, unpacked into the cache, and what was refused when it was; that goes by the
    archive's name, as nobody knows the cache's folders.

    Raises:
        DataError: it cannot be read.
    """
    folder, refused = unpack(archive, Limits())
    yield from refused
    for entry in walk(str(photos_root(folder))):
        if isinstance(entry, str):
            yield entry
        elif entry.name != str(folder / "refused.json"):  # `unpack`'s own
            yield Refused(f"{archive}::{os.path.relpath(entry.name, folder)}", entry.reason)


def _sifted(entries_: Iterable[str | Refused], source: str, left_out: list[Refused]) -> list[Photo]:
    photos = []
    for entry in entries_:
        if isinstance(entry, Refused):
            left_out.append(entry)
        else:
            photos.append(Photo(entry, source=source))
    return photos


def photos_root(folder: Path) -> Path:
    """Where the photos lie that are to be named: of a competition's folder its test photos', else the folder itself."""
    competition = find_competition(folder)
    if competition is None or not _has_categories(competition):
        return folder
    return read_competition(competition).test_folder or folder


Part = tuple[str, list[Photo], list[Refused]]


def _read_source(path: Path, limits: Limits, progress: Progress | None) -> Part:
    if os.path.isdir(path):  # noqa: PTH112 - false, too, where it may not be asked
        return _read_folder(path)
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"There is no '{path}'.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from None
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return _read_labelled_table(path)
    if suffix == ".zip":
        folder, refused = unpack(path, limits, progress=progress)
        kind, photos, more = _read_folder(folder, title=path.stem)
        return f"zip: {kind}", photos, [*refused, *more]
    raise DataError(
        f"'{path}' is no data set: give a folder with one folder per nameplate, "
        "a CSV or Parquet table with path and label columns, or a zip of either."
    )


def _read_folder(folder: Path, title: str | None = None) -> Part:
    competition = find_competition(folder)
    if competition is not None:
        if _has_categories(competition):
            return ("competition", *train_photos(read_competition(competition)))
        return _read_labelled_table(competition / TRAIN_TABLE)
    if (reason := entries(folder).reason) is not None:
        raise DataError(f"There are no photos to reach in '{folder}': {reason}.")
    classes = _subfolders(folder)
    if len(classes) == 1 and not _is_class(classes[0]) and classes[0].name.casefold() not in SPLIT_FOLDERS:
        # a zip's single top folder
        return _read_folder(classes[0], title)
    source = title or folder.resolve().name
    splits = {entry: SPLIT_FOLDERS.get(entry.name.casefold()) for entry in classes}
    photos: list[Photo] = []
    refused: list[Refused] = []
    if classes and all(splits.values()) and any(_subfolders(entry) for entry in classes):
        for entry, split in splits.items():
            for class_ in _subfolders(entry):
                _list_class(class_, source, split, photos, refused)
        return "folder per class, in parts", photos, refused
    for class_ in classes:
        _list_class(class_, source, None, photos, refused)
    if not photos:
        loose = sum(isinstance(judged(f"{folder}/{name}"), str) for name in entries(folder).files)
        if loose:
            raise DataError(
                f"'{folder}' holds {loose:,} photos but no folder per nameplate: "
                "put each nameplate's photos into a folder of its name, or give a CSV with path and label."
            )
        raise DataError(f"There are no photos in the folders of '{folder}'.{in_words(refused)}", pairs(refused))
    return "folder per class", photos, refused


def _has_categories(folder: Path) -> bool:
    """Whether train.csv is a competition's and not just a table of that name."""
    return {"Id", "Category"} <= read_table(folder / TRAIN_TABLE)[0].keys()


def _is_class(folder: Path) -> bool:
    return not _subfolders(folder)


def _subfolders(folder: Path) -> list[Path]:
    return sorted((folder / name for name in entries(folder).folders), key=lambda path: natural_key(path.name))


def _list_class(
    folder: Path, source: str, split: SplitName | None, photos: list[Photo], refused: list[Refused]
) -> None:
    before = len(photos), len(refused)
    for entry in walk(str(folder)):
        if isinstance(entry, Refused):
            refused.append(entry)
        else:
            photos.append(Photo(entry, printable(folder.name), split, source))
    if len(photos) == before[0] and not any(entry.name == str(folder) for entry in refused[before[1] :]):
        refused.append(Refused(str(folder), "a folder without photos"))


def _read_labelled_table(path: Path) -> Part:
    rows = read_table(path)
    column, label_column = path_column(path, rows[0]), need_column(path, rows[0], LABEL_COLUMNS)
    photos: dict[str, Photo] = {}
    refused: list[Refused] = []
    for number, row in enumerate(rows, start=2):
        name, label = row[column].strip(), row[label_column].strip()
        if not name or not label:
            refused.append(Refused(name or f"row {number}", f"row {number} of '{path.name}' has no path or no label"))
            continue
        split = row.get("split", "").strip().casefold()
        if split and split not in SPLIT_FOLDERS:
            raise DataError(f"'{path}', row {number}: split '{split}' is none of {', '.join(SPLIT_FOLDERS)}.")
        photo = Photo(
            str(path.parent / name),
            label,
            SPLIT_FOLDERS.get(split),
            row.get("source") or path.stem,
            row.get("group") or None,
        )
        known = photos.setdefault(photo.path, photo)
        if known.label != label:
            refused.append(Refused(name, f"listed as '{known.label}' and again, in row {number}, as '{label}'"))
    kind = f"table with {column} and {label_column}"
    return kind, list(photos.values()), refused
