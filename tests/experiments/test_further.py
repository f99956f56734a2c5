from __future__ import annotations

from pathlib import Path

import pytest

from nameplate.errors import DataError, UsageError
from nameplate.experiments.further import map_classes, nothing_maps, read_class_map

BASE = ("ВАЗ-2110", "Ford Focus", "Ёлка", "Volkswagen Passat")


def test_names_match_exactly_and_by_letters_and_digits() -> None:
    found = map_classes(["Ford Focus", "ford_focus", "ваз 2110", "елка", "Fordfocus II"], BASE)
    assert found.mapped == {
        "Ford Focus": "Ford Focus",
        "ford_focus": "Ford Focus",
        "ваз 2110": "ВАЗ-2110",
        "елка": "Ёлка",
    }
    assert found.unmapped == ("Fordfocus II",)
    assert found.nearest == {"Fordfocus II": "Ford Focus"}


def test_latin_letters_are_not_cyrillic_ones() -> None:
    assert map_classes(["BA3-2110", "Elka"], BASE).mapped == {}


def test_where_two_nameplates_have_the_same_letters_only_exact_names_match() -> None:
    found = map_classes(["Kia Rio", "kiario"], ["Kia Rio", "KIA-RIO"])
    assert found.mapped == {"Kia Rio": "Kia Rio"}
    assert found.unmapped == ("kiario",)


def test_names_without_letters_match_only_exactly() -> None:
    assert map_classes(["---"], ["...", "a"]).mapped == {}


def test_a_map_overrules_names_and_leaves_classes_out() -> None:
    found = map_classes(["Ford Focus", "VW"], BASE, {"VW": "Volkswagen Passat", "Ford Focus": ""})
    assert found.mapped == {"VW": "Volkswagen Passat"}
    assert found.left_out == ("Ford Focus",)
    assert found.unmapped == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Ford Focos": "Ford Focus"}, "no class 'Ford Focos'. Did you mean 'Ford Focus'"),
        ({"Ford Focus": "Ford Focuss"}, "no nameplate 'Ford Focuss'.*Did you mean 'Ford Focus'"),
    ],
)
def test_a_map_of_unknown_names_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        map_classes(["Ford Focus"], BASE, given)


def test_a_map_is_a_table(tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text("extra;base\nVW; Volkswagen Passat\nOpel;\n", "utf-8")
    assert read_class_map(file) == {"VW": "Volkswagen Passat", "Opel": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from,to\na,b\n", "it needs extra and base"),
        ("extra,base\na,b\na,c\n", "row 3: class 'a' stands there a second"),
    ],
)
def test_other_tables_are_no_map(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "map.csv"
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=said):
        read_class_map(file)


def test_if_no_class_maps_the_nearest_names_are_suggested() -> None:
    error = nothing_maps(map_classes(["Ford Fokus", "Zaz"], BASE), BASE)
    assert "'Ford Fokus' (near 'Ford Focus')" in str(error)
    assert "--map" in str(error)
