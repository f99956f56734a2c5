"""Tables (CSV, Parquet, JSON Lines) as rows of strings, read at once or one after another.

Nothing larger than `LIMITS` allow is kept in memory. Of a Parquet file only the wanted columns are read. Images inside
it are written to the cache, so that each row names a file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from nameplate.errors import DataError, RuntimeUnavailableError
from nameplate.images.formats import SNIFFED, image_format
from nameplate.storage import cache_folder, open_regular, sha256
from nameplate.types import Limits

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
DELIMITERS = ",;\t|"
TABLE_BYTES = 512 * 1024**2
"""Greatest size, in bytes, of a table that is read at once or unpacked from an archive."""
LONGEST_PATH = 4096
"""Greatest number of characters of a path (PATH_MAX of Linux)."""
_SEP = re.compile(r'"?sep=(?P<delimiter>[^\w"\r\n])"?\s*', re.IGNORECASE)
"""The first line in which Excel names the delimiter."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class TableLimits:
    """What a table may cost."""

    bytes: int = TABLE_BYTES
    """Greatest size, in bytes, of a table that is read at once."""
    rows: int = 2_000_000
    """Greatest number of rows of a table that is read at once."""
    cells: int = 10_000_000
    """Greatest number of cells of a table that is read at once, in the wanted columns."""
    columns: int = 1_000
    """Greatest number of columns, whether they are wanted or not."""
    field: int = 131_072
    """Greatest number of characters of a cell (the limit of Python's csv)."""
    row: int = 4 * 1024**2
    """Greatest number of characters of a row."""
    batch: int = 16 * 1024**2
    """Bytes of the wanted columns of a Parquet file that are read at once, approximately."""


LIMITS = TableLimits()


def read_table(
    path: Path, *, suffix: str | None = None, may_be_empty: bool = False, wanted: Collection[str] | None = None
) -> list[dict[str, str]]:
    """Read all rows of a table with a header.

    Args:
        path: the table.
        suffix: the format, where the name of the table does not state it.
        may_be_empty: whether a table without rows is accepted.
        wanted: names of the columns to keep, in lower case; None keeps all (of Parquet all of text and numbers). The
            first row has the other columns too, so that an error can name them; those that are not read are empty
            there.

    Raises:
        DataError: the table cannot be read, is not UTF-8, has no rows (unless that is accepted), has two columns of one
            name or a row of another length, or is larger than `LIMITS` allow.
        RuntimeUnavailableError: the table is a Parquet file, and pyarrow is not installed.
    """
    form = (suffix or path.suffix).lower()
    rows: list[dict[str, str]] = []
    cells = 0
    for row in _rows(path, form, wanted, LIMITS.bytes):
        rows.append(row)
        cells += len(row)
        if len(rows) > LIMITS.rows or cells > LIMITS.cells:
            raise DataError(
                f"The table '{path}' has more than {LIMITS.rows:,} rows or {LIMITS.cells:,} cells, "
                "which is the limit. Split it."
            )
    if not rows and not may_be_empty:
        raise DataError(
            f"The table '{path}' has no rows{'' if form in ('.parquet', '.jsonl') else ' below its header'}."
        )
    return rows


