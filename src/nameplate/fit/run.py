"""The folder of a training run: its files, and the records that a bundle keeps of its training.

run.json                  recipe, photos with their parts, seed, versions
recipe.toml               the recipe; `--recipe` reads it
checkpoint.safetensors    the state of the training, see train/checkpoint.py
weights.safetensors       the chosen weights; `--set weights=RUN` reads them
metrics.csv               one row for each epoch
events/                   the same figures for TensorBoard
index.html                the report
augmented.jpg             some training photos after augmentation
bundle/                   the trained model
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from nameplate import __version__
from nameplate.data.dataset import list_photos, read_dataset
from nameplate.errors import DataError
from nameplate.fit.recipe import Recipe
from nameplate.fit.record import read_record, write_record
from nameplate.fit.split import Split
from nameplate.model.bundle import EXCLUDED, Bundle
from nameplate.model.embeddings import Progress
from nameplate.storage import sha256_of, working_in
from nameplate.types import Evaluation, Exported, Photo

# What a bundle records of its training. These keys are in bundle.json, so they must not change.

EVALUATION_RUNTIME = "onnxruntime"
"""The runtime that evaluates networks: the same on every machine, so that the metrics of two runs are comparable."""


def metrics_record(evaluation: Evaluation | None) -> dict[str, object] | None:
    """The metrics on the held-out photos; None where none were held out."""
    if evaluation is None:
        return None
    return {
        "photos": evaluation.photos,
        "top1": evaluation.top1.value,
        "top1_interval": evaluation.top1.interval,
        "top5": evaluation.top5.value,
        "macro_f1": evaluation.macro_f1.value,
        "log_loss": evaluation.log_loss,
    }


def exported_record(exported: Exported) -> dict[str, object]:
    """The epoch whose weights a bundle holds, with its input size and its validation metrics."""
    epoch = exported.epoch
    return {
        "epoch": epoch.epoch,
        "of": exported.epochs,
        "stage": epoch.stage,
        "height": epoch.height,
        "width": epoch.width,
        "validation_top1": epoch.validation_top1,
        "validation_loss": epoch.validation_loss,
        "chosen_by_held_out": exported.chosen,
    }


def data_record(split: Split) -> dict[str, object]:
    """Number, digest and sources of the photos, and the digests of the photos that the user excluded, if any."""
    excluded = {EXCLUDED: list(split.excluded)} if split.excluded else {}
    return excluded | {
        "photos": len(split.photos),
        "sha256": split.digest,
        "unreadable": len(split.unreadable),
        "sources": list(split.sources),
    }


def versions(*packages: str) -> dict[str, str]:
    """The versions of Nameplate, Python and the given packages."""
    return {
        "nameplate": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def licence_record(bundles: Iterable[Bundle]) -> dict[str, object]:
    """The entry `licence` of a provenance: the terms of the bundles that it was made of, each once; or no entry."""
    found: dict[str, dict[str, None]] = {}
    for bundle in bundles:
        for part, terms in bundle.terms.items():
            found.setdefault(part, {})[terms] = None
    return {"licence": {part: "; ".join(terms) for part, terms in found.items()}} if found else {}


RUN, RECIPE, WEIGHTS, METRICS, EVENTS, PAGE, SHEET = (
    "run.json",
    "recipe.toml",
    "weights.safetensors",
    "metrics.csv",
    "events",
    "index.html",
    "augmented.jpg",
)
Tracking = Literal["wandb", "mlflow"]
SCHEMA = 1
"""Version of the format of run.json."""


@dataclass(frozen=True, slots=True)
class RunPhoto:
    """One photo of a run, as run.json holds it; the field names are its keys."""

    path: str
    label: str
    split: str
    group: int
    source: str
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Run:
    """What run.json holds; the field names are its keys.

    Everything that decides how the network is trained is fixed here when the run begins, so that a resumed run computes
    the same as one that was not interrupted.
    """

    schema: int
    recipe: Recipe
    photos: tuple[RunPhoto, ...]
    nameplates: tuple[str, ...]
    ids: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    made: str
    """When the run began, ISO 8601 in UTC."""
    bfloat16: bool
    """Whether the network is trained in bfloat16."""
    threads: int
    """Number of processors that each process uses."""
    processes: int
    """Number of processes that train together."""
    device: str
    """The type of the device, such as `cpu` or `cuda`."""
    weights: str
    """A description of the weights that the training began with."""
    versions: dict[str, str] = field(default_factory=dict)
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates none of whose photos could be read, each with its number of photos."""
    index: bool = False
    """Whether the bundle gets a neighbour index of the training photos."""
    begun_in: str = ""
    """The working directory when the run began: a relative path of the recipe's weights starts there. Empty in runs of
    older versions."""
    excluded: tuple[str, ...] = ()
    """SHA-256 of the photos that the user excluded."""
    track: tuple[Tracking, ...] = ()
    """The services that get the figures as well, see train/tracking.py."""
    licence: dict[str, str] = field(default_factory=dict)
    """The terms of the bundle that the training began with, part → terms, which go on in the new one."""


