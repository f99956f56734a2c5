"""`inspect`: look at a whole data set: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nameplate.audit.align import SIDE
from nameplate.audit.copies import Copies, connected, find_copies
from nameplate.audit.findings import CROSS_CLASS, EXACT, KINDS, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Finding
from nameplate.audit.labels import Alias, find_aliases, likely_wrong, suspicion
from nameplate.audit.look import Look, look_at
from nameplate.audit.shortcuts import Shortcuts, shortcut_test
from nameplate.audit.strangers import STRANGE, UNLIKE_CLASS, strangeness, unlike_class
from nameplate.datasets.sources import Dataset
from nameplate.datasets.splits import folds
from nameplate.models.collection import Embedded, Progress, embed_photos
from nameplate.models.head import cross_validate, probabilities
from nameplate.models.model import Model
from nameplate.types import Photo

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
    looks: tuple[Look | None, ...]
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
        model: embeds; its own head is not looked at.
        shortcuts: embed photos twice more, with a part hidden, to see what the background gives away.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos can be read.
    """
    embedded = embed_photos(dataset.photos, model, progress)
    photos = embedded.photos
    looks = look_at(photos, model.settings.threads, lambda done, of: progress("look", done, of))
    greys = np.stack([look.grey if look else np.zeros((SIDE, SIDE), np.uint8) for look in looks])
    digests = [str(photo.sha256) for photo in photos]
    copies = find_copies(
        digests, embedded.hashes, embedded.embeddings, greys, lambda done, of: progress("compare", done, of)
    )
    groups = connected(copies.pairs, len(photos))
    place = {name: number for number, name in enumerate(dataset.nameplates)}
    classes = np.array([place[str(photo.label)] for photo in photos], np.int64)
    chances = _second_opinions(embedded, classes, groups, progress)
    strange = strangeness(embedded.embeddings, chances)
    findings = [
        *(Finding(UNREADABLE, (path,), 1.0, reason) for path, reason in embedded.unreadable),
        *_of_copies(photos, copies, groups),
    ]
    aliases: tuple[Alias, ...] = ()
    shortcut = None
    if chances is not None:
        findings += _doubted(photos, classes, chances, strange, dataset.nameplates)
        aliases = find_aliases(chances, classes, dataset.nameplates)
        if shortcuts:
            named = chances.argmax(1)
            shortcut = shortcut_test(photos, classes, dataset.nameplates, groups, named, model, SEED, progress)
    within = unlike_class(embedded.embeddings, classes)
    findings += _outliers(photos, strange, within, {path for f in findings if f.kind == LABEL for path in f.photos})
    return Audit(
        dataset=dataset,
        photos=photos,
        looks=tuple(looks),
        findings=tuple(findings),
        aliases=aliases,
        accuracy=None if chances is None else float((chances.argmax(1) == classes).mean()),
        shortcuts=shortcut,
        runtime=embedded.runtime,
    )


def _second_opinions(
    embedded: Embedded, classes: NDArray[np.int64], groups: NDArray[np.int64], progress: Progress
) -> NDArray[np.float32] | None:
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
        found += _of_group(members, float(weakest[group]))
    return sorted(found, key=lambda finding: (KINDS.index(finding.kind), -finding.score))


def _of_group(members: Sequence[Photo], likeness: float) -> Iterator[Finding]:
    digests = [photo.sha256 for photo in members]
    paths = tuple(photo.path for photo in members)
    for digest in dict.fromkeys(digests):
        same = tuple(photo.path for photo in members if photo.sha256 == digest)
        if len(same) > 1:
            yield Finding(EXACT, same, 1.0, f"{len(same)} files of the same bytes")
    if len(set(digests)) > 1:
        yield Finding(NEAR, paths, likeness, f"one picture in {len(set(digests))} files: cropped, resized or mirrored")
    labels = sorted({str(photo.label) for photo in members})
    if len(labels) > 1:
        yield Finding(CROSS_CLASS, paths, likeness, f"one picture under {' and '.join(labels)}")
    parts = sorted({str(photo.split) for photo in members if photo.split})
    if len(parts) > 1:
        yield Finding(LEAK, paths, likeness, f"one picture in {' and '.join(parts)}")


def _doubted(
    photos: Sequence[Photo],
    classes: NDArray[np.int64],
    chances: NDArray[np.float32],
    strange: NDArray[np.float64],
    nameplates: Sequence[str],
) -> list[Finding]:
    """Labels that are likely wrong, the likeliest first; what is no car is told of elsewhere."""
    doubt = suspicion(chances, classes)
    share = 1 / (1 + np.exp(-doubt))
    counts = np.bincount(classes, minlength=len(nameplates))
    named = (likely_wrong(chances, classes) | (share >= DOUBTFUL)) & (doubt > 0)
    named &= (strange < STRANGE) & (counts[classes] >= MIN_LABELLED)
    found = []
    for i in sorted(np.flatnonzero(named).tolist(), key=lambda i: -doubt[i]):
        other = int(chances[i].argmax())
        sure = f"{chances[i, other]:.0%} to {chances[i, classes[i]]:.0%}"
        detail = f"labelled {photos[i].label}, looks like {nameplates[other]} ({sure})"
        found.append(Finding(LABEL, (photos[i].path,), float(share[i]), detail))
    return found


def _outliers(
    photos: Sequence[Photo], strange: NDArray[np.float64], within: NDArray[np.float64], told: set[str]
) -> list[Finding]:
    """What is unlike all photos, and after it what is unlike its class alone and not told of already."""
    order = np.argsort(-strange, kind="stable").tolist()
    found = [
        Finding(
            OUTLIER, (photos[i].path,), float(strange[i] / (strange[i] + STRANGE)), "unlike the photos of any class"
        )
        for i in order
        if strange[i] >= STRANGE
    ]
    told = told | {finding.photos[0] for finding in found}
    for i in np.argsort(-within, kind="stable").tolist():
        if within[i] >= UNLIKE_CLASS and photos[i].path not in told:
            score = 0.5 * float(within[i] / (within[i] + UNLIKE_CLASS))
            found.append(Finding(OUTLIER, (photos[i].path,), score, f"unlike the other photos of {photos[i].label}"))
    return found
