"""`read_dataset` reads labelled photos from folders, tables and archives; `list_photos` lists photos without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nameplate.data.archive import (
    REPORT,
    ArchiveLimits,
    Refused,
    UnpackProgress,
    archive_stem,
    first_reasons,
    is_archive,
    speaking_of,
    unpack,
)
from nameplate.data.cleaning import excluding, relabelled
from nameplate.data.kaggle import TRAIN_TABLE, find_competition, read_competition, train_photos
from nameplate.data.labelled import Source, on_disk, read_labelled_table
from nameplate.data.labels import as_labelled, count_of, ids_of, matched, natural_key, on_names, once, read_names
from nameplate.data.layouts import Folder, check_layout, read_layout, tree
from nameplate.data.listing import Tell, entries, list_rows, pairs, walk
from nameplate.data.listings import find_listings, read_json, read_listings, read_shards
from nameplate.data.members import ARCHIVE_SUFFIXES
from nameplate.data.tables import TABLE_SUFFIXES, photo_path, read_table
from nameplate.errors import DataError
from nameplate.hub import PREFIX, fetch_dataset, hub_name
from nameplate.images.formats import PHOTO_SUFFIXES
from nameplate.storage import absolute, sha256
from nameplate.types import Layout, Limits, Photo

LIST_SUFFIXES = (*TABLE_SUFFIXES, ".jsonl")
"""Suffixes of tables of photos, with labels or without."""
HUB_SUFFIXES = (*sorted(PHOTO_SUFFIXES), *LIST_SUFFIXES, ".json", *ARCHIVE_SUFFIXES)
"""Suffixes of the files of a data set that are fetched from the hub."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled photos. `Photo.label` is the nameplate."""

    photos: tuple[Photo, ...]
    nameplates: tuple[str, ...]
    """The classes in the order of the names file, or else in natural order."""
    ids: dict[str, str] = field(default_factory=dict)
    """Nameplate → the class as the data names it (the Category of a competition)."""
    refused: tuple[Refused, ...] = ()
    """Files that were left out, each with the reason."""
    kinds: tuple[str, ...] = ()
    """How each source was read."""
    excluded: int = 0
    """Number of photos that the user excluded."""
    notes: tuple[str, ...] = ()
    """Sentences on labels that were merged or matched, and on how an ambiguous source was read."""
    excluded_paths: tuple[str, ...] = ()
    """Paths of the photos that the user excluded, sorted."""


