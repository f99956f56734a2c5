"""Splits labelled photos into training and held-out photos, in the same way for every kind of training.

Copies of one photo never lie on both sides of a split.
"""

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

LEAKED = "held out, but a copy of a training photo, so it is not evaluated"
LISTED = 10
"""Largest number of nameplates that are listed for one reason; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Split:
    """The readable photos of a data set, and which of them train and which are held out.

    A photo may be in neither part: its nameplate has no training photo, or it is a copy of a training photo.
    """

    photos: tuple[Photo, ...]
    """The photos, each with its digest, size and `split`."""
    groups: NDArray[np.int64]
    """int64 (N,): photos of one group are copies of one image, or come from one advert."""
    nameplates: tuple[str, ...]
    """The nameplates that have training photos, in the order of the classes."""
    ids: tuple[str, ...]
    """The same nameplates by the names that the data set uses."""
    classes: NDArray[np.int64]
    """int64 (N,): the index in `nameplates`, or -1 where the label is none of them."""
    train: NDArray[np.bool_]
    """bool (N,): whether the photo is a training photo."""
    holdout: NDArray[np.bool_]
    """bool (N,): whether the photo is held out to evaluate the model."""
    unreadable: tuple[tuple[str, str], ...]
    """Path and reason of each photo that could not be read."""
    sources: tuple[str, ...]
    """The data sets that the photos came from."""
    excluded: tuple[str, ...] = ()
    """SHA-256 of the photos that the user excluded, except those of which a copy is still in `photos`."""
    lost: tuple[tuple[str, int], ...] = ()
    """Nameplates none of whose photos could be read, each with its number of photos."""

    @staticmethod
    def of(
        photos: Sequence[Photo],
        groups: NDArray[np.int64],
        nameplates: Sequence[str],
        ids: Sequence[str],
        unreadable: Sequence[tuple[str, str]],
        excluded: Sequence[str] = (),
    ) -> Split:
        """Make a split from the `split` that each photo already has.

        Held out is every photo that is not a training photo, whose nameplate has training photos, and that is no copy
        of a training photo: the model would have seen such a copy.
        """
        class_of = {name: number for number, name in enumerate(nameplates)}
        classes = np.array([class_of.get(str(photo.label), -1) for photo in photos], np.int64)
        train = np.array([photo.split == "train" for photo in photos], bool)
        holdout = ~train & (classes >= 0) & ~np.isin(groups, groups[train])
        sources = tuple(sorted({photo.source for photo in photos}))
        return Split(
            tuple(photos),
            groups,
            tuple(nameplates),
            tuple(ids),
            classes,
            train,
            holdout,
            tuple(unreadable),
            sources,
            tuple(excluded),
        )

    def only(self, kept: NDArray[np.bool_], unreadable: Sequence[tuple[str, str]] = ()) -> Split:
        """The split without some of its photos, which have become unreadable since.

        Args:
            kept: bool (N,), which photos are kept.
            unreadable: path and reason of the others.
        """
        if kept.all():
            return self
        photos = [photo for photo, there in zip(self.photos, kept, strict=True) if there]
        lost = (*self.unreadable, *unreadable)
        found = Split.of(photos, self.groups[kept], self.nameplates, self.ids, lost, self.excluded)
        return replace(found, lost=self.lost)

    @property
    def copies(self) -> int:
        """Number of photos that are copies of another photo."""
        return len(self.photos) - len(np.unique(self.groups))

    @property
    def leaked(self) -> int:
        """Number of photos that the data set holds out, but that are copies of training photos; not evaluated."""
        return int((~self.train & ~self.holdout & (self.classes >= 0)).sum())

    @property
    def untrained(self) -> dict[str, int]:
        """Nameplate → number of its photos, for nameplates without a training photo.

        These photos are not evaluated: the model does not know the nameplate, so that every answer would be wrong.
        """
        unknown = (~self.train & (self.classes < 0)).nonzero()[0]
        found = Counter(str(self.photos[i].label) for i in unknown)
        return {name: found[name] for name in sorted(found, key=natural_key)}

    @property
    def contradictory(self) -> int:
        """Number of photos whose file also appears under another nameplate; they are used all the same."""
        labels: dict[str, set[str]] = {}
        for photo in self.photos:
            labels.setdefault(str(photo.sha256), set()).add(str(photo.label))
        return sum(len(labels[str(photo.sha256)]) > 1 for photo in self.photos)

    @property
    def notes(self) -> list[str]:
        """Sentences about the photos that neither train nor are held out, by nameplate."""
        untrained, sentences = self.untrained, []
        for name, photos in list(untrained.items())[:LISTED]:
            count = counted(photos, "held-out photo")
            sentences.append(f"{name}: it has no training photo, so its {count} cannot be evaluated.")
        if untrained:
            names, count = counted(len(untrained), "nameplate"), counted(sum(untrained.values()), "held-out photo")
            sentences.append(
                f"In total, {names} without a training photo, with {count}; the metrics do not include them."
            )
        for name, photos in self.lost[:LISTED]:
            sentences.append(f"{name}: none of its {counted(photos, 'photo')} can be read.")
        if len(self.lost) > LISTED:
            sentences.append(f"In total, {len(self.lost):,} nameplates without a readable photo.")
        if self.leaked:
            sentences.append(f"{counted(self.leaked, 'held-out photo')} not evaluated: copies of training photos.")
        return sentences

    @property
    def left_out(self) -> tuple[Refused, ...]:
        """The photos that could be read and are in neither part, each with the reason."""
        indices = (~self.train & ~self.holdout).nonzero()[0]
        return tuple(
            Refused(
                printable(self.photos[i].path),
                LEAKED if self.classes[i] >= 0 else f"its nameplate, '{self.photos[i].label}', has no training photo",
            )
            for i in indices
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the photos with their parts and labels; it does not depend on where the files lie."""
        return digest(self.photos)


