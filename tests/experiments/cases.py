"""Data sets whose verdict is known, made from the embedded photos."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nameplate.demo import photos_folder

Row = tuple[str, str, str]
PHOTOS = 30
"""Of each nameplate, in all cases together."""


def rows() -> dict[str, list[str]]:
    """Nameplate → paths of 30 of its photos."""
    return {
        folder.name: [str(path) for path in sorted(folder.glob("*.jpg"))[:PHOTOS]]
        for folder in sorted(photos_folder().iterdir())
        if folder.is_dir()
    }


def table(path: Path, photos: Iterable[Row]) -> Path:
    """A data set as a CSV; an empty part stays open."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *photos])
    return path


def base(folder: Path, train: int, judging: int = 8) -> Path:
    """The first photos of each nameplate judge, the next ones train."""
    parts = [(paths, name) for name, paths in rows().items()]
    judge = [(path, name, "validation") for paths, name in parts for path in paths[:judging]]
    return table(
        folder / "base.csv",
        [*judge, *((path, name, "train") for paths, name in parts for path in paths[judging : judging + train])],
    )


def extra(folder: Path, begin: int, *, shuffled: bool = False, photos: int | None = None) -> Path:
    """The photos from `begin` on; under permuted names, or only some of them."""
    found = [(path, name) for name, paths in rows().items() for path in paths[begin:]]
    random = np.random.default_rng(1)
    if shuffled:
        labels = random.permutation([name for _, name in found])
        found = [(path, str(name)) for (path, _), name in zip(found, labels, strict=True)]
    if photos is not None:
        found = [found[i] for i in random.choice(len(found), photos, replace=False)]
    return table(folder / "extra.csv", [(path, name, "") for path, name in found])