def read_dataset(
    *sources: str | os.PathLike[str],
    names: str | os.PathLike[str] | None = None,
    exclude: str | os.PathLike[str] | None = None,
    relabel: str | os.PathLike[str] | None = None,
    layout: str = "auto",
    limits: Limits | None = None,
    progress: UnpackProgress | None = None,
) -> Dataset:
    """Read labelled photos; several sources are merged by nameplate.

    A source is a folder with a folder for each class (also under train/, val/, test/), a CSV or Parquet table with a
    path and a label column (and optionally split, source, group), the folder of the original competition, a folder as
    other tools export it (`data/listings.py`), a zip or tar of any such folder, or a data set on the hub,
    `hf:datasets/USER/NAME@REVISION`. No photo is opened. Names are in Unicode NFC and stripped.

    Args:
        sources: paths, or names on the hub.
        names: a file that gives class ids their names (see `read_names`).
        exclude: a file that names photos to leave out (see `read_excluded`).
        relabel: a table that gives photos other labels (see `read_relabelled`).
        layout: how folders are read, one of `nameplate.types.Layout` (see `data/layouts.py`).
        limits: what a photo in an archive may cost.
        progress: called with the number of entries that are unpacked, and of all entries, while an archive is unpacked.

    Raises:
        DataError: a source does not exist, is no data set, has no labelled photos or can be read in several ways;
            nothing that `exclude`, `relabel` or `names` names is in the data; or `relabel` names another nameplate.
            The message says what was found instead.
        UsageError: the layout is unknown.
    """
    if not sources:
        raise DataError("No data given. Give a folder with one folder per nameplate, a CSV, or a zip.")
    called = read_names(Path(names)) if names is not None else {}
    beside = frozenset(absolute(Path(file)) for file in (names, exclude, relabel) if file is not None)
    how = _How(check_layout(layout), limits or Limits(), progress, beside)
    kinds, found, refused, notes = _read_sources(sources, how, called)
    _refuse_empty(found, sources[0], refused)
    labels = {str(photo.label) for photo in found}
    if names is not None:
        notes += matched(Path(names), called, labels)
    kept, more = (found, []) if exclude is None else excluding(found, Path(exclude))
    photos, contradictory, conflicts = once(kept, called)
    refused, notes = [*refused, *contradictory], [*notes, *more, *conflicts]
    _refuse_empty(photos, sources[0], refused)
    ids = ids_of({str(photo.label) for photo in photos}, called)
    nameplates = tuple(ids) if called else tuple(sorted(ids, key=natural_key))
    notes += on_names({called.get(label, label) for label in labels}, nameplates)
    named = tuple(photo.with_(label=called.get(str(photo.label), photo.label)) for photo in photos)
    excluded = tuple(sorted({photo.path for photo in found} - {photo.path for photo in kept}))
    left_out = len(found) - len(kept)
    dataset = Dataset(named, nameplates, ids, tuple(refused), kinds, left_out, tuple(notes), excluded)
    return dataset if relabel is None else relabelled(dataset, Path(relabel))


def _read_sources(
    sources: Sequence[str | os.PathLike[str]], how: _How, called: dict[str, str]
) -> tuple[tuple[str, ...], list[Photo], list[Refused], list[str]]:
    """Read all sources: the kind of each, and the labelled photos, refused entries and notes of all together."""
    parts = [_read_source(Path(source), how) for source in sources]
    photos, spelled = as_labelled([photo for part in parts for photo in part.photos], called)
    return (
        tuple(part.kind for part in parts),
        photos,
        [entry for part in parts for entry in part.refused],
        [*(note for part in parts for note in part.notes), *spelled],
    )


def _refuse_empty(photos: Sequence[Photo], source: str | os.PathLike[str], refused: Sequence[Refused]) -> None:
    if not photos:
        raise DataError(f"No labelled photos in '{source}'.{first_reasons(refused)}", pairs(refused))


def digest(photos: Iterable[Photo]) -> str:
    """SHA-256 over the digest, label and split of every photo; it does not depend on the paths or the order.

    The digest of each photo must be known (`Photo.sha256`).
    """
    return sha256("\n".join(sorted(f"{photo.sha256} {photo.label} {photo.split}" for photo in photos)).encode())


def list_photos(source: str | os.PathLike[str], tell: Tell = lambda _: None) -> list[Photo]:
    """List the photos of one source: a file, a folder (searched recursively), a table or an archive.

    Args:
        source: its path.
        tell: called with each entry that is left out.

    Raises:
        DataError: the folder, table or archive has no photos; its `left_out` names the entries that were left out.
    """
    path, left_out = Path(source), list[Refused]()
    if os.path.isdir(path):  # noqa: PTH112 - false, too, where it may not be asked
        root = photos_root(path)
        photos = _sifted(walk(str(root)), root.name, left_out)
    elif path.suffix.lower() in LIST_SUFFIXES:
        photos = [Photo(on_disk(photo_path(path, name)), source=path.name) for name in list_rows(path, left_out.append)]
    elif is_archive(path.name):
        photos = _sifted(walk_unpacked(path), archive_stem(path.name), left_out)
    else:
        return [Photo(str(path))]  # Decoding decides whether it is a photo.
    if not photos:
        raise no_photos(str(path), left_out)
    for entry in left_out:
        tell(entry)
    return photos


