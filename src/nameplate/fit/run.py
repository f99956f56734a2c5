"""A run's folder: what it trains, and where things lie in it.

run.json                  what is trained on what: recipe, photos with their parts, seed, versions
recipe.toml               the recipe, as `--recipe` takes it
checkpoint.safetensors    see checkpoint.py
weights.safetensors       the weights that were kept, as `--set weights=RUN` takes them
metrics.csv               a row an epoch
events/                   the same for TensorBoard
index.html                the page
augmented.jpg             some photos as the network sees them
bundle/                   the model
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from nameplate import __version__
from nameplate.data.dataset import list_photos, read_dataset
from nameplate.errors import DataError, NameplateError
from nameplate.fit.recipe import Recipe
from nameplate.fit.split import Split
from nameplate.model.bundle import EXCLUDED
from nameplate.model.embeddings import Progress
from nameplate.storage import sha256_of, whole_file, working_in
from nameplate.types import Evaluation, Exported, Photo

# JOINED What a bundle says of its own making: data, metrics, versions.


JUDGED_BY = "onnxruntime"
"""The runtime that a network's figures are of: the same on every machine, so that two runs compare."""


def metrics_record(judged: Evaluation | None) -> dict[str, object] | None:
    """The figures on held-out photos, None where none were held out."""
    if judged is None:
        return None
    return {
        "photos": judged.photos,
        "top1": judged.top1.value,
        "top1_interval": judged.top1.interval,
        "top5": judged.top5.value,
        "macro_f1": judged.macro_f1.value,
        "log_loss": judged.log_loss,
    }


def exported_record(exported: Exported) -> dict[str, object]:
    """Which epoch's weights a bundle holds, its photo size, and what it was worth when it was trained."""
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


def data_record(parts: Split) -> dict[str, object]:
    """How many photos, their digest, where they came from; digests of those that the user had left out, where any."""
    excluded = {EXCLUDED: list(parts.excluded)} if parts.excluded else {}
    return excluded | {
        "photos": len(parts.photos),
        "sha256": parts.digest,
        "unreadable": len(parts.unreadable),
        "sources": list(parts.sources),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Nameplate, Python and some packages."""
    return {
        "nameplate": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


RUN, RECIPE, WEIGHTS, METRICS, EVENTS, PAGE, SHEET = (
    "run.json",
    "recipe.toml",
    "weights.safetensors",
    "metrics.csv",
    "events",
    "index.html",
    "augmented.jpg",
)
SCHEMA = 1
"""Version of run.json's form."""


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """A photo of the run."""

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
    """run.json."""

    schema: int
    recipe: Recipe
    photos: tuple[MetricsRow, ...]
    nameplates: tuple[str, ...]
    ids: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    made: str
    """When it began, ISO 8601."""
    bfloat16: bool
    """Whether the network computes in bfloat16 while it is trained; chosen once, so that a resumed run is
    the same run."""
    threads: int
    """Processors, for the same reason."""
    processes: int
    """That train together, for the same reason."""
    device: str
    weights: str
    """What the network began with."""
    versions: dict[str, str] = field(default_factory=dict)
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates of the data none of whose photos could be read, and how many there are."""
    index: bool = False
    """Whether the bundle is to hold small pictures of the photos that train."""
    begun_in: str = ""
    """The folder where the run was begun, from which a relative path of the recipe's weights is meant; older runs do
    not know it."""
    excluded: tuple[str, ...] = ()
    """SHA-256 of the photos that the user had left out."""


def rows(parts: Split) -> tuple[MetricsRow, ...]:
    """A run's photos, by paths that mean the same from anywhere."""
    return tuple(
        MetricsRow(
            os.path.abspath(p.path),  # noqa: PTH100 - resolve() would follow links
            str(p.label),
            str(p.split),
            int(group),
            p.source,
            str(p.sha256),
            p.width or 0,
            p.height or 0,
        )
        for p, group in zip(parts.photos, parts.groups, strict=True)
    )


def parts_of(run: Run) -> Split:
    """A run's photos, as they were split when it began."""
    photos = tuple(
        Photo(r.path, r.label, r.split, r.source, str(r.group), r.sha256, r.width, r.height)  # type: ignore[arg-type]
        for r in run.photos
    )
    groups = np.array([row.group for row in run.photos], np.int64)
    return replace(Split.of(photos, groups, run.nameplates, run.ids, run.unreadable, run.excluded), lost=run.lost)


def save_run(folder: Path, run: Run) -> None:
    """Write run.json whole.

    Raises:
        NameplateError: it cannot be written.
    """
    with whole_file(folder / RUN) as temporary:  # json, not msgspec: file names need not be UTF-8
        temporary.write_text(json.dumps(msgspec.to_builtins(run)), "ascii")


def load_run(folder: Path) -> Run:
    """Read run.json.

    Raises:
        NameplateError: there is none, or it is damaged or of another version.
    """
    path = folder / RUN
    try:
        said = json.loads(path.read_text("ascii"))
        if said.get("schema") != SCHEMA:
            raise ValueError(f"its schema is {said.get('schema')}, this Nameplate reads {SCHEMA}")
        return msgspec.convert(said, Run)
    except OSError as error:
        raise NameplateError(
            f"'{folder}' is no run to go on with: cannot read '{path}' ({error.strerror or error}). "
            "Give the folder that 'nameplate train --recipe … -o RUN' made."
        ) from None
    except (ValueError, AttributeError, msgspec.ValidationError, RecursionError) as error:
        raise NameplateError(f"'{path}' is damaged: {error}. Train anew with another --output.") from None


# JOINED A run's photos that are no longer where they were: found again by what is in them.


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
