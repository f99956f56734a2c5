"""Labels: their normal form, order and makes, the names file of class ids, and merging photos of several sources."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nameplate.data.archive import Refused
from nameplate.errors import DataError
from nameplate.storage import absolute, counted, nfc, read_text
from nameplate.types import Fields, Photo

MAKES_OF_SEVERAL_WORDS = (
    "Alfa Romeo", "AM General", "American Motors", "Ashok Leyland", "Aston Martin", "Austin Healey", "Bristol Cars",
    "De Tomaso", "Force Motors", "Golden Dragon", "Great Wall", "Iran Khodro", "Isotta Fraschini", "King Long",
    "Land Rover", "Li Auto", "Lynk & Co", "Maruti Suzuki", "Mercedes Benz", "Rolls Royce", "Ssang Yong", "W Motors",
    "Альфа Ромео", "Астон Мартин", "Грейт Волл", "Ленд Ровер", "Лэнд Ровер", "Мерседес Бенц", "Роллс Ройс",
)  # fmt: skip
"""Makes of several words. Every other make is the first word of a nameplate."""
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
    """The nameplate of a model of a make. A model whose name begins with the make is a nameplate already.

    >>> of_make("Kia", "Rio"), of_make("Lada", "lada_granta")
    ('Kia Rio', 'lada_granta')
    """
    return model if f"{_folded(model)} ".startswith(f"{_folded(make)} ") else f"{make} {model}"


def alike(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only in case or in the number of spaces.

    >>> alike(["Kia Rio", "kia  rio", "Kia Ceed"])
    [('Kia Rio', 'kia  rio')]
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [tuple(same) for same in found.values() if len(same) > 1]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key of the order that a person expects: 2 before 10, A before A4, case ignored, ё beside е, Latin first.

    >>> sorted(["ВАЗ-21099", "Ёлка", "ВАЗ-2110", "Жигули", "audi", "BMW", "ВАЗ-2109"], key=natural_key)
    ['audi', 'BMW', 'ВАЗ-2109', 'ВАЗ-2110', 'ВАЗ-21099', 'Ёлка', 'Жигули']
    """
    folded = nfc(name).casefold().replace("ё", "е")
    parts = re.findall(r"\d{1,4000}|\D+", folded)  # int() accepts at most 4,300 digits.
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (-1, 0, name))


def make_of(nameplate: str) -> str:
    """The make in a nameplate, as it is written there: its first word, or a known make of several words.

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


BODIES = (
    "Sedan", "Saloon", "Coupe", "Coupé", "Convertible", "Cabriolet", "Cabrio", "Roadster", "Spider", "Spyder",
    "Hatchback", "Liftback", "Wagon", "Estate", "Touring", "Avant", "SUV", "Crossover", "Minivan", "MPV", "Van",
    "Cargo Van", "Passenger Van", "Pickup", "Regular Cab", "Extended Cab", "Crew Cab", "Quad Cab", "Club Cab",
    "Double Cab", "SuperCab",
)  # fmt: skip
"""Bodies, as the end of a nameplate says them."""
_FOLDED_BODIES = frozenset(body.casefold() for body in BODIES)
_YEARS = re.compile(r"(?:19|20)\d\d(?:[-\u2013](?:(?:19|20)?\d\d)?)?")


def fields_of(nameplate: str) -> Fields:
    """Model, body and years of a nameplate `MAKE MODEL [BODY] [YEARS]`.

    A number that could be a year is the model where it is all that follows the make.

    >>> fields_of("Audi S4 Sedan 2007")
    Fields(model='S4', body='Sedan', years='2007')
    >>> fields_of("Chevrolet Silverado 1500 Crew Cab 2007-2013").body, fields_of("Peugeot 2008").model
    ('Crew Cab', '2008')
    >>> fields_of("toyota_camry")
    Fields(model='camry', body=None, years=None)
    """
    make = make_of(nameplate)
    words = nameplate.replace("_", " ").strip()[len(make) :].lstrip(" -").split()
    years = words.pop() if len(words) > 1 and _YEARS.fullmatch(words[-1]) else None
    body = None
    for length in (2, 1):  # "Cargo Van" before "Van"
        if len(words) > length and " ".join(words[-length:]).casefold() in _FOLDED_BODIES:
            body = " ".join(words[-length:])
            del words[-length:]
            break
    return Fields(" ".join(words) or None, body, years)


def makes_of(nameplates: Iterable[str]) -> tuple[str, ...]:
    """The make of each nameplate. A make that is written in several ways is spelled as in its first nameplate.

    >>> makes_of(["BMW X5", "bmw x6", "Audi TT"])
    ('BMW', 'BMW', 'Audi')
    """
    spelling: dict[str, str] = {}
    return tuple(spelling.setdefault(make.casefold(), make) for make in map(make_of, nameplates))


def read_names(path: Path) -> dict[str, str]:
    """Read the names of class ids from a text file.

    Each line is a name (line 1 is id 0), or each line is a row `id,name` (also with `;` or a tab).

    Raises:
        DataError: the file cannot be read, is not UTF-8, or contains an id or a name twice.
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
        raise DataError(f"'{path}' has no class names; write one on each line, or rows 'id,name'.")
    if len(names) < len(pairs) or len(set(names.values())) < len(names):
        raise DataError(f"An id or a name occurs twice in '{path}'; each must occur once.")
    return names


