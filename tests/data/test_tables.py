"""CSV and Parquet tables as rows of strings."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nameplate.data import read_dataset
from nameplate.data import tables as module
from nameplate.data.tables import TableLimits, photo_path, read_table, stream_table, write_table
from nameplate.errors import DataError, RuntimeUnavailableError
from nameplate.storage import cache_folder
from tests.batch.listed import list_references
from tests.images.torture import encode, picture


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
        (b"path,path\na,b\n", "Two columns of .* have the same name: path, path"),
        (b"path,label,\na,b,c\nd,e\n", "row 3: 2 cells, but the header has 3"),
        (b"path,label\na,b,c\n", "row 2: 3 cells, but the header has 2"),
        (b'path,label\n"a,b\n', "Cannot read the table"),
        (b"path,label\na," + b"x" * 200_000, "Cannot read the table"),
    ],
)
def test_an_invalid_table_is_refused_with_its_name(tmp_path: Path, data: bytes, text: str) -> None:
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


# --- what other programs write, and hostile tables ----------------------------------------------------


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "\ufeffsep=;"])
def test_excels_line_that_names_the_delimiter_is_obeyed(tmp_path: Path, first: str) -> None:
    data = f"{first}\r\npath;label\r\na,,,b.jpg;x\r\n".encode()
    assert read_table(_write(tmp_path, data)) == [{"path": "a,,,b.jpg", "label": "x"}]
    with pytest.raises(DataError, match="row 3: 1 cells"):
        read_table(_write(tmp_path, f"{first}\npath;label\nx\n".encode()))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_utf_16_is_named(tmp_path: Path, encoding: str, name: str) -> None:
    path = _write(tmp_path, "\ufeffpath\tlabel\na\tb\n".encode(encoding), name)
    with pytest.raises(DataError, match=r"is not UTF-8 but UTF-16 \(Excel's \"Unicode text\"\)"):
        list(stream_table(path))


def test_backslashes_are_read_as_folders_where_no_file_has_them(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    assert photo_path(table, "photos\\\\a.jpg") == str(tmp_path / "photos" / "a.jpg")
    (tmp_path / "b\\c.jpg").touch()
    assert photo_path(table, "b\\c.jpg") == str(tmp_path / "b\\c.jpg")
    with pytest.raises(DataError, match=r"list\.csv' has a path of 5,000 characters, 'x{40}…'; the limit is 4,096"):
        photo_path(table, "x" * 5000)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("t.csv", b"path,label\na\0b,x\n", "line 2: it holds a NUL byte"),
        ("t.csv", b"path,label\n" + b"a" * 5_000_000 + b",x\n", "near line 2: a row of more than 4,194,304 characters"),
        ("t.csv", b"a" * 5_000_000, "near line 1: a row of more than 4,194,304 characters"),
        ("t.csv", b'path,label\n"' + b'a\n","' * 900_000, "a row of more than 4,194,304 characters"),
        ("t.csv", b",".join(b"%d" % n for n in range(1001)) + b"\n", "has 1,001 columns, the limit is 1,000"),
        ("t.csv", b"path\n" + b"x" * 140_000, "near line 2: field larger than field limit"),
        ("t.jsonl", b'{"path": "' + b"a" * 5_000_000 + b'"}', "near line 1: a row of more than"),
        ("t.jsonl", b'{"path": 1}\n{"path": \n', "line 2: "),
        ("t.jsonl", b"[" * 100_000, "line 1: "),
        ("t.jsonl", b'{"path": {"bytes": "aaaa"}}', "line 1: 'path' is a dict, and must be text"),
    ],
)
def test_a_row_without_an_end_is_refused_with_its_place(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        list(stream_table(_write(tmp_path, data, name), wanted=("path",)))
    assert len(str(caught.value)) < 1000


def test_devices_and_named_pipes_are_no_tables(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl", "parquet"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
        for name in ("pipe", "zero"):
            with pytest.raises(DataError, match="Cannot read the table '.*': it is not a regular file"):
                list(stream_table(tmp_path / f"{name}.{suffix}"))


def test_a_table_that_is_too_large_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, b"path,label,more\n" + b"a,b,c\n" * 10)
    for limits, text in (
        (TableLimits(bytes=10), "has 76 bytes, the limit is 10"),
        (TableLimits(rows=9), "more than 9 rows"),
        (TableLimits(cells=21), "rows or 21 cells"),
    ):
        monkeypatch.setattr(module, "LIMITS", limits)
        with pytest.raises(DataError, match=text):
            read_table(path)
    monkeypatch.setattr(module, "LIMITS", TableLimits(cells=22))
    assert len(read_table(path, wanted=("path", "label"))) == 10


def test_a_json_row_without_the_column_comes_as_it_is(tmp_path: Path) -> None:
    path = _write(tmp_path, b'{"path": "a.jpg"}\n\n{"file": 7}\n{}\n', "t.jsonl")
    assert list(stream_table(path)) == [{"path": "a.jpg"}, {"file": "7"}, {}]


# --- Parquet: what is read, and pictures in it --------------------------------------------------------


def _parquet(folder: Path, columns: Mapping[str, object], metadata: Mapping[str, object] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    parquet.write_table(table, path := folder / "train.parquet")
    return path


JPEGS = [encode(picture(8, 8, seed=seed), "JPEG") for seed in range(3)]
IMAGES = [
    {"bytes": JPEGS[0], "path": "car 1.jpg"},
    {"bytes": JPEGS[1], "path": None},
    {"bytes": None, "path": "beside.jpg"},
    {"bytes": JPEGS[2], "path": "../../evil/\\..\\3.jpg"},
]
FEATURES = {"info": {"features": {"label": {"names": ["Kia Rio", "BMW"], "_type": "ClassLabel"}, "image": {}}}}


def test_images_of_hugging_face_become_files_and_their_labels_names(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"image": IMAGES, "label": [0, 1, 1, -1]}, FEATURES)
    rows = read_table(path, wanted=("path", "image", "label"))
    assert [row["label"] for row in rows] == ["Kia Rio", "BMW", "BMW", ""]
    assert [Path(row["path"]).name for row in rows] == ["car 1.jpg", "train-000002.jpg", "beside.jpg", "3.jpg"]
    assert [Path(rows[at]["path"]).read_bytes() for at in (0, 1, 3)] == JPEGS
    assert all(Path(rows[at]["path"]).parents[1] == cache_folder() / "pictures" for at in (0, 1, 3))
    stamps = [Path(row["path"]).stat().st_mtime_ns for row in (rows[0], rows[1])]
    again = list(stream_table(path, wanted=("image",)))
    assert [row["path"] for row in again] == [row["path"] for row in rows]
    assert [Path(row["path"]).stat().st_mtime_ns for row in (rows[0], rows[1])] == stamps


def test_a_parquet_of_images_is_a_data_set_and_a_list(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"image": IMAGES[:2], "label": [0, 1], "file_name": ["gone.jpg"] * 2}, FEATURES)
    found = read_dataset(path)
    assert found.nameplates == ("BMW", "Kia Rio")
    assert sorted(Path(photo.path).read_bytes() for photo in found.photos) == sorted(JPEGS[:2])
    assert [Path(name).read_bytes() for name in list_references([str(path)])] == JPEGS[:2]


def test_bytes_in_a_photo_column_are_images_too_and_others_are_never_text(tmp_path: Path) -> None:
    path = _parquet(tmp_path, {"photo": JPEGS[:1], "more": [b"x" * 100_000], "nested": [[1, 2]], "label": ["a"]})
    [row] = read_table(path, wanted=("photo", "label"))
    assert Path(row["path"]).read_bytes() == JPEGS[0]
    assert sum(map(len, row.values())) < 1000
    assert read_table(path) == [{"photo": "", "more": "", "nested": "", "label": "a"}]
    with pytest.raises(DataError, match=r"the column 'nested' is a list<.*>, no text"):
        read_table(path, wanted=("nested",))


def test_an_image_that_is_too_large_and_an_endless_cell_are_refused_in_few_words(tmp_path: Path) -> None:
    for columns, text in (
        ({"image": [{"bytes": bytes(64 * 1024**2 + 1), "path": "a.jpg"}]}, "row 1: a picture of 67,108,865 bytes"),
        ({"path": ["a", "x" * 200_000]}, "row 2: 'path' has 200,000 characters, the limit is 131,072"),
    ):
        with pytest.raises(DataError, match=text) as caught:
            list(stream_table(_parquet(tmp_path, columns), wanted=("path", "image")))
        assert len(str(caught.value)) < 1000


def test_only_the_wanted_columns_of_parquet_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows = 1500
    path = _parquet(
        tmp_path, {"path": [f"{n}.jpg" for n in range(rows)], "text": [str(n) * 20_000 for n in range(rows)]}
    )
    before = pyarrow.total_allocated_bytes()
    stream = stream_table(path, wanted=("path",))
    assert next(stream) == {"path": "0.jpg", "text": ""}
    assert pyarrow.total_allocated_bytes() - before < 10_000_000
    assert [row["path"] for row in stream] == [f"{n}.jpg" for n in range(1, rows)]
    with pytest.raises(DataError, match="has the columns path, text; one must be named"):
        read_dataset(path)
