"""What must leave further photos before they may train: what cannot, and what would spoil the comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nameplate.audit.findings import CROSS_CLASS, EXACT, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Finding
from nameplate.datasets.copies import best_copy
from nameplate.types import Photo

UNREAD, NO_CAR, OF_HELD, ADVERT_OF_HELD, OF_TRAIN, CONTRADICTS, REPEATED = REASONS = (
    "unreadable",
    "not a car",
    "copy of a photo that judges",
    "same group as a photo that judges",
    "copy of a training photo",
    "copies under two nameplates",
    "copy of another photo of EXTRA",
)
"""Why a photo is taken out, the weightiest first."""
COPIES = (EXACT, NEAR, CROSS_CLASS, LEAK)
"""Findings that list the copies of one picture."""


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A photo that may not train."""

    path: str
    reason: str
    """One of `REASONS`."""
    detail: str = ""
    """The photo that it is a copy of, or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Further photos after cleaning."""

    kept: tuple[Photo, ...]
    taken_out: tuple[TakenOut, ...]
    """In the order of `REASONS`."""
    suspects: tuple[Finding, ...]
    """Kept photos that look like another nameplate: a person should look at them."""

    @property
    def counts(self) -> dict[str, int]:
        """Reason → photos taken out for it."""
        found = Counter(entry.reason for entry in self.taken_out)
        return {reason: found[reason] for reason in REASONS if reason in found}


def clean(extra: Sequence[Photo], base: Sequence[Photo], findings: Iterable[Finding]) -> Cleaning:
    """Take out what must not train.

    Copies of photos that judge would be questions whose answers were learnt. Copies of training photos, and of one
    another, are no further photos: they would only weigh more, and the number of photos added would mislead; the
    best of several stays (`best_copy`). Where copies lie under two nameplates one must be wrong, so none stays.

    Args:
        extra: the further photos, under BASE's nameplates.
        base: BASE's photos with their parts; all that do not train are kept apart from training.
        findings: about all of them together; about BASE alone they are passed over.
    """
    findings, own = list(findings), {photo.path: photo for photo in base}
    places = {photo.path: place for place, photo in enumerate(extra)}
    reasons: dict[str, TakenOut] = {}

    def take(path: str, reason: str, detail: str) -> None:
        if path in places:
            reasons.setdefault(path, TakenOut(path, reason, detail))

    for finding in findings:
        if finding.kind in (UNREADABLE, OUTLIER) and finding.sure:
            for path in finding.photos:
                take(path, UNREAD if finding.kind == UNREADABLE else NO_CAR, finding.detail)
    adverts = {photo.group: photo.path for photo in reversed(base) if photo.group and photo.split != "train"}
    for photo in extra:
        if photo.group in adverts:
            take(photo.path, ADVERT_OF_HELD, adverts[photo.group])
    for members in _copies(findings, own, extra):
        there = sorted(places[path] for path in members if path in places and path not in reasons)
        for entry in _spare(members, own, [extra[place] for place in there]):
            take(entry.path, entry.reason, entry.detail)
    kept = tuple(photo for photo in extra if photo.path not in reasons)
    stay = {photo.path for photo in kept}
    return Cleaning(
        kept,
        tuple(sorted(reasons.values(), key=lambda entry: (REASONS.index(entry.reason), entry.path))),
        tuple(finding for finding in findings if finding.kind == LABEL and set(finding.photos) <= stay),
    )


def _copies(findings: Iterable[Finding], own: dict[str, Photo], extra: Sequence[Photo]) -> list[set[str]]:
    """Sets of paths that are copies of one picture; a file that both data sets name is a copy of itself."""
    where: dict[str, set[str]] = {}
    found = [set(finding.photos) for finding in findings if finding.kind in COPIES]
    for members in [*found, *({photo.path} for photo in extra if photo.path in own)]:
        merged = members.union(*(where[path] for path in members if path in where))
        where.update(dict.fromkeys(merged, merged))
    return list({id(members): members for members in where.values()}.values())


def _spare(members: set[str], own: dict[str, Photo], photos: Sequence[Photo]) -> list[TakenOut]:
    """Which of the copies of one picture must go; `photos` are those of EXTRA among them."""
    ours = sorted(path for path in members if path in own)
    judging = [path for path in ours if own[path].split != "train"]
    if judging:
        return [TakenOut(photo.path, OF_HELD, judging[0]) for photo in photos]
    if ours:
        return [TakenOut(photo.path, OF_TRAIN, ours[0]) for photo in photos]
    if len({photo.label for photo in photos}) > 1:
        paths = [photo.path for photo in photos]
        return [TakenOut(path, CONTRADICTS, next(other for other in paths if other != path)) for path in paths]
    if not photos:
        return []
    best = best_copy(photos).path
    return [TakenOut(photo.path, REPEATED, best) for photo in photos if photo.path != best]
