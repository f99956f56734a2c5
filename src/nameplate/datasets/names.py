"""Names of classes: one form of each, how they sort, their makes, and the file that gives class ids their names."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from nameplate.errors import DataError
from nameplate.storage import nfc, read_text

MAKES_OF_SEVERAL_WORDS = (
    "Alfa Romeo", "AM General", "American Motors", "Ashok Leyland", "Aston Martin", "Austin Healey", "Bristol Cars",
    "De Tomaso", "Force Motors", "Golden Dragon", "Great Wall", "Iran Khodro", "Isotta Fraschini", "King Long",
    "Land Rover", "Li Auto", "Lynk & Co", "Maruti Suzuki", "Mercedes Benz", "Rolls Royce", "Ssang Yong", "W Motors",
    "Альфа Ромео", "Астон Мартин", "Грейт Волл", "Ленд Ровер", "Лэнд Ровер", "Мерседес Бенц", "Роллс Ройс",
)  # fmt: skip
"""All other makes are a nameplate's first word."""
MAKES = (
    "Abarth", "AC", "Acura", "Aito", "Aixam", "Alpina", "Alpine", "Arcfox", "Asia", "Audi", "Austin", "Avatr", "BAIC",
    "Baojun", "BAW", "Belgee", "Bentley", "Bestune", "BMW", "Borgward", "Brabus", "Brilliance", "Bugatti", "Buick",
    "BYD", "Cadillac", "Changan", "Chery", "Chevrolet", "Chrysler", "Citroen", "Citroën", "Cupra", "Dacia", "Daewoo",
    "Daihatsu", "Daimler", "Datsun", "Deepal", "DeLorean", "Denza", "Dodge", "Dongfeng", "DS", "Eagle", "Evolute",
    "Exeed", "FAW", "Ferrari", "Fiat", "Fisker", "Ford", "Forthing", "Foton", "GAC", "GAZ", "Geely", "Genesis", "Geo",
    "GMC", "Haima", "Haval", "Hawtai", "Hindustan", "Holden", "Honda", "Hongqi", "Hozon", "Hummer", "Hyundai",
    "Infiniti", "Iran Khodro", "Isuzu", "Iveco", "IZh", "JAC", "Jaecoo", "Jaguar", "Jeep", "Jensen", "Jetour", "Jetta",
    "Kaiyi", "Karma", "Kia", "Knewstar", "Koenigsegg", "KTM", "Lada", "Lamborghini", "Lancia", "LDV", "Leapmotor",
    "Lexus", "Lifan", "Ligier", "Lincoln", "Livan", "Lixiang", "Lotus", "LuAZ", "Lucid", "Luxgen", "Mahindra", "MAN",
    "Marussia", "Maruti", "Maserati", "Maxus", "Maybach", "Mazda", "McLaren", "Mercedes", "Mercury", "MG", "Mini",
    "Mitsubishi", "Mitsuoka", "Morgan", "Morris", "Moskvich", "Nio", "Nissan", "Noble", "Oldsmobile", "Omoda", "Opel",
    "Ora", "Pagani", "Panoz", "Perodua", "Peugeot", "Plymouth", "Polestar", "Pontiac", "Porsche", "Proton", "Ram",
    "Ravon", "Renault", "Rivian", "Roewe", "Rover", "Saab", "Saturn", "Scion", "Seat", "Seres", "Skoda", "Škoda",
    "Skywell", "Smart", "Soueast", "Spyker", "SsangYong", "Subaru", "Suzuki", "SWM", "Talbot", "Tank",
    "Tata", "Tatra", "Tesla", "Toyota", "Trabant", "Triumph", "TVR", "UAZ", "Vauxhall", "VAZ", "Volkswagen", "Volvo",
    "Vortex", "Voyah", "VW", "Wartburg", "Wey", "Wiesmann", "Wuling", "Xiaomi", "XPeng", "ZAZ", "Zeekr", "ZIL", "ZiS",
    "Zotye", "ZX", "Ауди", "БМВ", "ВАЗ", "Вольво", "ГАЗ", "Джили", "Дэу", "ЗАЗ", "ЗИЛ", "ЗИС", "ИЖ",
    "Инфинити", "Киа", "Лада", "Лексус", "Лифан", "ЛуАЗ", "Мазда", "Мерседес", "Мицубиси", "Москвич", "Ниссан",
    "Опель", "Пежо", "Порше", "Рено", "Сузуки", "СсангЙонг", "Субару", "ТагАЗ", "Тойота", "УАЗ", "Фиат", "Фольксваген",
    "Форд", "Хавал", "Хендай", "Хёндай", "Хендэ", "Хонда", "Хундай", "Чери", "Шевроле", "Шкода", "Ягуар",
)  # fmt: skip
"""Makes of cars, in the usual spellings, by which a folder of a make is told from one of a nameplate."""