def stream_table(path: Path, *, wanted: Collection[str] | None = None) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of any length: CSV, Parquet, or JSON Lines (an object on each line).

    Each row of JSON Lines has its own columns. The caller reports rows that lack one.

    Raises:
        DataError: the table cannot be read, is not UTF-8, has two columns of one name, or a row of another length or
            form or larger than `LIMITS` allow.
        RuntimeUnavailableError: the table is a Parquet file, and pyarrow is not installed.
    """
    return _rows(path, path.suffix.lower(), wanted)


def _rows(path: Path, form: str, wanted: Collection[str] | None, most: int | None = None) -> Iterator[dict[str, str]]:
    """The rows of a table of the form that a suffix names; `most` bounds the bytes of text."""
    if form == ".parquet":
        return _parquet_rows(path, wanted)
    return _json_rows(path, wanted, most) if form == ".jsonl" else _csv_rows(path, wanted, most)


def photo_path(table: Path, cell: str) -> str:
    r"""The path that a cell names, relative to the folder of the table.

    Backslashes, which Windows writes, are read as `/` where there is no file whose name contains them.

    Raises:
        DataError: the cell is longer than a path can be.
    """
    if len(cell) > LONGEST_PATH:
        raise DataError(
            f"'{table}' has a path of {len(cell):,} characters, '{cell[:40]}…'; the limit is {LONGEST_PATH:,}."
        )
    path = str(table.parent / cell)
    if "\\" in cell and os.sep == "/" and not os.path.lexists(path):
        return str(table.parent / cell.replace("\\", "/"))
    return path


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file in UTF-8 with a header; None becomes an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _csv_rows(path: Path, wanted: Collection[str] | None, most: int | None = None) -> Iterator[dict[str, str]]:
    try:
        with _text(path, most) as file:
            first = file.readline(LIMITS.row + 1)
            # Without a line that names it, the delimiter is the character that is most frequent in the header.
            named = _SEP.fullmatch(first)
            delimiter = named["delimiter"] if named else max(DELIMITERS, key=first.count)
            lines = _Lines(path, file, [] if named else [first])
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            yield from _checked(path, rows, lines, wanted, 3 if named else 2)
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except csv.Error as error:
        raise DataError(f"Cannot read the table '{path}', near line {lines.number}: {error}.") from None


def _text(path: Path, most: int | None) -> IO[str]:
    """Open a table as UTF-8 text, after checking its size (where `most` is given) and that it is not UTF-16."""
    file = _opened(path)
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise DataError(f"The table '{path}' has {size:,} bytes, the limit is {most:,}. Split it.")
    start = file.read(SNIFFED)
    file.seek(0)
    if start.startswith(_UTF_16):
        file.close()
        raise DataError(f'\'{path}\' is not UTF-8 but UTF-16 (Excel\'s "Unicode text"). Save it as "CSV UTF-8".')
    # `utf-8-sig` removes the byte order mark that Excel writes. `newline=""` leaves line ends inside quoted cells to
    # the csv module.
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"Cannot read the table '{path}': {getattr(error, 'strerror', None) or error}.")


class _Lines:
    """The lines of a text file. Between two calls of `row` it yields at most the characters that a row may have.

    A quoted cell of CSV may span lines, so that one limit on the length of a line does not bound a row.
    """

    def __init__(self, path: Path, file: IO[str], before: list[str]) -> None:
        self._path, self._file, self._before = path, file, before
        self.number = self._since = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._before.pop() if self._before else self._file.readline(LIMITS.row + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._since += len(line)
        if self._since > LIMITS.row:
            raise DataError(
                f"'{self._path}', near line {self.number}: a row of more than {LIMITS.row:,} characters, "
                "which is the limit."
            )
        if "\0" in line:
            raise DataError(f"'{self._path}', line {self.number}: it holds a NUL byte, so it is no text in UTF-8.")
        return line

    def row(self) -> None:
        """Mark the end of a row."""
        self._since = 0


def _checked(
    path: Path, rows: Iterator[list[str]], lines: _Lines, wanted: Collection[str] | None, first: int
) -> Iterator[dict[str, str]]:
    header = [name.strip() for name in next(rows, [])]
    _check_columns(path, header)
    every = range(len(header))
    keep = [place for place in every if _is_wanted(header[place], wanted)]
    narrowed = False
    for number, row in enumerate(rows, start=first):
        lines.row()
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"'{path}', row {number}: {len(row)} cells, but the header has {len(header)}.")
        # The first row keeps all columns, so that an error can name those that the table has.
        yield {header[place]: row[place] for place in (keep if narrowed else every)}
        narrowed = True


def _check_columns(path: Path, names: Sequence[str]) -> None:
    if len(names) > LIMITS.columns:
        raise DataError(f"The table '{path}' has {len(names):,} columns, the limit is {LIMITS.columns:,}.")
    if len(set(names)) < len(names):
        raise DataError(f"Two columns of '{path}' have the same name: {', '.join(names)}.")


def _is_wanted(name: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or name.casefold() in wanted


def _json_rows(path: Path, wanted: Collection[str] | None, most: int | None = None) -> Iterator[dict[str, str]]:
    number = 0
    try:
        with _text(path, most) as file:
            lines = _Lines(path, file, [])
            for number, line in enumerate(lines, start=1):
                lines.row()
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise DataError(f"'{path}', line {number}: it is no JSON object.")
                if line.strip():
                    yield _json_row(path, number, row, wanted)
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"Cannot read the table '{path}', line {number}: {error}.") from None


def _json_row(path: Path, number: int, row: Mapping[str, object], wanted: Collection[str] | None) -> dict[str, str]:
    kept = {name: value for name, value in row.items() if _is_wanted(name, wanted)}
    for name, value in kept.items():
        if wanted is not None and isinstance(value, dict | list):
            raise DataError(f"'{path}', line {number}: '{name}' is a {type(value).__name__}, and must be text.")
    return _as_text(kept)


def _as_text(row: Mapping[Any, object]) -> dict[str, str]:
    return {str(key): "" if value is None else str(value) for key, value in row.items()}


# --- Parquet ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns that are read from a Parquet file."""

    names: list[str]
    others: list[str]
    """Columns that are not read."""
    image: str | None
    """The column with the bytes of images, which becomes the column `path`."""
    classes: dict[str, list[str]]
    """Column of integers → the names of the classes that they stand for."""


def _parquet_rows(path: Path, wanted: Collection[str] | None) -> Iterator[dict[str, str]]:
    parquet = import_pyarrow()
    with _opened(path) as opened:
        try:
            with parquet.ParquetFile(opened, buffer_size=1 << 20) as file:
                columns = _choose(path, file.schema_arrow, wanted)
                number = 0
                for batch in file.iter_batches(_batch_rows(file.metadata, columns), columns=columns.names):
                    for row in batch.to_pylist():
                        # As in CSV, the first row names the columns that are not read.
                        if number == 0:
                            row |= dict.fromkeys(columns.others)
                        number += 1
                        yield _parquet_row(path, number, row, columns)
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # pyarrow's errors have no common base class but Exception.
            raise DataError(f"Cannot read the table '{path}': {str(error)[:200]}.") from None


