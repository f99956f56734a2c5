"""`write_comparison`: ways of doing side by side, as a page, a table and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nameplate.reports.page import day_and_night, write_page
from nameplate.reports.plots import comparison_plot
from nameplate.storage import whole_file
from nameplate.types import Metric

JSON, TABLE, PAGE = "compare.json", "compare.csv", "index.html"
"""The files of a comparison's folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """One of those compared; figures are None where there is an error."""

    name: str
    backbone: str
    """timm's name of the network."""
    photos: int = 0
    """Judged."""
    top1: Metric | None = None
    """With E. Wilson's interval."""
    log_loss: float | None = None
    """Calibrated."""
    parameters: int | None = None
    """The classifier's among them."""
    gmacs: float | None = None
    """Thousand million multiplications with addition for one photo."""
    photos_per_second: float | None = None
    """The network alone, measured on this machine."""
    megabytes: float | None = None
    """Of the weights, float32 (10⁶ bytes)."""
    licence: str | None = None
    """Of the pretrained weights."""
    seconds: float | None = None
    """What it took on this machine; photos embedded before cost nothing."""
    error: str | None = None
    """Why there are no figures."""
    verdict: str = ""
    """What the test says of it, in words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two of those compared, on the photos that both judged."""

    first: str
    second: str
    photos: int
    difference: Metric
    """Top-1 of second − first, with its own 95 % interval."""
    better: int
    """Photos that only the second named rightly."""
    worse: int
    """Photos that only the first named rightly."""
    p: float
    """Of there being no difference, of this pair alone."""
    raised: float
    """The same, raised for the number of pairs (S. Holm, 1979)."""
    told: bool
    """Whether the difference is more than noise, by the raised p."""
    photos_to_tell: int | None
    """See `evaluation.significance.Paired`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """compare.json."""

    protocol: str
    """frozen, fine-tune or recipes."""
    judged: str
    """On which photos, in words."""
    made: str
    """When, ISO 8601."""
    settings: dict[str, object]
    """All that the rows have in common."""
    data: dict[str, object]
    """How many photos, their digest, where they came from."""
    versions: dict[str, str]
    seconds_to_read: float = 0.0
    """What all rows share: reading the photos and finding copies; little where that was done before."""
    waiting: tuple[str, ...] = ()
    """What is still to be judged."""
    rows: tuple[Row, ...] = ()
    """Best first, errors last."""
    reference: str | None = None
    """The row that verdicts hold the others against: the best, or a sweep's base."""
    summary: str = ""
    """Who is best and who cannot be told from it."""
    pairs: tuple[Pair, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    contenders: tuple[dict[str, object], ...] = ()
    """What was compared, with all that decides it."""


COLUMNS = (
    *("name", "backbone", "top1", "top1_low", "top1_high", "log_loss", "photos", "parameters", "gmacs"),
    *("photos_per_second", "megabytes", "licence", "seconds", "verdict", "error"),
)
"""Of compare.csv."""


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the page, the table and, last, compare.json; each whole.

    Raises:
        WriteError: the folder cannot be written to.
    """
    done = [row for row in comparison.rows if row.top1 is not None]
    plots = day_and_night(lambda dark: comparison_plot(done, dark=dark)) if done else None
    by_speed = len({row.backbone for row in done}) > 1
    write_page(folder / PAGE, "compare.html", page=comparison, plots=plots, by_speed=by_speed, done=done)
    with whole_file(folder / TABLE) as temporary:
        temporary.write_bytes(table_csv(comparison.rows))
    with whole_file(folder / JSON) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")


def table_csv(rows: Sequence[Row]) -> bytes:
    """The rows as UTF-8 CSV, columns as `COLUMNS`; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        top1 = row.top1 and {"top1": row.top1.value, "top1_low": row.top1.low, "top1_high": row.top1.high}
        writer.writerow({**msgspec.to_builtins(row), "top1": None, **(top1 or {})})
    return text.getvalue().encode()