def no_photos(source: str, left_out: Sequence[Refused]) -> DataError:
    """The error for a source without photos. It says what was found instead."""
    return DataError(
        f"There are no photos in '{source}' ({', '.join(sorted(PHOTO_SUFFIXES))}).{first_reasons(left_out)}",
        pairs(left_out),
    )


def walk_unpacked(archive: Path) -> Iterator[str | Refused]:
    """Unpack an archive into the cache, and yield its photos and everything that was refused.

    Refused entries are named with the path of the archive, since a user does not know the folders of the cache.

    Raises:
        DataError: the archive cannot be read.
    """
    folder, refused = unpack(archive, Limits())
    yield from refused
    with speaking_of(archive, folder, refused):
        root = photos_root(folder)
    for entry in walk(str(root)):
        if isinstance(entry, str):
            yield entry
        elif entry.name != str(folder / REPORT):  # `unpack` wrote this file itself.
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
    """The folder with the photos to recognise: the test photos of a competition, or else the folder itself."""
    competition = find_competition(folder)
    if competition is None or not _has_categories(competition):
        return folder
    return read_competition(competition).test_folder or folder


def photos_to_recognise(source: str | os.PathLike[str]) -> list[Photo]:
    """The test photos of a competition, which have no labels; none where the source is not a competition's.

    Args:
        source: as for `read_dataset`. An archive must have been read by it before, and is not unpacked again.
    """
    path = Path(source)
    if path.is_dir():
        root = path
    elif is_archive(path.name):
        root = unpack(path, Limits())[0]
    else:
        return []
    competition = find_competition(root)
    if competition is None or not _has_categories(competition):
        return []
    folder = read_competition(competition).test_folder
    return [] if folder is None else _sifted(walk(str(folder)), path.name, [])


@dataclass(frozen=True, slots=True)
class _How:
    """The settings of reading a source."""

    layout: Layout
    limits: Limits
    progress: UnpackProgress | None
    beside: frozenset[str]
    """Absolute paths of files that may lie among the data and do not belong to it."""


