"""CSV and Parquet tables as rows of strings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate.datasets.tables import read_table, write_table
from nameplate.errors import DataError, RuntimeUnavailableError


def _write(folder: Path, data: bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


ROWS = [{"path": "a.jpg", "label": "Лада, Приора"}, {"path": "b.jpg", "label": "BMW; X5"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters_marks_and_line_ends_are_all_read(tmp_path: Path, delimiter: str, mark: str, newline: str) -> None:
    lines = [["path", "label"], ["a.jpg", '"Лада, Приора"'], ["b.jpg", '"BMW; X5"'], []]
    text = mark + newline.join(delimiter.join(line) for line in lines)
    assert read_table(_write(tmp_path, text.encode())) == ROWS


def test_blank_lines_and_spaces_around_column_names_are_passed_over(tmp_path: Path) -> None:
    assert read_table(_write(tmp_path, b" path , label \n\na.jpg,x\n\n")) == [{"path": "a.jpg", "label": "x"}]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "has no rows"),
        (b"path,label\n", "has no rows"),
        (b"path,label\n\n\n", "has no rows"),
        ("путь,метка\na,b\n".encode("cp1251"), "is not UTF-8 .* Save it as UTF-8"),
        ("path,label\na,b\n".encode("utf-16"), "is not UTF-8"),
        (b"path,path\na,b\n", "Two columns of .* have one name: path, path"),
        (b"path,label,\na,b,c\nd,e\n", "row 3: 2 cells, but the header has 3"),
        (b"path,label\na,b,c\n", "row 2: 3 cells, but the header has 2"),
        (b'path,label\n"a,b\n', "Cannot read the table"),
        (b"path,label\na," + b"x" * 200_000, "Cannot read the table"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_name(tmp_path: Path, data: bytes, text: str) -> None:
    path = _write(tmp_path, data)
    with pytest.raises(DataError, match=text) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_a_missing_table_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match="Cannot read the table"):
            read_table(path)


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries({key: st.text(st.characters(exclude_categories=["Cs", "Cc"])) for key in "abc"}),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    write_table(path, ("a", "b", "c"), rows)
    assert read_table(path) == rows


def test_a_written_table_has_unix_lines_and_empty_cells_for_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, ("Id", "Category"), [{"Id": "ё.jpg", "Category": None, "more": 1}])
    assert path.read_bytes() == "Id,Category\nё.jpg,\n".encode()


def test_parquet_is_read_as_strings(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "table.parquet"
    table = pyarrow.table({"path": ["a.jpg", "b.jpg"], "label": [7, None], "Город": ["Уфа", ""]})
    parquet.write_table(table, path)
    assert read_table(path) == [
        {"path": "a.jpg", "label": "7", "Город": "Уфа"},
        {"path": "b.jpg", "label": "", "Город": ""},
    ]


def test_parquet_without_rows_with_two_columns_of_one_name_or_damaged_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"path": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(DataError, match="has no rows"):
        read_table(path)
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["path", "path"])
    parquet.write_table(twice, path)
    with pytest.raises(DataError, match=r"Two columns|Cannot read"):
        read_table(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="Cannot read the table"):
        read_table(path)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'nameplate\[parquet\]'"):
        read_table(tmp_path / "table.parquet")
