"""Audit a whole data set (`inspect`): every `Finding` is one defect, with the photos that have it.

Copies come from `nameplate.data.split`, doubted labels and outliers from `nameplate.audit.labels`, the background test
from `nameplate.audit.shortcuts`. The page of an audit is `nameplate.report.audit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.audit.labels import (
    CLASS_OUTLIER_SCORE,
    OUTLIER_SCORE,
    Alias,
    find_aliases,
    known_to_heads,
    likely_wrong,
    ood_score,
    suspicion,
    unlike_class,
)
from nameplate.audit.shortcuts import LabelledSample, Shortcuts, shortcut_test
from nameplate.data.dataset import Dataset
from nameplate.data.split import Copies, best_copy, connected, find_copies, folds
from nameplate.images.phash import SIDE
from nameplate.model.classifier import cross_validate, probabilities
from nameplate.model.embeddings import DatasetEmbeddings, Progress, embed_photos
from nameplate.model.measurements import Measurements, measure_photos
from nameplate.model.model import Model
from nameplate.types import Doubles, Floats, Photo

UNREADABLE, EXACT, NEAR, CROSS_CLASS, LEAK, LABEL, OUTLIER = KINDS = (
    "unreadable",
    "exact-duplicate",
    "near-duplicate",
    "cross-class-duplicate",
    "leak",
    "suspect-label",
    "outlier",
)
"""The kinds of findings, in the order in which a report shows them."""
NOT_A_CAR_SCORE = 0.75
"""The score from which an outlier is what `identify` calls `not a car`; all other outliers have lower scores."""
SURE = {LABEL: 0.95, OUTLIER: NOT_A_CAR_SCORE}
"""The score from which a finding of a kind goes onto the list for `--exclude`; a person should look at those below it.
Findings of all other kinds always go onto the list."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect, with the photos that have it."""

    kind: str
    """One of `KINDS`."""
    photos: tuple[str, ...]
    """The paths, as in `Photo.path`: all copies of one photo, or a single photo."""
    score: float
    """How sure the finding is, 0–1; comparable within a kind."""
    detail: str
    """The reason, or the nameplate that the photo looks like, in words."""
    for_eyes: bool = False
    """Whether a person must look at it whatever its score, because its evidence is weak."""

    @property
    def sure(self) -> bool:
        """Whether it goes onto the list for `--exclude`, see `SURE`."""
        return not self.for_eyes and self.score >= SURE.get(self.kind, 0)


FOLDS, SEED = 5, 20
"""Folds and seed of the cross-validation that gives every photo out-of-fold probabilities."""
MIN_LABELLED = 5
"""The number of photos of a class below which its labels are not doubted, because no head can learn it."""
DOUBTFUL = 0.9
"""The score from which a label is doubted even where confident learning does not doubt it. The score is p / (p + q),
with p the probability of the most probable other class and q that of the label."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit."""

    dataset: Dataset
    photos: tuple[Photo, ...]
    """The N readable photos, with SHA-256 and size."""
    measurements: tuple[Measurements | None, ...]
    """Size, brightness and sharpness of each of them; None where the file vanished meanwhile."""
    findings: tuple[Finding, ...]
    """Ordered by kind, and within a kind by descending score."""
    aliases: tuple[Alias, ...]
    """Pairs of classes that heads cannot tell apart."""
    accuracy: float | None
    """Out-of-fold top-1 of heads on these photos; None where there are too few photos for cross-validation."""
    shortcuts: Shortcuts | None
    """None where the test was not asked for, or there are too few photos for it."""
    runtime: str


def inspect(dataset: Dataset, model: Model, *, shortcuts: bool = True, progress: Progress = lambda *_: None) -> Audit:
    """Audit a data set.

    Args:
        dataset: Labelled photos.
        model: Embeds the photos and decides `not a car`; its head is not used.
        shortcuts: Embed photos twice more, each time with a part hidden, to test what the background gives away.
        progress: See `Progress`.

    Raises:
        DataError: None of the photos can be read.
    """
    embedded = embed_photos(dataset.photos, model, progress)
    photos = embedded.photos
    measurements = measure_photos(photos, model.settings.threads, lambda done, of: progress("look", done, of))
    copies = _copies(embedded, measurements, progress)
    groups = connected(copies.pairs, len(photos))
    columns = {name: number for number, name in enumerate(dataset.nameplates)}
    classes = np.array([columns[str(photo.label)] for photo in photos], np.int64)
    probs = _second_opinions(embedded, classes, groups, progress)
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
        # Labels are not doubted where another finding already removes the photo.
        doubtful = np.array([photo.path not in crossing for photo in photos]) & (no_car <= 0)
        findings += _doubted(photos, classes, probs, doubtful, dataset.nameplates)
        aliases = find_aliases(probs, classes, dataset.nameplates)
        if shortcuts:
            sample = LabelledSample(photos, classes, groups, probs.argmax(1))
            shortcut = shortcut_test(sample, dataset.nameplates, model, SEED, progress)
    suspects = {path for finding in findings if finding.kind == LABEL for path in finding.photos}
    ood, within = ood_score(embedded.embeddings, probs), unlike_class(embedded.embeddings, classes)
    findings += _outliers(photos, no_car, ood, within, suspects)
    return Audit(
        dataset=dataset,
        photos=photos,
        measurements=tuple(measurements),
        findings=tuple(findings),
        aliases=aliases,
        accuracy=None if probs is None else float((probs.argmax(1) == classes).mean()),
        shortcuts=shortcut,
        runtime=embedded.runtime,
    )


