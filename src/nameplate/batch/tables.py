"""Files of rows, one row per photo: their columns, and how they are written as Parquet, CSV and JSON Lines."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from nameplate.data.tables import import_pyarrow, write_table
from nameplate.errors import Reason
from nameplate.model.verification import prediction_json
from nameplate.types import Prediction

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES = (".csv", ".jsonl", ".parquet")
"""Suffixes of files of rows."""


@dataclass(frozen=True, slots=True)
class AnsweredPhoto:
    """The contents of one row: a photo's prediction, and the SHA-256 of its bytes."""

    prediction: Prediction
    sha256: str | None
    """Hexadecimal; None if there are no bytes."""

    @property
    def reason(self) -> Reason | None:
        """Why the photo could not be read; None if it was."""
        return None if self.prediction.failure is None else self.prediction.failure.reason


BOX = ("box_left", "box_top", "box_right", "box_bottom")
"""The columns of the main car's box, in pixels of the upright photo; empty where the whole photo was named."""

FIELDS = ("model", "model_confidence", "body", "years")
"""The columns of what all candidates agree on."""


def columns(top: int) -> list[str]:
    """Return the columns of CSV and Parquet. Several values in `flaws` are separated by semicolons.

    `cars` is JSON, as `identify --all-cars --json` prints it; it is empty unless all cars were asked for. JSON Lines
    have the members of `identify --json` and `sha256` instead.
    """
    named = ["photo", "sha256", "nameplate", "confidence", "verdict", "make", "make_confidence", *FIELDS, "error"]
    ranked = [column for n in range(1, top + 1) for column in (f"top{n}", f"top{n}_confidence")]
    return [*named, *ranked, "flaws", *BOX, "cars"]


def write_rows(path: Path, kind: Format, answers: Sequence[AnsweredPhoto], top: int) -> None:
    """Write a file of rows.

    Raises:
        RuntimeUnavailableError: the format is Parquet, and pyarrow is not installed.
    """
    if kind == "jsonl":
        path.write_bytes(b"".join(msgspec.json.encode(_object(answer)) + b"\n" for answer in answers))
    elif kind == "csv":
        write_table(path, columns(top), map(_row, answers))
    else:
        import_pyarrow().write_table(_arrow_table(answers, top), path)


def join_files(shards: Iterable[Path], target: Path, kind: Format, top: int) -> None:
    """Join files of rows into one, in their order; no more than one is in memory at a time."""
    if kind == "parquet":
        parquet = import_pyarrow()
        with parquet.ParquetWriter(target, _schema(top)) as writer:
            for shard in shards:
                # partitioning=None: pyarrow would otherwise make columns of folder names such as year=2026.
                writer.write_table(parquet.read_table(shard, partitioning=None))
        return
    with target.open("wb") as whole:
        if kind == "csv":
            whole.write(_csv_header(top))
        for shard in shards:
            with shard.open("rb") as rows:
                if kind == "csv":
                    rows.readline()  # each file has a header of its own
                shutil.copyfileobj(rows, whole, 1 << 20)


def _csv_header(top: int) -> bytes:
    return (",".join(columns(top)) + "\n").encode()


def _object(answer: AnsweredPhoto) -> dict[str, object]:
    # `sha256` comes second, as in the other formats.
    photo, *others = msgspec.to_builtins(prediction_json(answer.prediction)).items()
    return dict([photo, ("sha256", answer.sha256), *others])


def _row(answer: AnsweredPhoto) -> dict[str, object]:
    prediction = answer.prediction
    row: dict[str, object] = {
        "photo": prediction.photo,
        "sha256": answer.sha256,
        "nameplate": prediction.nameplate,
        "confidence": prediction.confidence,
        "verdict": prediction.verdict,
        "make": prediction.make,
        "make_confidence": prediction.make_confidence,
        **{name: getattr(prediction, name) for name in FIELDS},
        "error": prediction.error,
    }
    for number, (name, confidence) in enumerate(prediction.top, start=1):
        row |= {f"top{number}": name, f"top{number}_confidence": confidence}
    box = (None,) * len(BOX) if prediction.box is None else astuple(prediction.box)
    cars = None if prediction.cars is None else msgspec.json.encode(prediction_json(prediction).cars).decode()
    return row | {"flaws": ";".join(prediction.flaws) or None, **dict(zip(BOX, box, strict=True)), "cars": cars}


def _schema(top: int) -> Any:
    import pyarrow

    # A fixed schema, since pyarrow would infer another type for a column that is empty in one file.
    kinds = {name: pyarrow.float64() if name.endswith("confidence") else pyarrow.string() for name in columns(top)}
    return pyarrow.schema(kinds | dict.fromkeys(BOX, pyarrow.int32()))


def _arrow_table(answers: Sequence[AnsweredPhoto], top: int) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([_row(answer) for answer in answers], schema=_schema(top))
