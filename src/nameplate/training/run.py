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
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from nameplate.errors import NameplateError
from nameplate.fit.parts import Parts
from nameplate.fit.recipe import Recipe
from nameplate.storage import whole_file
from nameplate.types import Photo

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
class Row:
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
    photos: tuple[Row, ...]
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


def rows(parts: Parts) -> tuple[Row, ...]:
    """A run's photos, by paths that mean the same from anywhere."""
    return tuple(
        Row(
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


def parts_of(run: Run) -> Parts:
    """A run's photos, as they were split when it began."""
    photos = tuple(
        Photo(r.path, r.label, r.split, r.source, str(r.group), r.sha256, r.width, r.height)  # type: ignore[arg-type]
        for r in run.photos
    )
    groups = np.array([row.group for row in run.photos], np.int64)
    return replace(Parts.of(photos, groups, run.nameplates, run.ids, run.unreadable, run.excluded), lost=run.lost)


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
