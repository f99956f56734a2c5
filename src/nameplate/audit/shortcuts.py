"""`shortcut_test`: whether something beside the car gives its class away: a watermark, a plate, a dealer's yard.

Heads are trained and judged, out of fold, on photos of which only the border is left, and on photos of which only the
centre is left (as J. Zech et al., PLoS Medicine 15, 2018, asked of X-rays: what is seen where nothing can be seen?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.splits import folds
from nameplate.evaluation.metrics import wilson
from nameplate.models.collection import Progress, embed_photos, still_there
from nameplate.models.head import cross_validate
from nameplate.models.model import Model
from nameplate.models.pipeline import Hidden
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


def shortcut_test(
    photos: Sequence[Photo],
    classes: NDArray[np.int64],
    nameplates: Sequence[str],
    groups: NDArray[np.int64],
    named: NDArray[np.int64],
    model: Model,
    seed: int,
    progress: Progress,
) -> Shortcuts | None:
    """Embed a sample of the photos with a part hidden, and judge.

    Args:
        photos: with their digests.
        classes: int64 (N,).
        nameplates: their names.
        groups: int64 (N,): copies of one picture share a number.
        named: int64 (N,): what is said of the whole photos, out of fold.
        model: embeds.
        seed: of the folds.
        progress: see `Progress`.

    Returns:
        None where no class has photos enough.
    """
    counts = np.bincount(classes, minlength=len(nameplates))
    chosen = np.flatnonzero(counts[classes] >= MIN_PHOTOS)
    chosen = chosen[np.argsort([str(photos[i].sha256) for i in chosen.tolist()], kind="stable")][:MOST_PHOTOS]
    if len(np.unique(classes[chosen])) < 2:
        return None
    there = np.unique(classes[chosen])
    place = np.searchsorted(there, classes)
    right: dict[Hidden, NDArray[np.bool_]] = {}
    for hide in ("centre", "border"):
        right[hide] = _right(photos, place, groups, chosen, hide, model, seed, progress)
    from_border, from_centre = right["centre"], right["border"]
    telltales = []
    for number, nameplate in enumerate(nameplates):
        mine, others = from_border[classes[chosen] == number], from_border[classes[chosen] != number]
        if len(mine) < MIN_PHOTOS:
            continue
        share = wilson(int(mine.sum()), len(mine))
        if share.low > others.mean() + GIVEN_AWAY:
            telltales.append(Telltale(nameplate, share, len(mine)))
    whole = named[chosen] == classes[chosen]
    return Shortcuts(
        len(chosen),
        wilson(int(whole.sum()), len(chosen)),
        wilson(int(from_centre.sum()), len(chosen)),
        wilson(int(from_border.sum()), len(chosen)),
        float(np.bincount(classes[chosen]).max() / len(chosen)),
        tuple(sorted(telltales, key=lambda telltale: -telltale.border.low)),
    )


def _right(
    photos: Sequence[Photo],
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    chosen: NDArray[np.int64],
    hide: Hidden,
    model: Model,
    seed: int,
    progress: Progress,
) -> NDArray[np.bool_]:
    """Whether each chosen photo is known with a part hidden; one that vanished is not."""
    sample = [photos[i] for i in chosen.tolist()]
    embedded = embed_photos(sample, model, progress, hide=hide)
    kept = chosen[still_there(sample, embedded)]
    read = embedded.photos
    fold = folds([str(p.label) for p in read], [str(p.sha256) for p in read], groups[kept], FOLDS, seed)
    found = cross_validate(embedded.embeddings, classes[kept], fold)
    right = np.zeros(len(photos), bool)
    right[kept] = found.logits.argmax(1) == classes[kept]
    return right[chosen]
