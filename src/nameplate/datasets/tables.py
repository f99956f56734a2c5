"""CSV and Parquet tables as lists of rows, every cell a string."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nameplate.errors import DataError, RuntimeUnavailableError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
DELIMITERS = ",;\t|"


def read_table(path: Path, *, suffix: str | None = None, may_be_empty: bool = False) -> list[dict[str, str]]:
    """Rows of a table with a header line; `suffix` tells the format where the name does not.

    Raises:
        DataError: unreadable, not UTF-8, no rows (unless it may be empty), two columns of one name, or a
            row of another length.
        RuntimeUnavailableError: a Parquet file, and pyarrow is not installed.
    """
    if (suffix or path.suffix).lower() == ".parquet":
        return _read_parquet(path, may_be_empty)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(DELIMITERS, key=first.count)
            file.seek(0)
            return _checked(path, list(csv.reader(file, delimiter=delimiter, strict=True)), may_be_empty)
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"Cannot read the table '{path}': {error}.") from None


def _checked(path: Path, lines: list[list[str]], may_be_empty: bool) -> list[dict[str, str]]:
    header = [name.strip() for name in lines[0]] if lines else []
    if len(set(header)) < len(header):
        raise DataError(f"Two columns of '{path}' have one name: {', '.join(header)}.")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        if len(line) != len(header):
            raise DataError(f"'{path}', row {number}: {len(line)} cells, but the header has {len(header)}.")
        rows.append(dict(zip(header, line, strict=True)))
    if not rows and not may_be_empty:
        raise DataError(f"The table '{path}' has no rows below its header.")
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV, UTF-8, one header line, None as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _read_parquet(path: Path, may_be_empty: bool) -> list[dict[str, str]]:
    parquet = import_pyarrow()
    try:
        rows = parquet.read_table(path, partitioning=None).to_pylist()
    except Exception as error:  # pyarrow's errors have no common base but Exception
        raise DataError(f"Cannot read the table '{path}': {error}.") from None
    if not rows and not may_be_empty:
        raise DataError(f"The table '{path}' has no rows.")
    return [{str(key): "" if value is None else str(value) for key, value in row.items()} for row in rows]


def import_pyarrow() -> Any:
    """`pyarrow.parquet`, or an error that says how to get it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise RuntimeUnavailableError(
            "Parquet needs pyarrow, which is not installed: pip install 'nameplate[parquet]'."
        ) from None
    return parquet
