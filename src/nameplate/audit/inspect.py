"""`inspect`: look at a whole data set: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.audit.labels import (
    STRANGE,
    UNLIKE_CLASS,
    Alias,
    find_aliases,
    known_to_heads,
    likely_wrong,
    ood_score,
    suspicion,
    unlike_class,
)
from nameplate.audit.shortcuts import Answered, Shortcuts, shortcut_test
from nameplate.data.dataset import Dataset
from nameplate.data.split import Copies, best_copy, connected, find_copies, folds
from nameplate.images.phash import SIDE
from nameplate.model.classifier import cross_validate, probabilities
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.measurements import Measurements, measure_photos
from nameplate.model.model import Model
from nameplate.types import Doubles, Floats, Photo

# JOINED `Finding`: one thing that is wrong with photos of a data set.


UNREADABLE, EXACT, NEAR, CROSS_CLASS, LEAK, LABEL, OUTLIER = KINDS = (
    "unreadable",
    "exact-duplicate",
    "near-duplicate",
    "cross-class-duplicate",
    "leak",
    "suspect-label",
    "outlier",
)
"""Of findings, in the order in which a report shows them."""
NO_CAR = 0.75
"""Score from which an outlier is what `identify` calls "not a car"; others are below it."""
SURE = {LABEL: 0.95, OUTLIER: NO_CAR}
"""Score from which findings of a kind are acted on unseen; the others are for eyes. All other kinds are sure."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, with the photos that it is of."""

    kind: str
    """One of `KINDS`."""
    photos: tuple[str, ...]
    """Paths, as `Photo.path`: all copies of one picture, or the one photo that it is of."""
    score: float
    """How sure it is, 0–1; comparable within a kind."""
    detail: str
    """One sentence: the reason, or the nameplate that it looks like."""
    for_eyes: bool = False
    """Whether what tells it is not to be relied on, whatever the score."""

    @property
    def sure(self) -> bool:
        """Whether to act on it unseen: `SURE`."""
        return not self.for_eyes and self.score >= SURE.get(self.kind, 0)


FOLDS, SEED = 5, 20
"""Of the cross-validation that gives every photo a second opinion."""
MIN_LABELLED = 5
"""Photos of a class below which its labels are not doubted: a head cannot know the class."""
DOUBTFUL = 0.9
"""Share of the two probabilities (label's and the other's) that the other has, from which a label is doubted also
where confident learning does not."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found."""

    dataset: Dataset
    photos: tuple[Photo, ...]
    """Those that can be read, with digest and size."""
    looks: tuple[Measurements | None, ...]
    """What each of them is like; None where it vanished meanwhile."""
    findings: tuple[Finding, ...]
    """By kind, and within a kind the worst first."""
    aliases: tuple[Alias, ...]
    """Classes that cannot be told apart."""
    accuracy: float | None
    """Out-of-fold top-1 of a head on these photos; None where there is nothing to cross-validate."""
    shortcuts: Shortcuts | None
    """None where it was not asked for, or there is too little to tell."""
    runtime: str


def inspect(dataset: Dataset, model: Model, *, shortcuts: bool = True, progress: Progress = lambda *_: None) -> Audit:
    """Audit a data set.

    Args:
        dataset: labelled photos.
        model: embeds, and says what is no car; its own head is not looked at.
        shortcuts: embed photos twice more, with a part hidden, to see what the background gives away.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos can be read.
    """
    embedded = embed_photos(dataset.photos, model, progress)
    photos = embedded.photos
    looks = measure_photos(photos, model.settings.threads, lambda done, of: progress("look", done, of))
    greys = np.stack([look.grey if look else np.zeros((SIDE, SIDE), np.uint8) for look in looks])
    digests = [str(photo.sha256) for photo in photos]
    copies = find_copies(
        digests, embedded.hashes, embedded.embeddings, greys, lambda done, of: progress("compare", done, of)
    )
    groups = connected(copies.pairs, len(photos))
    place = {name: number for number, name in enumerate(dataset.nameplates)}
    classes = np.array([place[str(photo.label)] for photo in photos], np.int64)
    probs = _second_opinions(embedded, classes, groups, progress)
    strange = ood_score(embedded.embeddings, probs)
    findings = [
        *(Finding(UNREADABLE, (path,), 1.0, reason) for path, reason in embedded.unreadable),
        *_of_copies(photos, copies, groups),
    ]
    crossing = {path for finding in findings if finding.kind == CROSS_CLASS for path in finding.photos}
    margin = model.car_margin(embedded.embeddings)
    no_car = np.full(len(photos), -np.inf) if margin is None else margin.astype(np.float64)
    aliases: tuple[Alias, ...] = ()
    shortcut = None
    if probs is not None:
        doubtful = np.array([photo.path not in crossing for photo in photos]) & (no_car <= 0)
        findings += _doubted(photos, classes, probs, doubtful, dataset.nameplates)
        aliases = find_aliases(probs, classes, dataset.nameplates)
        if shortcuts:
            answered = Answered(photos, classes, groups, probs.argmax(1))
            shortcut = shortcut_test(answered, dataset.nameplates, model, SEED, progress)
    within = unlike_class(embedded.embeddings, classes)
    findings += _outliers(photos, no_car, strange, within, {p for f in findings if f.kind == LABEL for p in f.photos})
    return Audit(
        dataset=dataset,
        photos=photos,
        looks=tuple(looks),
        findings=tuple(findings),
        aliases=aliases,
        accuracy=None if probs is None else float((probs.argmax(1) == classes).mean()),
        shortcuts=shortcut,
        runtime=embedded.runtime,
    )


