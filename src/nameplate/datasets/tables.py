"""CSV and Parquet tables as rows, every cell a string: all at once, or one after another."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nameplate.errors import DataError, RuntimeUnavailableError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
DELIMITERS = ",;\t|"

TABLE_BYTES = 512 * 1024**2
"""Of a table that is read all at once, or unpacked from an archive."""


def read_table(path: Path, *, suffix: str | None = None, may_be_empty: bool = False) -> list[dict[str, str]]:
    """Rows of a table with a header line; `suffix` tells the format where the name does not.

    Raises:
        DataError: unreadable, not UTF-8, no rows (unless it may be empty), two columns of one name, or a
            row of another length.
        RuntimeUnavailableError: a Parquet file, and pyarrow is not installed.
    """
    if (suffix or path.suffix).lower() == ".parquet":
        return _read_parquet(path, may_be_empty)
    rows = list(_csv_rows(path))
    if not rows and not may_be_empty:
        raise DataError(f"The table '{path}' has no rows below its header.")
    return rows


def stream_table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a table of any length, one after another: CSV, Parquet, or JSON Lines, an object a line.

    Raises:
        DataError: unreadable, not UTF-8, two columns of one name, or a row of another length or form.
        RuntimeUnavailableError: a Parquet file, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path) if suffix == ".jsonl" else _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(DELIMITERS, key=first.count)
            file.seek(0)
            yield from _checked(path, csv.reader(file, delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"Cannot read the table '{path}': {error}.") from None


def _checked(path: Path, lines: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    header = [name.strip() for name in next(lines, [])]
    if len(set(header)) < len(header):
        raise DataError(f"Two columns of '{path}' have one name: {', '.join(header)}.")
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        if len(line) != len(header):
            raise DataError(f"'{path}', row {number}: {len(line)} cells, but the header has {len(header)}.")
        yield dict(zip(header, line, strict=True))


def _json_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise DataError(f"'{path}', line {number}: it is no JSON object.")
                if row:
                    yield _as_text(row)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read the table '{path}': {error}.") from None


def _as_text(row: Mapping[Any, object]) -> dict[str, str]:
    return {str(key): "" if value is None else str(value) for key, value in row.items()}


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV, UTF-8, one header line, None as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _read_parquet(path: Path, may_be_empty: bool) -> list[dict[str, str]]:
    rows = list(_parquet_rows(path))
    if not rows and not may_be_empty:
        raise DataError(f"The table '{path}' has no rows.")
    return rows


def _parquet_rows(path: Path) -> Iterator[dict[str, str]]:
    parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"Two columns of '{path}' have one name: {', '.join(names)}.")
            for batch in file.iter_batches():
                yield from map(_as_text, batch.to_pylist())
    except DataError:
        raise
    except Exception as error:  # pyarrow's errors have no common base but Exception
        raise DataError(f"Cannot read the table '{path}': {error}.") from None


def import_pyarrow() -> Any:
    """`pyarrow.parquet`, or an error that says how to get it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise RuntimeUnavailableError(
            "Parquet needs pyarrow, which is not installed: pip install 'nameplate[parquet]'."
        ) from None
    return parquet
