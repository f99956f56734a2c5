"""The page of a training run (`write_run_page`), one HTML file, and the same epochs as the table `metrics.csv`."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.report.page import light_and_dark, thumbnail_uri, write_page
from nameplate.report.plots import curves_plot
from nameplate.types import Epoch, Evaluation, Exported, percent

RUNNING = "running"
"""The state of a run that is going on; its page asks the browser to reload it."""
FINISHED = "finished"
"""The state of a run that has finished."""
REFRESH_SECONDS = 30
"""Seconds after which a browser reloads the page of a run that is going on."""
HARDEST = 12
"""How many nameplates the table of the hardest ones has."""
COLUMNS = tuple(field.name for field in fields(Epoch))
"""The columns of metrics.csv."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfusedPair:
    """Two nameplates that the model confuses, with a photo of each."""

    truth: str
    """The true nameplate."""
    named: str
    """The predicted nameplate."""
    count: int
    """Number of photos of `truth` that were predicted as `named`."""
    photo: NDArray[np.uint8]
    """One of these photos, uint8 H×W×3, RGB."""
    example: NDArray[np.uint8]
    """A training photo of `named`, uint8 H×W×3, RGB."""


@dataclass(frozen=True, slots=True, eq=False)
class RunPage:
    """What is known about a run. The page leaves out sections for which nothing is known."""

    title: str
    """The title of the page."""
    state: str = RUNNING
    """running, finished, or stopped with the reason."""
    epochs: Sequence[Epoch] = ()
    """The finished epochs, in order."""
    best: int | None = None
    """Number of the epoch whose weights are kept; if None, `best_epoch` decides."""
    recipe: str = ""
    """The recipe as TOML."""
    facts: Sequence[tuple[str, str]] = ()
    """Name and value: device, precision, photos, seed, versions, weights."""
    augmented: bytes | None = None
    """A contact sheet of augmented photos as the network sees them, a JPEG."""
    evaluation: Evaluation | None = None
    """The evaluation of the kept weights on the validation photos."""
    confusions: Sequence[ConfusedPair] = ()
    """The confused pairs, most frequent first."""
    parity: Sequence[tuple[str, str]] = ()
    """Name and value: how torch, ONNX Runtime and OpenVINO agree."""
    notes: Sequence[str] = ()
    """Photos left out, and why."""
    exported: Exported | None = None
    """The epoch whose weights the bundle has, once it is written."""
    reference: Sequence[float] = ()
    """The validation top-1 that the notebook reached in each of the same stages; empty for other recipes."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage in the table of stages."""

    number: int
    """From 1."""
    size: str
    """Height × width of the model's input."""
    epochs: int
    """Number of epochs that it took so far."""
    best: Epoch | None
    """Its best epoch; None without validation."""
    reference: float | None
    """What the notebook reached in it; None where there is nothing to compare with."""


def write_run_page(target: Path, page: RunPage) -> None:
    """Write the page of a run with all images inside it. It is cheap enough for the end of every epoch.

    Raises:
        NameplateError: the folder cannot be written to.
    """
    best = page.exported.epoch if page.exported else best_epoch(page.epochs, page.best)
    curves = None
    if page.epochs:
        marked = best.epoch if best else None
        word = "exported" if page.exported else "best"
        curves = light_and_dark(lambda dark: curves_plot(page.epochs, best=marked, word=word, dark=dark))
    write_page(
        target,
        "run.html",
        page=page,
        refresh=REFRESH_SECONDS if page.state == RUNNING else None,
        tone=page.state if page.state in (RUNNING, FINISHED) else "stopped",
        last=page.epochs[-1] if page.epochs else None,
        best=best,
        stages=stage_rows(page.epochs, page.reference),
        measured=None if page.evaluation is None else page.evaluation.top1,
        exported=None if page.exported is None else exported_words(page.exported),
        took=_duration(page.epochs[-1].seconds) if page.epochs else "",
        curves=curves,
        augmented=None if page.augmented is None else _jpeg_uri(page.augmented),
        hardest=[] if page.evaluation is None else sorted(page.evaluation.classes, key=lambda c: c.f1)[:HARDEST],
        pairs=[(pair, thumbnail_uri(pair.photo), thumbnail_uri(pair.example)) for pair in page.confusions],
    )


def stage_rows(epochs: Sequence[Epoch], reference: Sequence[float] = ()) -> list[StageRow]:
    """Return a row for each stage that has begun, with its best epoch and what the notebook reached in it.

    Args:
        epochs: the finished epochs, in order.
        reference: see `RunPage.reference`; taken only where there is one for each stage.
    """
    rows = []
    for number, of_stage in groupby(epochs, key=lambda epoch: epoch.stage):
        members = list(of_stage)
        size = f"{members[0].height}×{members[0].width}"
        known = reference[number - 1] if 0 < number <= len(reference) else None
        rows.append(StageRow(number, size, len(members), best_epoch(members), known))
    return rows


def exported_words(exported: Exported) -> str:
    """Say which epoch's weights a bundle has, why, and what that means for its figures."""
    epoch, best = exported.epoch, exported.best
    said = f"epoch {epoch.epoch} of {exported.epochs}, {epoch.height}×{epoch.width}"
    if best is None or epoch.validation_top1 is None:
        return said
    said += f", {percent(epoch.validation_top1)} of the held-out photos right"
    if best.epoch != epoch.epoch and best.validation_top1 is not None:
        return f"{said}; epoch {best.epoch} had {percent(best.validation_top1)}, its weights were not kept"
    if exported.chosen:
        return f"{said}, the best of all; they chose it, so its figures on them flatter a little"
    return said


def metrics_csv(epochs: Sequence[Epoch]) -> bytes:
    """Return the epochs as UTF-8 CSV: a column for each field of `Epoch`, empty for None, numbers with all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return text.getvalue().encode()


def best_epoch(epochs: Sequence[Epoch], number: int | None = None) -> Epoch | None:
    """Return the epoch of a number, else that of the highest validation top-1 and, among equals, the lowest loss."""
    if number is not None:
        return next((epoch for epoch in epochs if epoch.epoch == number), None)
    finite = [epoch for epoch in epochs if epoch.validation_top1 is not None and math.isfinite(epoch.validation_top1)]
    return max(finite, key=lambda epoch: (epoch.validation_top1 or 0.0, -(epoch.validation_loss or 0.0)), default=None)


def _duration(seconds: float) -> str:
    """Return a duration as text: 12 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _jpeg_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