def _second_opinions(
    embedded: DatasetEmbeddings, classes: NDArray[np.int64], groups: NDArray[np.int64], progress: Progress
) -> Floats | None:
    """Out-of-fold probabilities, N×C; None where there are not two classes, each in two folds."""
    photos = embedded.photos
    fold = folds([str(p.label) for p in photos], [str(p.sha256) for p in photos], groups, FOLDS, SEED)
    enough = np.bincount(classes) >= 2
    if enough.sum() < 2 or len(np.unique(fold)) < 2:
        return None
    found = cross_validate(
        embedded.embeddings, classes, fold, progress=lambda done, of: progress("second opinions", done, of)
    )
    return probabilities(found.logits, found.temperature)


def _of_copies(photos: Sequence[Photo], copies: Copies, groups: NDArray[np.int64]) -> list[Finding]:
    """What copies give: a group of them may be wrong in several ways."""
    weakest = np.ones(len(photos))  # link of each group
    np.minimum.at(weakest, groups[copies.pairs[:, 0]], copies.likeness)
    found: list[Finding] = []
    for group in np.unique(groups[copies.pairs[:, 0]]).tolist():
        members = [photos[i] for i in np.flatnonzero(groups == group).tolist()]
        found += of_group(members, float(weakest[group]))
    return sorted(found, key=lambda finding: (KINDS.index(finding.kind), -finding.score))


def of_group(members: Sequence[Photo], likeness: float) -> Iterator[Finding]:
    """The findings about the copies of one picture: each file is told of once, by what weighs most.

    Copies under several classes are no leak besides, nor duplicates: all of them go. Where files of the same bytes have
    further copies, only the one of them that would stay is held against those.
    """
    paths = tuple(photo.path for photo in members)
    labels = sorted({str(photo.label) for photo in members})
    parts = sorted({str(photo.split) for photo in members if photo.split})
    if len(labels) > 1:
        where = f", in {' and '.join(parts)}" if len(parts) > 1 else ""
        yield Finding(CROSS_CLASS, paths, likeness, f"one picture under {' and '.join(labels)}{where}")
        return
    if len(parts) > 1:
        yield Finding(LEAK, paths, likeness, f"one picture in {' and '.join(parts)}")
        return
    kept: list[Photo] = []
    for digest in dict.fromkeys(photo.sha256 for photo in members):
        same = [photo for photo in members if photo.sha256 == digest]
        kept.append(best_copy(same))
        if len(same) > 1:
            yield Finding(EXACT, tuple(photo.path for photo in same), 1.0, f"{len(same)} files of the same bytes")
    if len(kept) > 1:
        what = f"one picture in {len(kept)} files: cropped, resized or mirrored"
        yield Finding(NEAR, tuple(photo.path for photo in kept), likeness, what)


def _doubted(
    photos: Sequence[Photo],
    classes: NDArray[np.int64],
    probs: Floats,
    doubtful: NDArray[np.bool_],
    nameplates: Sequence[str],
) -> list[Finding]:
    """Labels that are likely wrong, the likeliest first; what is not `doubtful`, being no car or a copy under another
    class, is told of elsewhere.
    """
    doubt = suspicion(probs, classes)
    share = 1 / (1 + np.exp(-doubt))
    counts = np.bincount(classes, minlength=len(nameplates))
    named = (likely_wrong(probs, classes) | (share >= DOUBTFUL)) & (doubt > 0)
    named &= doubtful & (counts[classes] >= MIN_LABELLED)
    known = known_to_heads(probs, classes)
    found = []
    for i in sorted(np.flatnonzero(named).tolist(), key=lambda i: -doubt[i]):
        other = int(probs[i].argmax())
        sure = f"{probs[i, other]:.0%} to {probs[i, classes[i]]:.0%}"
        detail = f"labelled {photos[i].label}, looks like {nameplates[other]} ({sure})"
        found.append(Finding(LABEL, (photos[i].path,), float(share[i]), detail, for_eyes=not bool(known[i])))
    return found


def _outliers(
    photos: Sequence[Photo],
    no_car: Doubles,
    strange: Doubles,
    within: Doubles,
    told: set[str],
) -> list[Finding]:
    """What is no car as `identify` says it (scores from `NO_CAR`), then what is unlike all photos (from 0.5), then
    what is unlike its class alone; each photo once, and none that is told of already.
    """
    found: list[Finding] = []
    for values, least, floor, room, detail in (
        (no_car, 0.0, NO_CAR, 1 - NO_CAR, "not a car, or a part of one"),
        (strange, STRANGE, 0.5, NO_CAR - 0.5, "unlike the photos of any class"),
        (within, UNLIKE_CLASS, 0.0, 0.5, "unlike the other photos of {}"),
    ):
        for i in np.argsort(-values, kind="stable").tolist():
            if values[i] <= least or photos[i].path in told:
                continue
            beyond = float(values[i] - least)
            score = floor + room * beyond / (beyond + 1)
            found.append(Finding(OUTLIER, (photos[i].path,), score, detail.format(photos[i].label)))
            told = told | {photos[i].path}
    return found
