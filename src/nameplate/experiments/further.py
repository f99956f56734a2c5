"""Which of one data set's classes are which of another's."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nameplate.audit.inspect import CROSS_CLASS, EXACT, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Finding
from nameplate.data.split import best_copy
from nameplate.data.tables import read_table
from nameplate.errors import DataError, UsageError, did_you_mean
from nameplate.storage import nfc
from nameplate.types import Photo


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Where each class of one data set belongs in another."""

    mapped: dict[str, str]
    """Class → nameplate of the other data set."""
    left_out: tuple[str, ...] = ()
    """Classes that the map's file says to leave out."""
    unmapped: tuple[str, ...] = ()
    """Classes that belong nowhere."""
    nearest: dict[str, str] | None = None
    """Unmapped class → the nameplate whose name is nearest, where one is near."""


def map_classes(classes: Sequence[str], nameplates: Sequence[str], given: Mapping[str, str] | None = None) -> ClassMap:
    """Match classes by name: as `given` says, else exactly, else by letters and digits alone in any case.

    Where two nameplates have the same letters and digits, only their exact names match.

    Args:
        classes: to be mapped.
        nameplates: to map them to.
        given: class → nameplate; an empty one leaves the class out.

    Raises:
        UsageError: `given` names a class or a nameplate that is not there.
    """
    given = given or {}
    _refuse_unknown(given, classes, nameplates)
    by_letters: dict[str, list[str]] = {}
    for name in nameplates:
        by_letters.setdefault(_letters(name), []).append(name)
    mapped: dict[str, str] = {}
    for name in classes:
        same = by_letters.get(_letters(name), [])
        if name in given:
            mapped[name] = given[name]
        elif name in nameplates:
            mapped[name] = name
        elif len(same) == 1 and _letters(name):
            mapped[name] = same[0]
    unmapped = tuple(name for name in classes if name not in mapped)
    return ClassMap(
        {name: to for name, to in mapped.items() if to},
        tuple(name for name, to in mapped.items() if not to),
        unmapped,
        _nearest(unmapped, nameplates),
    )


def read_class_map(path: Path) -> dict[str, str]:
    """Class → nameplate from a table with the columns extra and base; an empty base leaves the class out.

    Raises:
        DataError: unreadable, without these columns, or with a class that stands twice.
    """
    rows = read_table(path)
    if not {"extra", "base"} <= rows[0].keys():
        raise DataError(f"'{path}' has the columns {', '.join(rows[0])}; it needs extra and base.")
    given: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name = nfc(row["extra"].strip())
        if name in given:
            raise DataError(f"'{path}', row {number}: class '{name}' stands there a second time.")
        given[name] = nfc(row["base"].strip())
    return given


def nothing_maps(found: ClassMap, nameplates: Sequence[str]) -> DataError:
    """What to say where no class is left."""
    pairs = [f"'{name}' (near '{near}')" for name, near in (found.nearest or {}).items()]
    shown = pairs or [f"'{name}'" for name in (*found.unmapped, *found.left_out)]
    known = ", ".join(f"'{name}'" for name in nameplates[:5]) + ", …" * (len(nameplates) > 5)
    return DataError(
        f"No class of EXTRA is one of BASE's. EXTRA has {', '.join(shown[:5])}{', …' * (len(shown) > 5)}; "
        f"BASE has {known}. Say which is which in a table with the columns extra and base: --map FILE."
    )


def _letters(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold().replace("ё", "е")
    return "".join(sign for sign in folded if sign.isalnum())


def _nearest(names: Sequence[str], nameplates: Sequence[str]) -> dict[str, str]:
    by_letters = {_letters(name): name for name in nameplates}
    near = {name: difflib.get_close_matches(_letters(name), by_letters, n=1) for name in names}
    return {name: by_letters[found[0]] for name, found in near.items() if found}


def _refuse_unknown(given: Mapping[str, str], classes: Sequence[str], nameplates: Sequence[str]) -> None:
    for name, to in given.items():
        if name not in classes:
            raise UsageError(f"--map: EXTRA has no class '{name}'.{did_you_mean(name, classes)}")
        if to and to not in nameplates:
            raise UsageError(
                f"--map: BASE has no nameplate '{to}' with photos to train on.{did_you_mean(to, nameplates)}"
            )


# JOINED What must leave further photos before they may train: what cannot, and what would spoil the comparison.


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
    evaluation = [path for path in ours if own[path].split != "train"]
    if evaluation:
        return [TakenOut(photo.path, OF_HELD, evaluation[0]) for photo in photos]
    if ours:
        return [TakenOut(photo.path, OF_TRAIN, ours[0]) for photo in photos]
    if len({photo.label for photo in photos}) > 1:
        paths = [photo.path for photo in photos]
        return [TakenOut(path, CONTRADICTS, next(other for other in paths if other != path)) for path in paths]
    if not photos:
        return []
    best = best_copy(photos).path
    return [TakenOut(photo.path, REPEATED, best) for photo in photos if photo.path != best]
