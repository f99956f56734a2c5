"""Names of classes: how they sort, and the file that gives ids their names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nameplate.data.labels import fields_of, make_of, makes_of, natural_key, numbered, read_names
from nameplate.errors import DataError, did_you_mean
from nameplate.model.bundle import load_bundle


@pytest.mark.parametrize(
    "in_order",
    [
        ["2", "10", "100"],
        ["Audi A", "Audi A4", "Audi A4 2", "Audi A10"],
        ["BMW 3", "BMW 3 Series", "BMW 5", "BMW 10"],
        ["audi", "BMW", "Volvo"],
        ["Ёлка", "Елка", "Жигули"],
        ["ВАЗ", "ВАЗ-2109", "ВАЗ-2110", "ВАЗ-21099"],
        ["1 серия", "BMW", "Волга"],
        ["Mazda 03", "Mazda 3", "Mazda 4"],
    ],
)
def test_names_sort_as_a_person_expects(in_order: list[str]) -> None:
    backwards = list(reversed(in_order))
    assert sorted(backwards, key=natural_key) == in_order


def test_e_with_two_dots_sorts_the_same_whether_it_is_one_letter_or_two() -> None:
    composed, decomposed = "\u0451\u0436", "\u0435\u0308\u0436"
    assert natural_key(composed)[0] == natural_key(decomposed)[0]


@given(st.lists(st.text(), unique=True))
def test_the_order_is_total_and_does_not_depend_on_where_one_starts(names: list[str]) -> None:
    backwards = list(reversed(names))
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert len({natural_key(name) for name in names}) == len(names)


def test_a_name_of_ten_thousand_digits_sorts_too() -> None:
    assert sorted(["9" * 10_000, "1"], key=natural_key)[0] == "1"


def test_names_a_line_are_numbered_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffВАЗ-2109\n\n  Лада Приора \nBMW X5\n", encoding="utf-8")
    assert read_names(path) == {"0": "ВАЗ-2109", "1": "Лада Приора", "2": "BMW X5"}


@pytest.mark.parametrize("header", ["", "id,name\n", "Category,Name\n"])
def test_rows_of_id_and_name_are_read_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    path = tmp_path / "names.csv"
    path.write_text(header + '7, Лада Ларгус\n3,"Skoda, Octavia"\n', encoding="utf-8")
    assert read_names(path) == {"7": "Лада Ларгус", "3": "Skoda, Octavia"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_of_id_and_name_may_be_divided_otherwise(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "names.csv"
    path.write_text(f"7{delimiter}Лада\n8{delimiter}BMW\n", encoding="utf-8")
    assert read_names(path) == {"7": "Лада", "8": "BMW"}


def test_a_number_is_matched_only_where_it_is_one_ids_alone() -> None:
    assert numbered(["1.0", "01", "2", "x", "3.5"], {"1": "BMW", "2": "Audi"}) == {"1.0": "1", "01": "1"}
    assert numbered(["1.0"], {"1": "BMW", "01": "Audi"}) == {}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Волга\n".encode("cp1251"), "must be UTF-8"),
        (b"", "has no class names"),
        (b"\n \n", "has no class names"),
        (b"id,name\n", "has no class names"),
        (b"BMW\nBMW\n", "occurs twice"),
        (b"1,BMW\n1,Audi\n", "occurs twice"),
        (b"1,BMW\n2,BMW\n", "occurs twice"),
        (b"x" * 200_000, "Cannot read the class names"),
    ],
)
def test_a_file_that_names_nothing_clearly_is_refused(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=text) as caught:
        read_names(path)
    assert str(path) in str(caught.value)


def test_a_missing_names_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file\.txt"):
        read_names(tmp_path / "no such file.txt")


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("Лада Приорa", ["Лада Приора", "BMW"]) == " Did you mean 'Лада Приора'?"
    assert did_you_mean("zzzz", ["Лада Приора", "BMW"]) == ""


@pytest.mark.parametrize(
    ("nameplate", "make"),
    [
        ("Audi TT RS Coupe 2012", "Audi"),
        ("aston martin V8 Vantage", "aston martin"),
        ("Land_Rover_LR2", "Land Rover"),
        ("Rolls-Royce Ghost", "Rolls-Royce"),
        ("Rolls Royce Ghost", "Rolls Royce"),
        ("Lynk & Co 01", "Lynk & Co"),
        ("Great Wall Hover", "Great Wall"),
        ("Great", "Great"),
        ("Лада Приора", "Лада"),
        ("ВАЗ-21099", "ВАЗ"),
        ("Ленд Ровер Дефендер", "Ленд Ровер"),
        ("ГАЗ-24-10 Волга", "ГАЗ"),
        ("-5 x", "-5 x"),
        ("", ""),
        (" ", " "),
    ],
)
def test_the_make_is_the_first_word_or_a_known_one_of_more(nameplate: str, make: str) -> None:
    assert make_of(nameplate) == make


def test_the_nameplates_that_ship_are_of_52_makes() -> None:
    makes = makes_of(load_bundle("cars196").manifest.nameplates)
    assert len(set(makes)) == 52  # the 49 of cars196, and Kia, Lada and Opel
    assert {"AM General", "Aston Martin", "Land Rover", "Rolls-Royce", "Mercedes-Benz", "Ram"} <= set(makes)
    assert makes.count("Aston Martin") == 4


def test_one_make_written_in_two_ways_is_one() -> None:
    assert makes_of(["HUMMER H2", "Hummer_H3", "ваз 2109", "ВАЗ-2110"]) == ("HUMMER", "HUMMER", "ваз", "ваз")


@given(st.text())
def test_any_text_has_a_make(name: str) -> None:
    make = make_of(name)
    assert bool(make) == bool(name)


@pytest.mark.parametrize(
    ("nameplate", "fields"),
    [
        ("Chevrolet Express Cargo Van 2007", ("Express", "Cargo Van", "2007")),
        ("Ram C-V Cargo Van Minivan 2012", ("C-V Cargo Van", "Minivan", "2012")),
        ("Kia Rio 2011-2017", ("Rio", None, "2011-2017")),
        ("Kia Rio 2017–", ("Rio", None, "2017–")),
        ("BMW 2002", ("2002", None, None)),
        ("Peugeot 2008 SUV 2019", ("2008", "SUV", "2019")),
        ("Land Rover Range Rover SUV 2012", ("Range Rover", "SUV", "2012")),
        ("ВАЗ-2109", ("2109", None, None)),
        ("Лада Калина", ("Калина", None, None)),
        ("Citroën Coupé", ("Coupé", None, None)),
        ("Saab", (None, None, None)),
        ("7", (None, None, None)),
    ],
)
def test_a_nameplate_says_model_body_and_years(
    nameplate: str, fields: tuple[str | None, str | None, str | None]
) -> None:
    found = fields_of(nameplate)
    assert (found.model, found.body, found.years) == fields


@given(st.text())
def test_any_name_has_fields(name: str) -> None:
    found = fields_of(name)
    assert found.model is None or found.model.strip()
