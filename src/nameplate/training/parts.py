"""Which photos train, and which judge: one split for every way of training."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.duplicates import groups as copies
from nameplate.datasets.sources import Dataset, digest
from nameplate.datasets.splits import hold_out
from nameplate.errors import DataError
from nameplate.models.collection import Embedded
from nameplate.storage import absolute, sha256_of
from nameplate.types import Photo


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set's readable photos, each in its part."""

    photos: tuple[Photo, ...]
    """Each with its digest, size and `split`."""
    groups: NDArray[np.int64]
    """int64 (N,): photos of one group are copies of one picture, or of one advert."""
    nameplates: tuple[str, ...]
    """Those that have photos to train on."""
    ids: tuple[str, ...]
    """The same as the data calls them."""
    classes: NDArray[np.int64]
    """int64 (N,): place in `nameplates`, -1 where it is none of them."""
    train: NDArray[np.bool_]
    """bool (N,): trains."""
    held: NDArray[np.bool_]
    """bool (N,): judges."""
    unreadable: tuple[tuple[str, str], ...]
    """Photos that could not be read, and why."""
    sources: tuple[str, ...]
    """The data sets that it came from."""
    excluded: tuple[str, ...] = ()
    """SHA-256 of the photos that were left out because they were named to be, where no copy of them is left in."""

    @staticmethod
    def of(
        photos: Sequence[Photo],
        groups: NDArray[np.int64],
        nameplates: Sequence[str],
        ids: Sequence[str],
        unreadable: Sequence[tuple[str, str]],
        excluded: Sequence[str] = (),
    ) -> Parts:
        """What follows from the photos' own `split`: a copy of what was trained on says nothing of a model."""
        place = {name: number for number, name in enumerate(nameplates)}
        classes = np.array([place.get(str(photo.label), -1) for photo in photos], np.int64)
        train = np.array([photo.split == "train" for photo in photos], bool)
        held = ~train & (classes >= 0) & ~np.isin(groups, groups[train])
        sources = tuple(sorted({photo.source for photo in photos}))
        return Parts(
            tuple(photos),
            groups,
            tuple(nameplates),
            tuple(ids),
            classes,
            train,
            held,
            tuple(unreadable),
            sources,
            tuple(excluded),
        )

    @property
    def copies(self) -> int:
        """Photos that are copies of another one."""
        return len(self.photos) - len(np.unique(self.groups))

    @property
    def leaked(self) -> int:
        """Photos that the data's own parts hold out and that are copies of training photos: not judged."""
        return int((~self.train & ~self.held & (self.classes >= 0)).sum())

    @property
    def digest(self) -> str:
        """SHA-256 of what is in which part under which name, wherever the files lie."""
        return digest(self.photos)


def split_parts(dataset: Dataset, embedded: Embedded, holdout: float, seed: int) -> Parts:
    """Give every photo its part: the data's own where it has parts, else a stratified split.

    Args:
        dataset: names the classes.
        embedded: its photos, read.
        holdout: share of every nameplate kept out of training.
        seed: of the split.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
    """
    groups = copies([str(p.sha256) for p in embedded.photos], embedded.hashes, [p.group for p in embedded.photos])
    photos = _assign(embedded.photos, groups, holdout, seed)
    nameplates = tuple(n for n in dataset.nameplates if any(p.label == n and p.split == "train" for p in photos))
    if len(nameplates) < 2:
        raise DataError(
            f"Only {len(nameplates)} nameplate with readable photos to train on; there must be two or more."
        )
    ids = [dataset.ids.get(name, name) for name in nameplates]
    excluded = _digests(dataset.excluded_paths) - {str(photo.sha256) for photo in photos}
    return Parts.of(photos, groups, nameplates, ids, embedded.unreadable, sorted(excluded))


def _digests(paths: Sequence[str]) -> set[str]:
    """SHA-256 of the files that can be read."""
    found = set()
    for path in paths:
        with suppress(OSError, ValueError):
            found.add(sha256_of(path))
    return found


def _assign(photos: Sequence[Photo], groups: NDArray[np.int64], holdout: float, seed: int) -> tuple[Photo, ...]:
    if any(photo.split not in (None, "train") for photo in photos):
        return tuple(photo.with_(split=photo.split or "train") for photo in photos)
    held = hold_out([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, holdout, seed)
    return tuple(p.with_(split="validation" if h else "train") for p, h in zip(photos, held, strict=True))


def photos_csv(photos: Sequence[Photo], groups: NDArray[np.int64]) -> bytes:
    """The table of photos that a bundle keeps; `read_dataset` reads it again, split and all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split", "group", "source", "sha256", "width", "height"])
    for photo, group in zip(photos, groups, strict=True):
        writer.writerow(
            [
                absolute(photo.path),
                photo.label,
                photo.split,
                group,
                photo.source,
                photo.sha256,
                photo.width,
                photo.height,
            ]
        )
    return text.getvalue().encode(errors="backslashreplace")  # file names need not be UTF-8, tables must