def is_make(name: str) -> bool:
    """Whether a folder's name is that of a make, whatever its case, and hyphens or underscores for spaces.

    >>> [is_make(name) for name in ("KIA", "land_rover", "Mercedes-Benz", "Kia Rio")]
    [True, True, True, False]
    """
    return _folded(name) in _FOLDED_MAKES


def _folded(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", nfc(name).casefold().replace("ё", "е").strip()))


_FOLDED_MAKES = frozenset(map(_folded, (*MAKES, *MAKES_OF_SEVERAL_WORDS)))


def of_make(make: str, model: str) -> str:
    """The nameplate of a model of a make; a model that begins with its make has both already.

    >>> of_make("Kia", "Rio"), of_make("Lada", "lada_granta")
    ('Kia Rio', 'lada_granta')
    """
    return model if f"{_folded(model)} ".startswith(f"{_folded(make)} ") else f"{make} {model}"


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ in case, or in the number of spaces, alone.

    >>> alike(["Kia Rio", "kia  rio", "Kia Ceed"])
    [('Kia Rio', 'kia  rio')]
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [tuple(same) for same in found.values() if len(same) > 1]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that a person expects: 2 before 10, A before A4, case ignored, ё beside е, Latin first.

    >>> sorted(["ВАЗ-21099", "Ёлка", "ВАЗ-2110", "Жигули", "audi", "BMW", "ВАЗ-2109"], key=natural_key)
    ['audi', 'BMW', 'ВАЗ-2109', 'ВАЗ-2110', 'ВАЗ-21099', 'Ёлка', 'Жигули']
    """
    folded = nfc(name).casefold().replace("ё", "е")
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
    """Names of class ids from a text file: a name a line (line 1 is id 0), or rows `id,name` (also with `;` or a tab).

    Raises:
        DataError: unreadable, not UTF-8, or an id or a name that stands twice.
    """
    try:
        lines = [nfc(line) for line in read_text(path).splitlines()]
        rows = _pairs_of(lines)
    except csv.Error as error:
        raise DataError(f"Cannot read the class names in '{path}': {error}.") from None
    if rows:
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


def _pairs_of(lines: list[str]) -> list[list[str]]:
    """Rows of two cells; none where the lines are names."""
    for delimiter in ",;\t":
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
        if rows and all(len(row) == 2 for row in rows):
            return rows
    return []


def number_of(label: str) -> str | None:
    """A class id that is a whole number, as it is written shortest; None where it is none.

    >>> [number_of(label) for label in ("1.0", "007", "10", "1.5", "BMW 3")]
    ['1', '7', '10', None, None]
    """
    found = re.fullmatch(r"0*(\d+)(?:\.0+)?", label, re.ASCII)
    return found[1] if found else None


def numbered(labels: Iterable[str], called: Mapping[str, str]) -> dict[str, str]:
    """Labels of the data that a names file has as another spelling of the same number, and the file's spelling: pandas
    writes the ids of a column with gaps as `1.0`.
    """
    numbers = [(number_of(id_), id_) for id_ in called]
    once = Counter(number for number, _ in numbers)
    ids = {number: id_ for number, id_ in numbers if number is not None and once[number] == 1}
    strange = {label: number_of(label) for label in labels if label not in called}
    return {label: ids[number] for label, number in strange.items() if number in ids}