def rows(split: Split) -> tuple[RunPhoto, ...]:
    """The photos of a split for run.json, with absolute paths."""
    return tuple(
        RunPhoto(
            os.path.abspath(p.path),  # noqa: PTH100 - resolve() would follow links
            str(p.label),
            str(p.split),
            int(group),
            p.source,
            str(p.sha256),
            p.width or 0,
            p.height or 0,
        )
        for p, group in zip(split.photos, split.groups, strict=True)
    )


def split_of(run: Run) -> Split:
    """The split that a run began with."""
    photos = tuple(
        Photo(r.path, r.label, r.split, r.source, str(r.group), r.sha256, r.width, r.height)  # type: ignore[arg-type]
        for r in run.photos
    )
    groups = np.array([row.group for row in run.photos], np.int64)
    return replace(Split.of(photos, groups, run.nameplates, run.ids, run.unreadable, run.excluded), lost=run.lost)


def save_run(folder: Path, run: Run) -> None:
    """Write run.json atomically.

    Raises:
        NameplateError: the file cannot be written.
    """
    write_record(folder / RUN, run)


def set_tracking(folder: Path, track: Sequence[Tracking]) -> None:
    """Have a run send its figures to these services from now on.

    Raises:
        NameplateError: `folder` is no run, or run.json cannot be written.
    """
    save_run(folder, replace(load_run(folder), track=tuple(track)))


def load_run(folder: Path) -> Run:
    """Read run.json.

    Raises:
        NameplateError: the file does not exist, is damaged, or has another schema version.
    """
    missing = (
        f"'{folder}' is not a run that can be resumed: give the folder that 'nameplate train --recipe … -o RUN' made."
    )
    return read_record(folder / RUN, Run, SCHEMA, missing=missing)


# Photos of a run that were moved since it began: they are found again by their SHA-256.

HINT = "If they have moved, say where they are now: nameplate train --resume '{}' --data FOLDER"


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of `relocate`."""

    photos: int
    """Number of photos of the run."""
    found: int
    """Number of photos that were found in the given sources."""
    missing: tuple[str, ...]
    """Photos that are neither there nor at their old path, by the path in run.json."""


def relocate(folder: Path, sources: Sequence[Path], progress: Progress = lambda *_: None) -> Moved:
    """Search for the photos of a run in other places, by SHA-256, and write their new paths into its run.json.

    Args:
        folder: the folder of the run.
        sources: folders, tables or archives to search in.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos is there, or a source cannot be read.
        NameplateError: `folder` is no run, or another process works on it.
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
    """The photos of a run that are not at their path, by that path."""
    return tuple(row.path for row in run.photos if not os.path.isfile(row.path))  # noqa: PTH113 - any name will do


def refuse_gone(folder: Path, run: Run) -> None:
    """Refuse to resume a run without training photos, or without held-out photos where it had some.

    Raises:
        DataError: all photos of one of the two parts are missing.
    """
    missing = set(gone(run))
    for role, trains in (("training", True), ("held-out", False)):
        paths = [row.path for row in run.photos if (row.split == "train") == trains]
        if paths and missing.issuperset(paths):
            meant = "" if Path(paths[0]).is_absolute() else " (as seen from the folder where the run was begun)"
            raise DataError(
                f"None of {len(paths):,} photos can be read any more: the {role} photos of '{folder}' are not where "
                f"they were, the first at '{paths[0]}'{meant}. {HINT.format(folder)}"
            )


def _paths(source: Path) -> list[str]:
    """The paths of all photos in a source."""
    try:
        return [photo.path for photo in read_dataset(source).photos]
    except DataError:  # photos without labels can be searched, too
        return [photo.path for photo in list_photos(source)]


def _digest(path: str) -> str:
    """The SHA-256 of a file; empty where it cannot be read."""
    with suppress(OSError, ValueError):
        return sha256_of(path)
    return ""
