"""`predict_table`: one row a photo into a CSV, JSON Lines or Parquet file.

Answers are first appended to a journal beside the output; an interrupted run goes on from it, and the
output appears whole when all is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nameplate.bulk.journal import journal
from nameplate.datasets.tables import import_pyarrow, write_table
from nameplate.errors import UsageError
from nameplate.models.answer_json import prediction_json
from nameplate.models.model import Model
from nameplate.storage import whole_file
from nameplate.types import TOP, Prediction

FORMATS = (".csv", ".jsonl", ".parquet")


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
    with journal(target, _job(model, photos, top), Prediction) as kept:
        rest = photos[kept.resumed :]
        for number, prediction in enumerate(model.stream(rest, top=top), start=kept.resumed + 1):
            kept.add(prediction)
            progress(number, len(photos))
        _write(target, kept.done, top)
    return Done(len(kept.done), sum(p.error is not None for p in kept.done), kept.resumed)


def _job(model: Model, photos: Sequence[str], top: int) -> object:
    """What the answers and their columns depend on."""
    return model.bundle.manifest, model.settings.tta, top, photos


def _write(target: Path, predictions: Sequence[Prediction], top: int) -> None:
    numbers = range(1, top + 1)
    columns = ["photo", "nameplate", "confidence", "verdict", "make", "make_confidence", "error"]
    columns += [column for n in numbers for column in (f"top{n}", f"top{n}_confidence")]
    with whole_file(target) as temporary:
        if target.suffix.lower() == ".jsonl":
            temporary.write_bytes(b"".join(msgspec.json.encode(prediction_json(p)) + b"\n" for p in predictions))
        elif target.suffix.lower() == ".csv":
            write_table(temporary, columns, (_row(p) for p in predictions))
        else:
            _write_parquet(temporary, columns, predictions)


def _row(prediction: Prediction) -> dict[str, object]:
    row: dict[str, object] = {
        "photo": prediction.photo,
        "nameplate": prediction.nameplate,
        "confidence": prediction.confidence,
        "verdict": prediction.verdict,
        "make": prediction.make,
        "make_confidence": prediction.make_confidence,
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
