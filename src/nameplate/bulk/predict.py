"""`predict_table`: one row a photo into a CSV, JSON Lines or Parquet file.

Answers are first appended to a journal beside the output; an interrupted run goes on from it, and the
output appears whole when all is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from nameplate.datasets.tables import import_pyarrow, write_table
from nameplate.errors import NameplateError, UsageError
from nameplate.models.model import Model
from nameplate.storage import sha256, whole_file
from nameplate.types import TOP, Prediction

FORMATS = (".csv", ".jsonl", ".parquet")
FLUSH = 256
"""Rows between two flushes of the journal to disk."""


@dataclass(frozen=True, slots=True)
class Done:
    """What `predict_table` did."""

    photos: int
    unreadable: int
    resumed: int
    """Photos taken over from an interrupted run."""


def predict_table(
    model: Model,
    photos: Sequence[str],
    target: Path,
    *,
    top: int = TOP,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Done:
    """Name every photo, write `target`.

    Args:
        model: what names them.
        photos: paths; a path may stand twice.
        target: its suffix tells the format, one of `FORMATS`.
        top: how many nameplates a row holds besides the answer (columns top1, top1_confidence, top2, …).
        progress: called with photos done and in all.

    Raises:
        UsageError: another suffix.
        NameplateError: the folder cannot be written to.
    """
    if target.suffix.lower() not in FORMATS:
        raise UsageError(f"Cannot write '{target}': its name must end in {', '.join(FORMATS)}.")
    if target.suffix.lower() == ".parquet":
        import_pyarrow()  # fails now rather than after an hour
    model.require_head()
    journal = target.with_name(f".{target.name}.journal")
    heading = _heading(model, photos, top)
    done = _resume(journal, heading)
    resumed = len(done)
    with _open(journal, heading, new=not done) as file:
        for number, prediction in enumerate(model.stream(photos[resumed:], top=top), start=resumed + 1):
            done.append(prediction)
            file.write(msgspec.json.encode(prediction) + b"\n")
            if number % FLUSH == 0:
                file.flush()
            progress(number, len(photos))
    _write(target, done, top)
    journal.unlink(missing_ok=True)
    return Done(len(done), sum(p.error is not None for p in done), resumed)


def _heading(model: Model, photos: Sequence[str], top: int) -> bytes:
    """What a journal must begin with to be gone on from: the same model, looks, photos and columns."""
    manifest = model.bundle.manifest
    files = sorted((name, file.sha256) for name, file in manifest.files.items())
    listed = sha256(os.fsencode("\n".join(photos)))
    asked = repr((files, manifest.temperature, manifest.nameplates, top, model.settings.tta, listed))
    return msgspec.json.encode({"nameplate-predict": sha256(asked.encode())}) + b"\n"


def _resume(journal: Path, heading: bytes) -> list[Prediction]:
    """The answers of an interrupted run of the same job; a last line cut short is dropped."""
    try:
        lines = journal.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    if not lines or lines[0] != heading:
        return []
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        done = [msgspec.json.decode(line, type=Prediction) for line in whole[1:]]
    except msgspec.DecodeError:
        return []
    if len(whole) < len(lines):
        os.truncate(journal, sum(map(len, whole)))
    return done


def _open(journal: Path, heading: bytes, *, new: bool) -> BinaryIO:
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        file = journal.open("wb" if new else "ab")
        if new:
            file.write(heading)
    except OSError as error:
        raise NameplateError(f"Cannot write '{journal}': {error.strerror or error}.") from None
    return file


def _write(target: Path, predictions: Sequence[Prediction], top: int) -> None:
    numbers = range(1, top + 1)
    columns = ["photo", "nameplate", "confidence", "error"]
    columns += [column for n in numbers for column in (f"top{n}", f"top{n}_confidence")]
    with whole_file(target) as temporary:
        if target.suffix.lower() == ".jsonl":
            temporary.write_bytes(b"".join(msgspec.json.encode(as_json(p)) + b"\n" for p in predictions))
        elif target.suffix.lower() == ".csv":
            write_table(temporary, columns, (_row(p) for p in predictions))
        else:
            _write_parquet(temporary, columns, predictions)


def as_json(prediction: Prediction) -> dict[str, object]:
    """As JSON shows it everywhere: photo, nameplate, confidence, top, and error where there is one."""
    shown: dict[str, object] = {
        "photo": prediction.photo,
        "nameplate": prediction.nameplate,
        "confidence": prediction.confidence,
        "top": [{"nameplate": name, "confidence": chance} for name, chance in prediction.top],
    }
    return shown if prediction.error is None else {**shown, "error": prediction.error}


def _row(prediction: Prediction) -> dict[str, object]:
    row: dict[str, object] = {
        "photo": prediction.photo,
        "nameplate": prediction.nameplate,
        "confidence": prediction.confidence,
        "error": prediction.error,
    }
    for number, (name, chance) in enumerate(prediction.top, start=1):
        row |= {f"top{number}": name, f"top{number}_confidence": chance}
    return row


def _write_parquet(path: Path, columns: Sequence[str], predictions: Sequence[Prediction]) -> None:
    parquet = import_pyarrow()
    import pyarrow

    kinds = {name: pyarrow.float64() if name.endswith("confidence") else pyarrow.string() for name in columns}
    table = pyarrow.Table.from_pylist([_row(p) for p in predictions], schema=pyarrow.schema(kinds))
    parquet.write_table(table, path)