def split_photos(
    dataset: Dataset, embedded: DatasetEmbeddings, holdout: float, seed: int, progress: Progress = lambda *_: None
) -> Split:
    """Split photos: by the parts of the data set where it has any, otherwise at random and stratified by nameplate.

    Args:
        dataset: gives the nameplates and their names in the data.
        embedded: the readable photos of `dataset` with their embeddings.
        holdout: share of the photos of each nameplate to hold out, 0–1.
        seed: seed of the random split.
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
    # A photo of which a copy is still used is not recorded as excluded: `evaluate` would leave the copy out, too.
    excluded = _digests(dataset.excluded_paths) - {str(photo.sha256) for photo in photos}
    split = Split.of(photos, groups, nameplates, ids, embedded.unreadable, sorted(excluded))
    readable = {str(photo.label) for photo in photos}
    every = Counter(str(photo.label) for photo in dataset.photos)
    # The counts are of the data set, because an unreadable photo is not in `embedded`.
    return replace(split, lost=tuple((name, every[name]) for name in dataset.nameplates if name not in readable))


def _digests(paths: Sequence[str]) -> set[str]:
    """The SHA-256 of each file that can be read."""
    found = set()
    for path in paths:
        with suppress(OSError, ValueError):
            found.add(sha256_of(path))
    return found


def _assign(photos: Sequence[Photo], groups: NDArray[np.int64], holdout: float, seed: int) -> tuple[Photo, ...]:
    """The photos, each with its `split`."""
    if any(photo.split not in (None, "train") for photo in photos):
        # The data set has parts of its own; photos that it puts into none of them train.
        return tuple(photo.with_(split=photo.split or "train") for photo in photos)
    held_out = hold_out([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, holdout, seed)
    return tuple(p.with_(split="validation" if h else "train") for p, h in zip(photos, held_out, strict=True))


def photos_csv(photos: Sequence[Photo], groups: NDArray[np.int64]) -> bytes:
    """A bundle's photos.csv as bytes; `read_dataset` reads it again as a data set with the same split."""
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
