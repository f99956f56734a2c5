"""`read_dataset`: folders, tables and archives, told apart by looking → one table of labelled `Photo`s."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.datasets.archive import JUNK, Progress, Refused, unpack
from nameplate.datasets.competition import TRAIN_TABLE, find_competition, read_competition, train_photos
from nameplate.datasets.names import natural_key, read_names
from nameplate.datasets.tables import TABLE_SUFFIXES, read_table
from nameplate.errors import DataError
from nameplate.photos.formats import PHOTO_SUFFIXES, is_photo_name
from nameplate.storage import absolute, printable, sha256
from nameplate.types import Limits, Photo, SplitName

PATH_COLUMNS = ("path", "photo", "file", "filename", "file_name", "image", "image_path", "filepath", "id")
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
    excluded_paths: tuple[str, ...] = ()
    """Which these are."""


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
        raise DataError(f"No labelled photos in '{sources[0]}'.{_first_refusals(refused)}")
    everything = [photo.path for photo in photos]
    if exclude is not None:
        photos = _without(photos, Path(exclude))
    excluded = tuple(sorted(set(everything) - {photo.path for photo in photos}))
    found = {str(photo.label) for photo in photos}
    order = [*called, *sorted(found - set(called), key=natural_key)]
    ids: dict[str, str] = {}
    for id_ in order:  # the named ids first, so that a folder of the name itself does not take their place
        if id_ in found or called.get(id_) in found:
            ids.setdefault(called.get(id_, id_), id_)
    named = tuple(photo.with_(label=called.get(str(photo.label), photo.label)) for photo in photos)
    nameplates = tuple(ids) if called else tuple(sorted(ids, key=natural_key))
    kinds = tuple(part[0] for part in parts)
    return Dataset(named, nameplates, ids, refused, kinds, len(everything) - len(photos), excluded)


def read_excluded(path: Path) -> set[str]:
    """Absolute paths of the photos that a file names: a table with a path column (what `nameplate audit` writes), or
    a path a line. Relative ones are meant from the file's folder.

    Raises:
        DataError: the file cannot be read, or is a table without a path column.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        rows = read_table(path, may_be_empty=True)
        column = _column(path, rows[0], PATH_COLUMNS) if rows else ""
        named = [row[column].strip() for row in rows]
    else:
        try:
            named = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or 'it is no text'}.") from None
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


def list_photos(source: str | os.PathLike[str]) -> list[Photo]:
    """The photos behind one argument of `predict` or `identify`: a file, a folder (searched whole), a table.

    Raises:
        DataError: nothing there, or a folder without photos.
    """
    path = Path(source)
    if path.is_dir():
        path = photos_root(path)
        photos = [Photo(name, source=path.name) for name in sorted(_walk(path)) if is_photo_name(name)]
        if not photos:
            raise DataError(f"There are no photos in '{path}' ({', '.join(sorted(PHOTO_SUFFIXES))}).")
        return photos
    if path.suffix.lower() in TABLE_SUFFIXES:
        rows = read_table(path)
        column = path_column(path, rows[0])
        named = [row[column].strip() for row in rows]
        return [Photo(str(path.parent / name), source=path.name) for name in named if name]
    if path.suffix.lower() == ".zip":
        return list_photos(unpack(path, Limits())[0])
    return [Photo(str(path))]  # whether it can be read is for decoding to say


def photos_root(folder: Path) -> Path:
    """Where the photos lie that are to be named: of a competition's folder its test photos', else the folder itself."""
    competition = find_competition(folder)
    if competition is None or not _has_categories(competition):
        return folder
    return read_competition(competition).test_folder or folder


def path_column(table: Path, row: dict[str, str]) -> str:
    """The column of a table that holds the photos' paths, one of `PATH_COLUMNS`.

    Raises:
        DataError: there is none.
    """
    return _column(table, row, PATH_COLUMNS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over: hidden, or what operating systems leave."""
    return name.startswith(".") or name.casefold() in JUNK


Part = tuple[str, list[Photo], list[Refused]]


def _read_source(path: Path, limits: Limits, progress: Progress | None) -> Part:
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"There is no '{path}'.")
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
        loose = sum(is_photo_name(entry.name) for entry in os.scandir(folder))
        if loose:
            raise DataError(
                f"'{folder}' holds {loose:,} photos but no folder per nameplate: "
                "put each nameplate's photos into a folder of its name, or give a CSV with path and label."
            )
        raise DataError(f"There are no photos in the folders of '{folder}'.{_first_refusals(refused)}")
    return "folder per class", photos, refused


def _has_categories(folder: Path) -> bool:
    """Whether train.csv is a competition's and not just a table of that name."""
    return {"Id", "Category"} <= read_table(folder / TRAIN_TABLE)[0].keys()


def _is_class(folder: Path) -> bool:
    return not _subfolders(folder)


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name)]
    except OSError as error:
        raise DataError(f"Cannot list '{folder}': {error.strerror}.") from None
    return sorted(found, key=lambda path: natural_key(path.name))


def _list_class(
    folder: Path, source: str, split: SplitName | None, photos: list[Photo], refused: list[Refused]
) -> None:
    empty = True
    for name in sorted(_walk(folder)):
        if is_photo_name(name):
            photos.append(Photo(name, printable(folder.name), split, source))
            empty = False
        else:
            refused.append(Refused(name, "its name is not a photo's"))
    if empty:
        refused.append(Refused(str(folder), "a folder without photos"))


def _walk(folder: Path) -> Iterator[str]:
    """Every file below a folder, links followed once."""
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (f"{root}/{name}" for name in files if not is_hidden(name))


def _read_labelled_table(path: Path) -> Part:
    rows = read_table(path)
    column, label_column = path_column(path, rows[0]), _column(path, rows[0], LABEL_COLUMNS)
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


def _column(path: Path, row: dict[str, str], accepted: Sequence[str]) -> str:
    lowered = {name.casefold(): name for name in row}
    for name in accepted:
        if name in lowered:
            return lowered[name]
    raise DataError(
        f"'{path}' has the columns {', '.join(row)}; one must be named {', '.join(accepted[:-1])} or {accepted[-1]}."
    )


def _first_refusals(refused: Iterable[Refused]) -> str:
    reasons = Counter(entry.reason for entry in refused)
    return "".join(f" Left out: {count:,}, as {reason}." for reason, count in reasons.most_common(3))
