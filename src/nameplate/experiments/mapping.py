"""Which of one data set's classes are which of another's."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nameplate.datasets.tables import read_table
from nameplate.errors import DataError, UsageError, did_you_mean
from nameplate.storage import nfc


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