def _read_source(path: Path, how: _How) -> Source:
    if str(path).startswith(PREFIX):
        return _read_hub(str(path), how)
    if os.path.isdir(path):  # noqa: PTH112 - false, too, where it may not be asked
        return _read_folder(path, how)
    try:
        path.stat()
    except FileNotFoundError:
        raise DataError(f"There is no '{path}'.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from None
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return read_labelled_table(path)
    if suffix == ".json":
        return read_json(path)
    if is_archive(path.name):
        return _read_archive(path, how)
    raise DataError(
        f"'{path}' is no data set: give a folder with one folder per nameplate, a CSV, JSONL or Parquet table with "
        "path and label columns, an export of COCO, FiftyOne or Label Studio in JSON, or a zip or tar of a folder."
    )


def _read_hub(text: str, how: _How) -> Source:
    """Fetch a data set from the hub, and read its folder."""
    name = hub_name(text, "dataset")
    assert name is not None
    folder = fetch_dataset(name, HUB_SUFFIXES, ArchiveLimits().bytes)
    with speaking_of(Path(text), folder, ()):  # The folder of the cache means nothing to the user.
        inner = [folder / file for file in entries(folder).files if is_archive(file)]
        # Many data sets on the hub are one archive beside a card.
        found = _read_archive(inner[0], how) if len(inner) == 1 else _read_folder(folder, how)
    source = name.repo.partition("/")[2]
    photos = [photo.with_(source=source) for photo in found.photos]
    refused = [Refused(entry.name.replace(str(folder), text), entry.reason) for entry in found.refused]
    return Source(f"hub: {found.kind}", photos, refused, [note.replace(str(folder), text) for note in found.notes])


def _read_archive(path: Path, how: _How) -> Source:
    folder, refused = unpack(path, how.limits, progress=how.progress)
    report = absolute(folder / REPORT)
    with speaking_of(path, folder, refused):  # The folder of the cache means nothing to the user.
        found = _read_folder(folder, replace(how, beside=how.beside | {report}), path)
    more = [Refused(entry.name.removeprefix(f"{folder}/"), entry.reason) for entry in found.refused]
    notes = [note.replace(f"'{folder}", f"'{path}") for note in found.notes]
    form = "zip" if path.suffix.lower() == ".zip" else "tar"
    return Source(f"{form}: {found.kind}", found.photos, [*refused, *more], notes)


def _read_folder(folder: Path, how: _How, archive: Path | None = None) -> Source:
    competition = find_competition(folder) if how.layout == "auto" else None
    if competition is not None:
        return _read_listed_folder(competition)
    if (reason := entries(folder).reason) is not None:
        raise DataError(f"There are no photos to reach in '{folder}': {reason}.")
    if how.layout == "auto" and (listings := find_listings(folder)):
        return read_listings(listings)
    root = _tree(folder, how)
    if not root.has_photos and (shards := [file for file in _others(root) if file.endswith(".parquet")]):
        return read_shards(map(Path, shards))
    read = read_layout(root, how.layout, archive=archive is not None)
    top = Path(read.top)
    if top != folder and how.layout == "auto" and (top / TRAIN_TABLE).is_file():
        return _read_listed_folder(top)
    source = archive_stem(archive.name) if archive is not None else top.resolve().name
    if not read.photos:
        raise _nothing_in(folder, root, read.refused)
    photos = [Photo(path, label, split, source) for path, label, split in read.photos]
    return Source(read.kind, photos, read.refused, read.notes)


def _tree(folder: Path, how: _How) -> Folder:
    """The tree of a folder without the files in `how.beside`.

    Empty folders of the first two levels are included, since each may be a nameplate without photos, which is reported.
    """
    found = list(walk(str(folder)))
    if how.beside:
        found = [entry for entry in found if absolute(_name(entry)) not in how.beside]
    refused = {entry.name for entry in found if isinstance(entry, Refused)}
    root = tree(str(folder), found)
    for level in (root, *root.folders.values()):
        for empty in _subfolders(Path(level.path)):
            if str(empty) not in refused:
                level.folders.setdefault(empty.name, Folder(str(empty)))
    return root


def _others(root: Folder) -> list[str]:
    """Paths of all files below a folder that are no photos."""
    return [entry.name for folder in root.below() for entry in folder.others]


def _name(entry: str | Refused) -> str:
    return entry if isinstance(entry, str) else entry.name


def _nothing_in(folder: Path, root: Folder, refused: list[Refused]) -> DataError:
    if root.photos and not root.full:
        return DataError(
            f"'{folder}' holds {len(root.photos):,} photos but no folder per nameplate: "
            "put each nameplate's photos into a folder of its name, or give a CSV with path and label."
        )
    return DataError(f"There are no photos in the folders of '{folder}'.{first_reasons(refused)}", pairs(refused))


def _read_listed_folder(folder: Path) -> Source:
    """Read a folder whose train.csv lists its photos."""
    if _has_categories(folder):
        competition = read_competition(folder)
        photos, refused = train_photos(competition)
        found = Source("competition", photos, refused)
        among = competition.train_folder or folder
    else:
        found, among = read_labelled_table(folder / TRAIN_TABLE), folder
    listed = {absolute(photo.path) for photo in found.photos} | {entry.name for entry in found.refused}
    more = sum(isinstance(path, str) and absolute(path) not in listed for path in walk(str(among)))
    if more:
        found.notes.append(f"{count_of(more, 'photo')} in '{among}' and not in its {TRAIN_TABLE}: left out.")
    return found


def _has_categories(folder: Path) -> bool:
    """Whether train.csv belongs to a competition and is not just a table of that name."""
    return {"Id", "Category"} <= read_table(folder / TRAIN_TABLE)[0].keys()


def _subfolders(folder: Path) -> list[Path]:
    return sorted((folder / name for name in entries(folder).folders), key=lambda path: natural_key(path.name))
