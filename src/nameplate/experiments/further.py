"""Prepares further photos for training: maps their classes to nameplates of BASE, and removes unsuitable photos."""

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
    """Which class of EXTRA is which nameplate of BASE. The field names are keys of extra-data.json."""

    mapped: dict[str, str]
    """Class → nameplate of BASE."""
    left_out: tuple[str, ...] = ()
    """Classes that the user left out by the map."""
    unmapped: tuple[str, ...] = ()
    """Classes without a nameplate in BASE."""
    nearest: dict[str, str] | None = None
    """Unmapped class → the nameplate with the most similar name, where there is a similar one."""


def map_classes(classes: Sequence[str], nameplates: Sequence[str], given: Mapping[str, str] | None = None) -> ClassMap:
    """Match classes to nameplates: by `given`, otherwise by equal names, otherwise by letters and digits in any case.

    Where two nameplates have the same letters and digits, only equal names match.

    Args:
        classes: the classes of EXTRA.
        nameplates: the nameplates of BASE.
        given: class → nameplate; an empty nameplate leaves the class out.

    Raises:
        UsageError: `given` contains an unknown class or nameplate.
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
    # An empty nameplate in `given` counts as mapped here: the user decided about that class.
    unmapped = tuple(name for name in classes if name not in mapped)
    return ClassMap(
        {name: to for name, to in mapped.items() if to},
        tuple(name for name, to in mapped.items() if not to),
        unmapped,
        _nearest(unmapped, nameplates),
    )


def read_class_map(path: Path) -> dict[str, str]:
    """Read class → nameplate from a table with the columns `extra` and `base`; an empty `base` leaves the class out.

    Raises:
        DataError: the table cannot be read, lacks a column, or contains a class twice.
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
    """The error for data sets without a common class."""
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


# Cleaning: photos that cannot be used, or that would make the comparison unfair.

UNREAD, NO_CAR, OF_HELD, ADVERT_OF_HELD, OF_TRAIN, CONTRADICTS, REPEATED = REASONS = (
    "unreadable",
    "not a car",
    "copy of a photo that judges",
    "same group as a photo that judges",
    "copy of a training photo",
    "copies under two nameplates",
    "copy of another photo of EXTRA",
)
"""Why a photo is removed, the most important reason first. The texts are in extra-data.json and taken-out.csv."""
COPIES = (EXACT, NEAR, CROSS_CLASS, LEAK)
"""The kinds of findings that list copies of one image."""


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A photo that was removed. The field names are keys of extra-data.json and columns of taken-out.csv."""

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
    """Findings on kept photos that look like another nameplate, for a person to check."""

    @property
    def counts(self) -> dict[str, int]:
        """Reason → number of photos removed for it."""
        found = Counter(entry.reason for entry in self.taken_out)
        return {reason: found[reason] for reason in REASONS if reason in found}


def clean(extra: Sequence[Photo], base: Sequence[Photo], findings: Iterable[Finding]) -> Cleaning:
    """Remove photos of EXTRA that must not train.

    The model must not be trained on copies of photos that it is evaluated on. Copies of training photos and of one
    another add no information: they would only get more weight, and the number of added photos would mislead. The best
    one of several copies is kept (`best_copy`). Of copies under two nameplates one label is wrong, so none is kept.

    Args:
        extra: the photos of EXTRA under nameplates of BASE.
        base: the photos of BASE with their parts.
        findings: the findings of the audit on both data sets together; those on BASE alone are ignored.
    """
    findings, own = list(findings), {photo.path: photo for photo in base}
    index_of = {photo.path: i for i, photo in enumerate(extra)}
    reasons: dict[str, TakenOut] = {}

    # The first reason counts, so the more important reasons come first below.
    def take(path: str, reason: str, detail: str) -> None:
        if path in index_of:
            reasons.setdefault(path, TakenOut(path, reason, detail))

    for finding in findings:
        if finding.kind in (UNREADABLE, OUTLIER) and finding.sure:
            for path in finding.photos:
                take(path, UNREAD if finding.kind == UNREADABLE else NO_CAR, finding.detail)
    adverts = {photo.group: photo.path for photo in reversed(base) if photo.group and photo.split != "train"}
    for photo in extra:
        if photo.group in adverts:
            take(photo.path, ADVERT_OF_HELD, adverts[photo.group])
    # Photos that were removed above cannot be the copy that is kept.
    for members in _copies(findings, own, extra):
        there = sorted(index_of[path] for path in members if path in index_of and path not in reasons)
        for entry in _spare(members, own, [extra[i] for i in there]):
            take(entry.path, entry.reason, entry.detail)
    kept = tuple(photo for photo in extra if photo.path not in reasons)
    stay = {photo.path for photo in kept}
    return Cleaning(
        kept,
        tuple(sorted(reasons.values(), key=lambda entry: (REASONS.index(entry.reason), entry.path))),
        tuple(finding for finding in findings if finding.kind == LABEL and set(finding.photos) <= stay),
    )


def _copies(findings: Iterable[Finding], own: dict[str, Photo], extra: Sequence[Photo]) -> list[set[str]]:
    """Sets of paths that are copies of one image; a file in both data sets is a copy of itself."""
    where: dict[str, set[str]] = {}
    found = [set(finding.photos) for finding in findings if finding.kind in COPIES]
    # Findings that share a photo are merged: a copy of a copy is a copy.
    for members in [*found, *({photo.path} for photo in extra if photo.path in own)]:
        merged = members.union(*(where[path] for path in members if path in where))
        where.update(dict.fromkeys(merged, merged))
    return list({id(members): members for members in where.values()}.values())


def _spare(members: set[str], own: dict[str, Photo], photos: Sequence[Photo]) -> list[TakenOut]:
    """Which copies of one image are removed; `photos` are the copies in EXTRA."""
    ours = sorted(path for path in members if path in own)
    holdout = [path for path in ours if own[path].split != "train"]
    if holdout:
        return [TakenOut(photo.path, OF_HELD, holdout[0]) for photo in photos]
    if ours:
        return [TakenOut(photo.path, OF_TRAIN, ours[0]) for photo in photos]
    if len({photo.label for photo in photos}) > 1:
        paths = [photo.path for photo in photos]
        return [TakenOut(path, CONTRADICTS, next(other for other in paths if other != path)) for path in paths]
    if not photos:
        return []
    best = best_copy(photos).path
    return [TakenOut(photo.path, REPEATED, best) for photo in photos if photo.path != best]
