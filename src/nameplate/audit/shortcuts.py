"""`shortcut_test`: whether something beside the car gives its class away: a watermark, a plate, a dealer's yard.

Heads are trained and judged, out of fold, on photos of which only the border is left, and on photos of which only the
centre is left (as J. Zech et al., PLoS Medicine 15, 2018, asked of X-rays: what is seen where nothing can be seen?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.data.split import folds
from nameplate.evaluate.metrics import wilson
from nameplate.model.classifier import cross_validate
from nameplate.model.embeddings import Progress, embed_photos, still_readable
from nameplate.model.model import Model
from nameplate.model.pipeline import Hidden
from nameplate.types import Metric, Photo

MOST_PHOTOS = 3000
"""Photos, at most, that are embedded twice more: whole classes' shares of them, drawn by digest."""
MIN_PHOTOS = 10
"""Photos of a class below which nothing is said of it."""
FOLDS = 3
GIVEN_AWAY = 0.25
"""By how much a class must be known from the border alone beyond what the other classes are, surely, to be named."""


@dataclass(frozen=True, slots=True)
class Telltale:
    """A class that its photos' borders give away."""

    nameplate: str
    border: Metric
    """Share of its photos known from the border alone."""
    photos: int


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What is known of the classes when part of the photos is hidden."""

    photos: int
    whole: Metric
    """Top-1 on the whole photos, out of fold."""
    centre: Metric
    """With the borders hidden."""
    border: Metric
    """With the centre hidden."""
    guessing: float
    """What always naming the largest class gives."""
    telltales: tuple[Telltale, ...]
    """Classes that the border gives away, the surest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Labelled photos, and the class that each was taken for."""

    photos: Sequence[Photo]
    """N, with their digests."""
    classes: NDArray[np.int64]
    """int64 (N,): the places of their nameplates."""
    groups: NDArray[np.int64]
    """int64 (N,): copies of one picture share a number."""
    named: NDArray[np.int64]
    """int64 (N,): what is said of the whole photos, out of fold."""

    def some(self, places: NDArray[np.int64]) -> Answered:
        """The photos at some places."""
        photos = [self.photos[place] for place in places.tolist()]
        return Answered(photos, self.classes[places], self.groups[places], self.named[places])


def shortcut_test(
    answered: Answered, nameplates: Sequence[str], model: Model, seed: int, progress: Progress
) -> Shortcuts | None:
    """Embed a sample of the photos with a part hidden, and judge.

    Args:
        answered: the photos.
        nameplates: the names of the classes.
        model: embeds.
        seed: of the folds.
        progress: see `Progress`.

    Returns:
        None where no class has photos enough.
    """
    sample = _sample(answered, len(nameplates))
    if len(np.unique(sample.classes)) < 2:
        return None
    from_border = _right(sample, "centre", model, seed, progress)
    from_centre = _right(sample, "border", model, seed, progress)
    whole = sample.named == sample.classes
    return Shortcuts(
        len(whole),
        wilson(int(whole.sum()), len(whole)),
        wilson(int(from_centre.sum()), len(whole)),
        wilson(int(from_border.sum()), len(whole)),
        float(np.bincount(sample.classes).max() / len(whole)),
        _telltales(sample.classes, from_border, nameplates),
    )


def _sample(answered: Answered, count: int) -> Answered:
    """`MOST_PHOTOS` photos of the classes that have `MIN_PHOTOS`, drawn by digest, so that all runs draw alike."""
    counts = np.bincount(answered.classes, minlength=count)
    chosen = np.flatnonzero(counts[answered.classes] >= MIN_PHOTOS)
    digests = [str(answered.photos[place].sha256) for place in chosen.tolist()]
    return answered.some(chosen[np.argsort(digests, kind="stable")][:MOST_PHOTOS])


def _telltales(
    classes: NDArray[np.int64], from_border: NDArray[np.bool_], nameplates: Sequence[str]
) -> tuple[Telltale, ...]:
    """Classes whose photos are known from the border alone, the surest first.

    Args:
        classes: int64 (N,).
        from_border: bool (N,), whether each photo was named rightly with its centre hidden.
        nameplates: the names of the classes.
    """
    found = []
    for number, nameplate in enumerate(nameplates):
        mine, others = from_border[classes == number], from_border[classes != number]
        if len(mine) < MIN_PHOTOS:
            continue
        share = wilson(int(mine.sum()), len(mine))
        if share.low > others.mean() + GIVEN_AWAY:
            found.append(Telltale(nameplate, share, len(mine)))
    return tuple(sorted(found, key=lambda telltale: -telltale.border.low))


def _right(sample: Answered, hide: Hidden, model: Model, seed: int, progress: Progress) -> NDArray[np.bool_]:
    """Whether each photo is named rightly with a part hidden, bool (N,); one that vanished is not."""
    embedded = embed_photos(sample.photos, model, progress, hide=hide)
    there = still_readable(sample.photos, embedded)
    read, groups = embedded.photos, sample.groups[there]
    # cross_validate wants classes that are numbered without gaps
    classes = np.searchsorted(np.unique(sample.classes), sample.classes)[there]
    fold = folds([str(p.label) for p in read], [str(p.sha256) for p in read], groups, FOLDS, seed)
    found = cross_validate(embedded.embeddings, classes, fold)
    right = np.zeros(len(there), bool)
    right[there] = found.logits.argmax(1) == classes
    return right