def _choose(path: Path, schema: Any, wanted: Collection[str] | None) -> _Columns:
    """Choose the columns to read: the wanted ones, or all of text and numbers, and the first one with images."""
    import pyarrow.types as kinds

    _check_columns(path, schema.names)
    image = next(
        (f.name for f in schema if _holds_pictures(f.type, wanted is not None and _is_wanted(f.name, wanted))), None
    )
    nested = [f.name for f in schema if f.name != image and (kinds.is_nested(f.type) or _is_binary(f.type))]
    chosen = [name for name in schema.names if name != image and _is_wanted(name, wanted) and name not in nested]
    if not chosen and image is None:
        left = [name for name in nested if _is_wanted(name, wanted)]
        if left and wanted is not None:
            raise DataError(f"'{path}': the column '{left[0]}' is a {str(schema.field(left[0]).type)[:80]}, no text.")
        chosen = [name for name in schema.names if name not in nested][:1]  # One column is read, to count the rows.
    classes = _class_names(schema.metadata or {})
    others = [name for name in schema.names if name != image and name not in chosen]
    return _Columns(chosen + [image] * (image is not None), others, image, classes)


def _is_binary(type_: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_binary(type_) or kinds.is_large_binary(type_) or kinds.is_fixed_size_binary(type_))


def _holds_pictures(type_: Any, wanted: bool) -> bool:
    """Whether a column holds images: Hugging Face's Image (a struct of bytes and path), or bytes in a wanted column."""
    import pyarrow.types as kinds

    if not kinds.is_struct(type_):
        return wanted and _is_binary(type_)
    names = {type_.field(at).name for at in range(type_.num_fields)}
    return names == {"bytes", "path"} and _is_binary(type_.field("bytes").type)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column of the type ClassLabel → names, from Hugging Face's metadata; empty where there is none."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        labels = {name: of for name, of in features.items() if of.get("_type") == "ClassLabel"}
        return {name: [str(one) for one in of["names"]] for name, of in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _batch_rows(metadata: Any, columns: _Columns) -> int:
    """Number of rows whose wanted columns take about `LIMITS.batch` bytes."""
    size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            if column.path_in_schema.partition(".")[0] in columns.names:
                size += column.total_uncompressed_size
    # Rows are read in batches by size and not by number, since one row may hold a photo of several megabytes.
    average: int = size // max(metadata.num_rows, 1)
    return max(1, min(10_000, LIMITS.batch // max(average, 1)))


def _parquet_row(path: Path, number: int, row: dict[str, Any], columns: _Columns) -> dict[str, str]:
    image = row.pop(columns.image) if columns.image is not None else None
    for name, names in columns.classes.items():
        if isinstance(value := row.get(name), int):
            row[name] = names[value] if 0 <= value < len(names) else None
    text = _as_text(row)
    if columns.image is not None:
        text["path"] = _picture(path, number, image)
    for name, cell in text.items():
        if len(cell) > LIMITS.field:
            raise DataError(
                f"'{path}', row {number}: '{name}' has {len(cell):,} characters, the limit is {LIMITS.field:,}."
            )
    return text


def _picture(path: Path, number: int, value: Any) -> str:
    """The path of an image in a table: the file that its bytes are written to, or else the path beside them."""
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if not data:
        return name or ""
    if len(data) > Limits().bytes:
        raise DataError(f"'{path}', row {number}: a picture of {len(data):,} bytes, the limit is {Limits().bytes:,}.")
    return str(_put(data, f"{path.stem}-{number:06}" if not name else Path(name.replace("\\", "/")).name))


def _put(data: bytes, name: str) -> Path:
    """Write an image to the cache, once, in a folder named by its SHA-256, under a name that a person recognises."""
    # The name comes from the table, so it must not contain a separator or begin with a dot.
    plain = re.sub(r"[^\w.() -]", "_", name)[-60:].lstrip(".") or "photo"
    kind = image_format(data[:SNIFFED])
    suffix = "" if "." in plain else {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}.get(kind or "", "")
    target = cache_folder() / "pictures" / sha256(data)[:32] / f"{plain}{suffix}"
    if target.is_file() and target.stat().st_size == len(data):
        return target
    # Several processes may read the same table; each writes its own temporary file, and the last rename wins with equal
    # bytes.
    temporary = target.with_name(f".{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(target)
    except OSError as error:
        raise DataError(
            f"Cannot write '{target}': {error.strerror}. Free some space and run the command again."
        ) from None
    return target


def import_pyarrow() -> Any:
    """Import `pyarrow.parquet`.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise RuntimeUnavailableError(
            "Parquet needs pyarrow, which is not installed: pip install 'nameplate[parquet]'."
        ) from None
    return parquet
