"""Which photos train, and which judge: one split for every way of training."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nameplate.data.archive import Refused
from nameplate.data.dataset import Dataset, digest
from nameplate.data.labels import natural_key
from nameplate.data.split import hold_out
from nameplate.errors import DataError
from nameplate.evaluate.evaluator import same_picture
from nameplate.model.embeddings import DatasetEmbeddings, Progress
from nameplate.storage import absolute, counted, printable, sha256_of
from nameplate.types import Photo

LEAKED = "held out, and a copy of a training photo: it says nothing of a model"


LISTED = 10
"""Nameplates named, at most, for one reason; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Split:
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
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates of the data none of whose photos could be read, and how many there are."""

    @staticmethod
    def of(
        photos: Sequence[Photo],
        groups: NDArray[np.int64],
        nameplates: Sequence[str],
        ids: Sequence[str],
        unreadable: Sequence[tuple[str, str]],
        excluded: Sequence[str] = (),
    ) -> Split:
        """What follows from the photos' own `split`: a copy of what was trained on says nothing of a model."""
        place = {name: number for number, name in enumerate(nameplates)}
        classes = np.array([place.get(str(photo.label), -1) for photo in photos], np.int64)
        train = np.array([photo.split == "train" for photo in photos], bool)
        held = ~train & (classes >= 0) & ~np.isin(groups, groups[train])
        sources = tuple(sorted({photo.source for photo in photos}))
        return Split(
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
    def untaught(self) -> dict[str, int]:
        """Nameplates with photos, but none that trains: not judged, and how many they are. A model that does not know
        them is wrong on each.
        """
        strange = (~self.train & (self.classes < 0)).nonzero()[0]
        found = Counter(str(self.photos[place].label) for place in strange)
        return {name: found[name] for name in sorted(found, key=natural_key)}

    @property
    def contradictory(self) -> int:
        """Photos whose very bytes stand under another nameplate too; they train and judge all the same."""
        labels: dict[str, set[str]] = {}
        for photo in self.photos:
            labels.setdefault(str(photo.sha256), set()).add(str(photo.label))
        return sum(len(labels[str(photo.sha256)]) > 1 for photo in self.photos)

    @property
    def told(self) -> list[str]:
        """Sentences on what neither trains nor judges, each nameplate with its photos."""
        untaught, sentences = self.untaught, []
        for name, photos in list(untaught.items())[:LISTED]:
            held = counted(photos, "held-out photo")
            sentences.append(f"{name}: no photo of it trains, so {held} of it cannot be judged.")
        if untaught:
            names, held = counted(len(untaught), "nameplate"), counted(sum(untaught.values()), "held-out photo")
            sentences.append(f"In all {names} of which no photo trains, {held}: the figures are of the rest.")
        for name, photos in self.lost[:LISTED]:
            sentences.append(f"{name}: of {counted(photos, 'photo')} none can be read.")
        if len(self.lost) > LISTED:
            sentences.append(f"In all {len(self.lost):,} nameplates of which no photo can be read.")
        if self.leaked:
            sentences.append(f"{counted(self.leaked, 'held-out photo')}: they are copies of training photos.")
        return sentences

    @property
    def left_out(self) -> tuple[Refused, ...]:
        """Photos that were read, and neither train nor judge, and why."""
        places = (~self.train & ~self.held).nonzero()[0]
        return tuple(
            Refused(
                printable(self.photos[place].path),
                LEAKED
                if self.classes[place] >= 0
                else f"no photo of its nameplate, '{self.photos[place].label}', trains",
            )
            for place in places
        )

    @property
    def digest(self) -> str:
        """SHA-256 of what is in which part under which name, wherever the files lie."""
        return digest(self.photos)


def split_parts(
    dataset: Dataset, embedded: DatasetEmbeddings, holdout: float, seed: int, progress: Progress = lambda *_: None
) -> Split:
    """Give every photo its part: the data's own where it has parts, else a stratified split.

    Args:
        dataset: names the classes.
        embedded: its photos, read.
        holdout: share of every nameplate kept out of training.
        seed: of the split.
        progress: see `Progress`.

    Raises:
        DataError: fewer than two nameplates with readable photos to train on.
    """
    groups = same_picture(embedded, progress)
    photos = _assign(embedded.photos, groups, holdout, seed)
    nameplates = tuple(n for n in dataset.nameplates if any(p.label == n and p.split == "train" for p in photos))
    if len(nameplates) < 2:
        raise DataError(
            f"Only {len(nameplates)} nameplate with readable photos to train on; there must be two or more.",
            embedded.unreadable,
        )
    ids = [dataset.ids.get(name, name) for name in nameplates]
    excluded = _digests(dataset.excluded_paths) - {str(photo.sha256) for photo in photos}
    parts = Split.of(photos, groups, nameplates, ids, embedded.unreadable, sorted(excluded))
    readable = {str(photo.label) for photo in photos}
    every = Counter(str(photo.label) for photo in dataset.photos)
    return replace(parts, lost=tuple((name, every[name]) for name in dataset.nameplates if name not in readable))


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
