"""`write_run_page`: what a training run has done so far, as one HTML file; and `metrics.csv`, the same as a table."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nameplate.report.page import light_and_dark, thumbnail_uri, write_page
from nameplate.report.plots import curves_plot
from nameplate.types import Epoch, Evaluation, Exported

RUNNING = "running"
"""The state while a page asks the browser to load it anew."""
FINISHED = "finished"
"""The state of a run that went to its end."""
REFRESH_SECONDS = 30
"""How often a browser loads the page of a running run."""
HARDEST = 12
"""Nameplates in the table of the hardest."""
COLUMNS = tuple(field.name for field in fields(Epoch))
"""Of metrics.csv."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfusedPair:
    """Two nameplates that the model takes for one another, with a photo of each."""

    truth: str
    """What the photos show."""
    named: str
    """What they were named."""
    count: int
    """Photos of `truth` that were named `named`."""
    photo: NDArray[np.uint8]
    """One of them, H×W×3 RGB."""
    example: NDArray[np.uint8]
    """A training photo of `named`, H×W×3 RGB."""


@dataclass(frozen=True, slots=True, eq=False)
class RunPage:
    """What is known of a run; the page leaves out the sections of what is not."""

    title: str
    """Names the run."""
    state: str = RUNNING
    """running, finished, or stopped with the reason."""
    epochs: Sequence[Epoch] = ()
    """In order."""
    best: int | None = None
    """Number of the epoch whose weights are kept; None: see `best_epoch`."""
    recipe: str = ""
    """The recipe as TOML."""
    facts: Sequence[tuple[str, str]] = ()
    """Name and value: device, precision, photos, seed, versions, weights."""
    augmented: bytes | None = None
    """A contact sheet of augmented photos as the network sees them, a JPEG."""
    evaluation: Evaluation | None = None
    """On the validation part, of the weights that are kept."""
    confusions: Sequence[ConfusedPair] = ()
    """Most frequent first."""
    parity: Sequence[tuple[str, str]] = ()
    """Name and value: how torch, ONNX Runtime and OpenVINO agree."""
    notes: Sequence[str] = ()
    """Photos left out, and why."""
    exported: Exported | None = None
    """Whose weights the bundle holds, once it is written."""


def write_run_page(target: Path, page: RunPage) -> None:
    """Write a run's page, whole, with all pictures inside it; cheap enough for the end of every epoch.

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
        exported=None if page.exported is None else exported_words(page.exported),
        took=_duration(page.epochs[-1].seconds) if page.epochs else "",
        curves=curves,
        augmented=None if page.augmented is None else _jpeg_uri(page.augmented),
        hardest=[] if page.evaluation is None else sorted(page.evaluation.classes, key=lambda c: c.f1)[:HARDEST],
        pairs=[(pair, thumbnail_uri(pair.photo), thumbnail_uri(pair.example)) for pair in page.confusions],
    )


def exported_words(exported: Exported) -> str:
    """Which epoch's weights a bundle holds, why, and what that does to its figures."""
    epoch, best = exported.epoch, exported.best
    said = f"epoch {epoch.epoch} of {exported.epochs}, {epoch.height}×{epoch.width}"
    if best is None or epoch.validation_top1 is None:
        return said
    said += f", {100 * epoch.validation_top1:.1f} % of the held-out photos right"
    if best.epoch != epoch.epoch and best.validation_top1 is not None:
        return f"{said}; epoch {best.epoch} had {100 * best.validation_top1:.1f} %, its weights were not kept"
    if exported.chosen:
        return f"{said}, the best of all; they chose it, so its figures on them flatter a little"
    return said


def metrics_csv(epochs: Sequence[Epoch]) -> bytes:
    """The epochs as UTF-8 CSV: `Epoch`'s fields are the columns, None is an empty cell, no digit is lost."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return text.getvalue().encode()


def best_epoch(epochs: Sequence[Epoch], number: int | None = None) -> Epoch | None:
    """The epoch of that number; without one that of the highest validation top-1, of equals the least loss, if any."""
    if number is not None:
        return next((epoch for epoch in epochs if epoch.epoch == number), None)
    finite = [epoch for epoch in epochs if epoch.validation_top1 is not None and math.isfinite(epoch.validation_top1)]
    return max(finite, key=lambda epoch: (epoch.validation_top1 or 0.0, -(epoch.validation_loss or 0.0)), default=None)


def _duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _jpeg_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