def _pairs_of(lines: list[str]) -> list[list[str]]:
    """The rows of two cells; empty where the lines are names."""
    # A file of plain names may contain commas too, so a delimiter counts only where it splits every line into two
    # cells.
    for delimiter in ",;\t":
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
        if rows and all(len(row) == 2 for row in rows):
            return rows
    return []


def number_of(label: str) -> str | None:
    """A class id that is an integer, in its shortest form; None where it is no integer.

    >>> [number_of(label) for label in ("1.0", "007", "10", "1.5", "BMW 3")]
    ['1', '7', '10', None, None]
    """
    found = re.fullmatch(r"0*(\d+)(?:\.0+)?", label, re.ASCII)
    return found[1] if found else None


def numbered(labels: Iterable[str], called: Mapping[str, str]) -> dict[str, str]:
    """Labels of the data that are another spelling of a number in the names file → the spelling of the file.

    pandas writes the integer ids of a column with gaps as `1.0`.
    """
    numbers = [(number_of(id_), id_) for id_ in called]
    # An id that is written in two ways (`1`, `01`) names two classes, and matches no other spelling.
    once = Counter(number for number, _ in numbers)
    ids = {number: id_ for number, id_ in numbers if number is not None and once[number] == 1}
    strange = {label: number_of(label) for label in labels if label not in called}
    return {label: ids[number] for label, number in strange.items() if number in ids}


# Merging sources: one spelling of each label, each photo once, and sentences on what was changed.


def as_labelled(photos: list[Photo], called: Mapping[str, str]) -> tuple[list[Photo], list[str]]:
    """Give each photo the normal form of its label: NFC, stripped, and numbers as the names file writes them.

    Returns:
        The photos, and notes on the labels that were merged.
    """
    raw = {str(photo.label) for photo in photos}
    spelling = {label: nfc(label).strip() for label in raw}
    numbers = numbered(spelling.values(), called)
    together: dict[str, set[str]] = {}
    for label in raw:
        together.setdefault(spelling[label], set()).add(label)
    notes = [
        f"'{label}' is written in {len(found)} ways, which differ in Unicode form or in spaces at the ends: they are "
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
    """Check a names file against the classes of the data, and return notes on what does not match.

    Raises:
        DataError: nothing matches.
    """
    by_id, by_name = found & set(called), found & set(called.values())
    if not by_id and not by_name:
        raise DataError(
            f"None of the {len(called):,} ids in '{path}' ({few(called)}) is a class of the data ({few(found)}), nor "
            "is one of its names. It must have one name on each line (line 1 is id 0), or rows 'id,name'."
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
    """Keep every photo once.

    A photo with two nameplates is left out, since it is unknown which is true. A photo in two splits is put into train,
    so that no photo that trains is evaluated too.
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
    """Nameplate → the class as the data names it, in the order of the classes."""
    order = [*called, *sorted(found - set(called), key=natural_key)]
    ids: dict[str, str] = {}
    for id_ in order:  # Named ids come first, so that a folder of the same name does not replace them.
        if id_ in found or called.get(id_) in found:
            ids.setdefault(called.get(id_, id_), id_)
    return ids


def on_names(before: set[str], nameplates: Sequence[str]) -> list[str]:
    """Notes on nameplates that have no photos left, and on nameplates that are suspiciously similar."""
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
    """The first three of some names, in natural order, for a message."""
    shown = sorted(names, key=natural_key)
    return ", ".join(f"'{name}'" for name in shown[:3]) + ", …" * (len(shown) > 3)
