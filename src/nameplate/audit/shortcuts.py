"""Test for shortcuts (`shortcut_test`): does anything beside the car give its class away, such as a watermark?

Heads are trained and evaluated, out of fold, on photos that show only the border, and on photos that show only the
centre. J. Zech et al. (PLoS Medicine 15, 2018) found such shortcuts in X-rays: heads that name the class where no car
can be seen use something else.
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
"""The largest number of photos that are embedded twice more; they are drawn by SHA-256."""
MIN_PHOTOS = 10
"""The number of photos of a class below which it is left out of the test."""
FOLDS = 3
"""Folds of the cross-validation on photos with a part hidden."""
GIVEN_AWAY = 0.25
"""A class is reported where its recall from the border alone, by the lower end of its interval, exceeds that of the
other classes by this."""


@dataclass(frozen=True, slots=True)
class Telltale:
    """A class that the borders of its photos give away."""

    nameplate: str
    border: Metric
    """Its recall from the border alone."""
    photos: int
    """The number of its photos in the sample."""


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """Top-1 of heads when a part of each photo is hidden, out of fold."""

    # The names of the fields are the keys of the report's JSON.
    photos: int
    """The number of photos in the sample."""
    whole: Metric
    """Top-1 on the photos with nothing hidden, as the model takes them: located or whole."""
    centre: Metric
    """Top-1 with the border hidden."""
    border: Metric
    """Top-1 with the centre hidden."""
    guessing: float
    """Top-1 of always predicting the largest class."""
    telltales: tuple[Telltale, ...]
    """Classes that the border gives away, in descending order of certainty."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSample:
    """Labelled photos with the class that heads predict for each."""

    photos: Sequence[Photo]
    """The N photos, with their SHA-256."""
    classes: NDArray[np.int64]
    """int64 (N,), the true classes."""
    groups: NDArray[np.int64]
    """int64 (N,); copies of one photo share a number."""
    y_pred: NDArray[np.int64]
    """int64 (N,), the classes predicted with nothing hidden, out of fold."""

    def some(self, indices: NDArray[np.int64]) -> LabelledSample:
        """The sample of the photos with these indices, int64 (M,)."""
        photos = [self.photos[i] for i in indices.tolist()]
        return LabelledSample(photos, self.classes[indices], self.groups[indices], self.y_pred[indices])


def shortcut_test(
    everything: LabelledSample, nameplates: Sequence[str], model: Model, seed: int, progress: Progress
) -> Shortcuts | None:
    """Measure top-1 on a sample of the photos with a part hidden.

    Args:
        everything: All photos; at most `MOST_PHOTOS` are used.
        nameplates: The names of the classes.
        model: Embeds the photos.
        seed: The seed of the folds.
        progress: See `Progress`.

    Returns:
        None where fewer than two classes have `MIN_PHOTOS` photos.
    """
    sample = _sample(everything, len(nameplates))
    if len(np.unique(sample.classes)) < 2:
        return None
    # A crop of the car would hide most of the background already, and with it what this test looks for.
    whole_photos = model.with_settings(cars="whole")
    from_border = _right(sample, "centre", whole_photos, seed, progress)
    from_centre = _right(sample, "border", whole_photos, seed, progress)
    whole = sample.y_pred == sample.classes
    return Shortcuts(
        len(whole),
        wilson(int(whole.sum()), len(whole)),
        wilson(int(from_centre.sum()), len(whole)),
        wilson(int(from_border.sum()), len(whole)),
        float(np.bincount(sample.classes).max() / len(whole)),
        _telltales(sample.classes, from_border, nameplates),
    )


def _sample(everything: LabelledSample, count: int) -> LabelledSample:
    """Draw `MOST_PHOTOS` photos of the classes that have `MIN_PHOTOS`, by SHA-256, so that every run draws the same."""
    counts = np.bincount(everything.classes, minlength=count)
    chosen = np.flatnonzero(counts[everything.classes] >= MIN_PHOTOS)
    digests = [str(everything.photos[i].sha256) for i in chosen.tolist()]
    return everything.some(chosen[np.argsort(digests, kind="stable")][:MOST_PHOTOS])


def _telltales(
    classes: NDArray[np.int64], from_border: NDArray[np.bool_], nameplates: Sequence[str]
) -> tuple[Telltale, ...]:
    """Find classes that are predicted from the border alone, in descending order of certainty.

    Args:
        classes: int64 (N,).
        from_border: bool (N,), whether the prediction was right with the centre hidden.
        nameplates: The names of the classes.
    """
    found = []
    for number, nameplate in enumerate(nameplates):
        mine, others = from_border[classes == number], from_border[classes != number]
        if len(mine) < MIN_PHOTOS:
            continue
        share = wilson(int(mine.sum()), len(mine))
        # Compared with the other classes: a border that helps all classes alike is no shortcut of one of them.
        if share.low > others.mean() + GIVEN_AWAY:
            found.append(Telltale(nameplate, share, len(mine)))
    return tuple(sorted(found, key=lambda telltale: -telltale.border.low))


def _right(sample: LabelledSample, hide: Hidden, model: Model, seed: int, progress: Progress) -> NDArray[np.bool_]:
    """Whether the prediction is right with a part hidden, bool (N,); False for a photo that vanished meanwhile."""
    embedded = embed_photos(sample.photos, model, progress, hide=hide)
    there = still_readable(sample.photos, embedded)
    read, groups = embedded.photos, sample.groups[there]
    # cross_validate needs classes that are numbered without gaps, and small classes are not in the sample.
    classes = np.searchsorted(np.unique(sample.classes), sample.classes)[there]
    fold = folds([str(p.label) for p in read], [str(p.sha256) for p in read], groups, FOLDS, seed)
    found = cross_validate(embedded.embeddings, classes, fold)
    right = np.zeros(len(there), bool)
    right[there] = found.logits.argmax(1) == classes
    return right
