"""Photos of several sources put together: one spelling of a label, each photo once, and sentences on what that did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nameplate.datasets.archive import Refused
from nameplate.datasets.names import alike, natural_key, numbered
from nameplate.errors import DataError
from nameplate.storage import absolute, counted, nfc
from nameplate.types import Photo


def as_labelled(photos: list[Photo], called: Mapping[str, str]) -> tuple[list[Photo], list[str]]:
    """Photos under the one spelling of each label: composed, without spaces at its ends, numbers as the names file has
    them; and what came together by that.
    """
    raw = {str(photo.label) for photo in photos}
    spelling = {label: nfc(label).strip() for label in raw}
    numbers = numbered(spelling.values(), called)
    together: dict[str, set[str]] = {}
    for label in raw:
        together.setdefault(spelling[label], set()).add(label)
    notes = [
        f"'{label}' is written in {len(found)} ways, by composed and decomposed letters or spaces at the ends: it is "
        "one nameplate."
        for label, found in sorted(together.items())
        if len(found) > 1
    ]
    if numbers:
        shown = ", ".join(f"'{label}' as '{id_}'" for label, id_ in sorted(numbers.items())[:3])
        notes.append(f"{count_of(len(numbers), 'label')} matched by number to the names file: {shown}.")
    final = {label: numbers.get(spelt, spelt) for label, spelt in spelling.items()}
    return [p if final[str(p.label)] == p.label else p.with_(label=final[str(p.label)]) for p in photos], notes


def matched(path: Path, called: Mapping[str, str], found: set[str]) -> list[str]:
    """What of a names file and of the data found each other.

    Raises:
        DataError: nothing did.
    """
    by_id, by_name = found & set(called), found & set(called.values())
    if not by_id and not by_name:
        raise DataError(
            f"None of the {len(called):,} ids in '{path}' ({few(called)}) is a class of the data ({few(found)}), nor "
            "is one of its names. It must hold a name a line (line 1 is id 0), or rows 'id,name'."
        )
    notes = []
    without = [id_ for id_, name in called.items() if id_ not in found and name not in found]
    if without:
        notes.append(
            f"'{path}': {len(without):,} of {len(called):,} names have no photos in the data ({few(without)})."
        )
    unnamed = found - by_id - by_name
    if unnamed:
        notes.append(
            f"'{path}' has no name for {len(unnamed):,} of {len(found):,} classes of the data ({few(unnamed)}): they "
            "keep their own."
        )
    return notes


def once(photos: list[Photo], called: Mapping[str, str]) -> tuple[list[Photo], list[Refused], list[str]]:
    """Every photo once: one under two nameplates is left out, since nobody knows which is true, and one that is in
    two parts trains.
    """
    by_path: dict[str, list[Photo]] = {}
    for photo in photos:
        by_path.setdefault(absolute(photo.path), []).append(photo)
    if len(by_path) == len(photos):
        return photos, [], []
    kept, refused, parted = [], [], 0
    for path, same in by_path.items():
        labels = list(dict.fromkeys(called.get(str(photo.label), str(photo.label)) for photo in same))
        if len(labels) > 1:
            refused.append(Refused(path, f"it is listed as '{labels[0]}' and again as '{labels[1]}'"))
            continue
        parted += len({photo.split for photo in same}) > 1
        kept.append(next((photo for photo in same if photo.split == "train"), same[0]))
    contradictory = sum(len(by_path[entry.name]) for entry in refused)
    again = len(photos) - contradictory - len(kept)
    notes = [f"{count_of(again, 'photo')} listed a second time: each counts once."] if again else []
    if parted:
        notes.append(f"{count_of(parted, 'photo')} in two parts: what is in the part that trains judges nothing.")
    return kept, refused, notes


def ids_of(found: set[str], called: Mapping[str, str]) -> dict[str, str]:
    """Nameplate → the class as the data calls it, in the classes' order."""
    order = [*called, *sorted(found - set(called), key=natural_key)]
    ids: dict[str, str] = {}
    for id_ in order:  # the named ids first, so that a folder of the name itself does not take their place
        if id_ in found or called.get(id_) in found:
            ids.setdefault(called.get(id_, id_), id_)
    return ids


def on_names(before: set[str], nameplates: Sequence[str]) -> list[str]:
    """What is to be said of nameplates that have no photos left, or are suspiciously alike."""
    notes = []
    gone = before - set(nameplates)
    if gone:
        notes.append(
            f"{count_of(len(gone), 'nameplate')} without photos now, since all of them are left out: {few(gone)}."
        )
    notes += [
        f"{' and '.join(repr(name) for name in names)} differ in case or spaces alone: they are kept apart."
        for names in alike(nameplates)
    ]
    return notes


def count_of(number: int, noun: str) -> str:
    """`1 photo is`, `2 photos are`."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def few(names: Iterable[str]) -> str:
    """The first three of some names."""
    shown = sorted(names, key=natural_key)
    return ", ".join(f"'{name}'" for name in shown[:3]) + ", …" * (len(shown) > 3)
