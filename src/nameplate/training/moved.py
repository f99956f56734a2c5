"""A run's photos that are no longer where they were: found again by what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nameplate.datasets.sources import list_photos, read_dataset
from nameplate.errors import DataError
from nameplate.models.collection import Progress
from nameplate.storage import sha256_of, working_in
from nameplate.training.run import Run, load_run, save_run

HOW = "If they have moved, say where they are now: nameplate train --resume '{}' --data FOLDER"


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a run's photos."""

    photos: int
    """Of the run."""
    found: int
    """Found in the places that were named."""
    missing: tuple[str, ...]
    """Neither there nor where they were, by the paths that the run knows."""


def relocate(folder: Path, sources: Sequence[Path], progress: Progress = lambda *_: None) -> Moved:
    """Have a run look for its photos elsewhere, under whatever names; written into its run.json.

    Args:
        folder: the run's.
        sources: folders, tables or archives.
        progress: see `Progress`.

    Raises:
        DataError: none of the run's photos is there, or a source cannot be read.
        NameplateError: no run, or one that another process works on.
    """
    with working_in(folder):
        run = load_run(folder)
        wanted = {row.sha256 for row in run.photos}
        found: dict[str, str] = {}
        paths = [path for source in sources for path in _paths(source)]
        for number, path in enumerate(paths, 1):
            digest = _digest(path)
            if digest in wanted:
                found.setdefault(digest, os.path.abspath(path))  # noqa: PTH100 - links stay as they are
            progress("look for photos", number, len(paths))
        if not found:
            where = ", ".join(f"'{source}'" for source in sources)
            raise DataError(
                f"None of the {len(run.photos):,} photos of '{folder}' is among the {len(paths):,} photos in {where}."
            )
        photos = tuple(replace(row, path=found.get(row.sha256, row.path)) for row in run.photos)
        save_run(folder, replace(run, photos=photos))
    there = sum(row.sha256 in found for row in photos)
    return Moved(len(photos), there, gone(replace(run, photos=photos)))


def gone(run: Run) -> tuple[str, ...]:
    """Photos of a run that are not where it knows them to be."""
    return tuple(row.path for row in run.photos if not os.path.isfile(row.path))  # noqa: PTH113 - any name will do


def refuse_gone(folder: Path, run: Run) -> None:
    """Keep a run from going on without photos to train on, or to judge on.

    Raises:
        DataError: all photos of a part are gone.
    """
    missing = set(gone(run))
    for role, trains in (("training", True), ("held-out", False)):
        paths = [row.path for row in run.photos if (row.split == "train") == trains]
        if paths and missing.issuperset(paths):
            meant = "" if Path(paths[0]).is_absolute() else " (as seen from the folder where the run was begun)"
            raise DataError(
                f"None of {len(paths):,} photos can be read any more: the {role} photos of '{folder}' are not where "
                f"they were, the first at '{paths[0]}'{meant}. {HOW.format(folder)}"
            )


def _paths(source: Path) -> list[str]:
    try:
        return [photo.path for photo in read_dataset(source).photos]
    except DataError:  # photos without labels will do
        return [photo.path for photo in list_photos(source)]


def _digest(path: str) -> str:
    with suppress(OSError, ValueError):
        return sha256_of(path)
    return ""