def _copies(embedded: DatasetEmbeddings, measurements: Sequence[Measurements | None], progress: Progress) -> Copies:
    """Pairs of copies among the readable photos; one that vanished is black and correlates with nothing."""
    greys = np.stack([each.grey if each else np.zeros((SIDE, SIDE), np.uint8) for each in measurements])
    digests = [str(photo.sha256) for photo in embedded.photos]
    return find_copies(
        digests, embedded.hashes, embedded.embeddings, greys, lambda done, of: progress("compare", done, of)
    )


def _second_opinions(
    embedded: DatasetEmbeddings, classes: NDArray[np.int64], groups: NDArray[np.int64], progress: Progress
) -> Floats | None:
    """Out-of-fold probabilities, float32 N×C; None unless two classes have two photos and there are two folds."""
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
    """The findings about copies; one group of copies can have several."""
    weakest = np.ones(len(photos))  # the lowest correlation within each group: a group is as sure as its weakest link
    np.minimum.at(weakest, groups[copies.pairs[:, 0]], copies.likeness)
    found: list[Finding] = []
    for group in np.unique(groups[copies.pairs[:, 0]]).tolist():
        members = [photos[i] for i in np.flatnonzero(groups == group).tolist()]
        found += copy_findings(members, float(weakest[group]))
    return sorted(found, key=lambda finding: (KINDS.index(finding.kind), -finding.score))


def copy_findings(members: Sequence[Photo], likeness: float) -> Iterator[Finding]:
    """The findings about one group of copies; each file is in one finding, the most serious one.

    Copies under several classes are not also reported as leak or duplicates, because all of them are left out anyway.
    Where identical files have further copies, only the one of them that would be kept is compared with those.

    Args:
        members: The copies, two or more.
        likeness: The lowest correlation among them, which is the score.
    """
    paths = tuple(photo.path for photo in members)
    labels = sorted({photo.label for photo in members if photo.label is not None})
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
    """The findings about labels that are probably wrong, the most probable first.

    Photos that are not `doubtful` are skipped: they are copies under several classes, or not a car, and other findings
    report them.
    """
    doubt = suspicion(probs, classes)
    # The logistic function of the log-odds: the probability of the other class if only these two were possible.
    share = 1 / (1 + np.exp(-doubt))
    counts = np.bincount(classes, minlength=len(nameplates))
    suspect = (likely_wrong(probs, classes) | (share >= DOUBTFUL)) & (doubt > 0)
    suspect &= doubtful & (counts[classes] >= MIN_LABELLED)
    known = known_to_heads(probs, classes)
    found = []
    for i in sorted(np.flatnonzero(suspect).tolist(), key=lambda i: -doubt[i]):
        other = int(probs[i].argmax())
        sure = f"{probs[i, other]:.0%} to {probs[i, classes[i]]:.0%}"
        detail = f"labelled {photos[i].label}, looks like {nameplates[other]} ({sure})"
        found.append(Finding(LABEL, (photos[i].path,), float(share[i]), detail, for_eyes=not bool(known[i])))
    return found


def _outliers(
    photos: Sequence[Photo],
    no_car: Doubles,
    ood: Doubles,
    within: Doubles,
    reported: set[str],
) -> list[Finding]:
    """The findings about outliers: each photo once, and none that is `reported` already.

    First come photos that are not a car, with scores from `NOT_A_CAR_SCORE`; then photos unlike all others, from 0.5;
    then photos unlike the rest of their class. Each measure is mapped to its own range of scores.
    """
    found: list[Finding] = []
    for values, least, floor, room, detail in (
        (no_car, 0.0, NOT_A_CAR_SCORE, 1 - NOT_A_CAR_SCORE, "not a car, or a part of one"),
        (ood, OUTLIER_SCORE, 0.5, NOT_A_CAR_SCORE - 0.5, "unlike the photos of any class"),
        (within, CLASS_OUTLIER_SCORE, 0.0, 0.5, "unlike the other photos of {}"),
    ):
        for i in np.argsort(-values, kind="stable").tolist():
            if values[i] <= least or photos[i].path in reported:
                continue
            beyond = float(values[i] - least)
            score = floor + room * beyond / (beyond + 1)  # any excess, however large, stays within its range
            found.append(Finding(OUTLIER, (photos[i].path,), score, detail.format(photos[i].label)))
            reported = reported | {photos[i].path}
    return found
