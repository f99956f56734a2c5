"""Names of classes: how they sort, and the file that gives class ids their names."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from nameplate.errors import DataError

MAKES_OF_SEVERAL_WORDS = (
    "Alfa Romeo", "AM General", "American Motors", "Ashok Leyland", "Aston Martin", "Austin Healey", "Bristol Cars",
    "De Tomaso", "Force Motors", "Golden Dragon", "Great Wall", "Iran Khodro", "Isotta Fraschini", "King Long",
    "Land Rover", "Li Auto", "Lynk & Co", "Maruti Suzuki", "Mercedes Benz", "Rolls Royce", "Ssang Yong", "W Motors",
    "Альфа Ромео", "Астон Мартин", "Грейт Волл", "Ленд Ровер", "Лэнд Ровер", "Мерседес Бенц", "Роллс Ройс",
)  # fmt: skip
"""All other makes are a nameplate's first word."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that a person expects: 2 before 10, A before A4, case ignored, ё beside е, Latin first.

    >>> sorted(["ВАЗ-21099", "Ёлка", "ВАЗ-2110", "Жигули", "audi", "BMW", "ВАЗ-2109"], key=natural_key)
    ['audi', 'BMW', 'ВАЗ-2109', 'ВАЗ-2110', 'ВАЗ-21099', 'Ёлка', 'Жигули']
    """
    folded = unicodedata.normalize("NFC", name).casefold().replace("ё", "е")
    parts = re.findall(r"\d{1,4000}|\D+", folded)  # int() takes no more than 4,300 digits
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (-1, 0, name))


def make_of(nameplate: str) -> str:
    """The make in a nameplate as it is written there: its first word, or a known make of several words.

    Words end at a space or an underscore, and at a hyphen before a number.

    >>> [make_of(name) for name in ("Aston Martin Virage", "Mercedes-Benz C-Class", "kia_rio", "ВАЗ-2109")]
    ['Aston Martin', 'Mercedes-Benz', 'kia', 'ВАЗ']
    """
    words = nameplate.replace("_", " ").split()
    folded = [word.casefold() for word in words]
    for make in MAKES_OF_SEVERAL_WORDS:
        parts = make.casefold().split()
        if folded[: len(parts)] == parts:
            return " ".join(words[: len(parts)])
    return re.split(r"-(?=\d)", words[0], maxsplit=1)[0] or nameplate if words else nameplate


def makes_of(nameplates: Iterable[str]) -> tuple[str, ...]:
    """The make of each nameplate; one make written in several ways is spelled as it comes first.

    >>> makes_of(["BMW X5", "bmw x6", "Audi TT"])
    ('BMW', 'BMW', 'Audi')
    """
    spelling: dict[str, str] = {}
    return tuple(spelling.setdefault(make.casefold(), make) for make in map(make_of, nameplates))


def read_names(path: Path) -> dict[str, str]:
    """Names of class ids from a text file: a name a line (line 1 is id 0), or rows `id,name`.

    Raises:
        DataError: unreadable, not UTF-8, or an id or a name that stands twice.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read the class names in '{path}': {error}. It must be UTF-8 text.") from None
    if rows and all(len(row) == 2 for row in rows):
        pairs = [(row[0].strip(), row[1].strip()) for row in rows]
        if pairs[0][0].casefold() in ("id", "class", "category", "label"):
            pairs = pairs[1:]
    else:
        pairs = [(str(number), line.strip()) for number, line in enumerate(filter(str.strip, lines))]
    names = dict(pairs)
    if not names:
        raise DataError(f"'{path}' holds no class names; write one a line, or rows 'id,name'.")
    if len(names) < len(pairs) or len(set(names.values())) < len(names):
        raise DataError(f"An id or a name stands twice in '{path}'; each must be there once.")
    return names
