"""`write_comparison`: ways of doing side by side, as a page, a table and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nameplate.report.page import light_and_dark, write_page
from nameplate.report.plots import DARK, LIGHT, at_most_whole, comparison_plot
from nameplate.storage import whole_file
from nameplate.types import Metric

# JOINED Plots of two ways held against one another; each function returns a PNG's bytes.


WIDTH, DPI = 4.6, 180
"""Inches and dots an inch: what a phone shows at its full width."""


def runs_plot(
    names: tuple[str, str],
    first: Sequence[float],
    second: Sequence[float],
    difference: Metric,
    *,
    dark: bool = False,
) -> bytes:
    """A share under two ways, a line a run; below it the difference with its interval, in points.

    Args:
        names: of the two ways.
        first: the share of each run, 0–1.
        second: the same for the other way, runs in the same order.
        difference: of the means, second − first, 0–1.
        dark: light lines on a dark ground.
    """
    colours = DARK if dark else LIGHT
    figure = Figure((WIDTH, 3.9), layout="constrained", facecolor=colours["paper"])
    above, below = figure.subplots(2, height_ratios=[2.6, 1])
    for left, right in zip(first, second, strict=True):
        above.plot([0, 1], [100 * left, 100 * right], color=colours["soft"], linewidth=1, marker="o", markersize=3.5)
    means = [100 * sum(shares) / len(shares) for shares in (first, second)]
    above.plot([0, 1], means, color=colours["accent"], linewidth=2.4, marker="o", markersize=7)
    for place, (mean, side) in enumerate(zip(means, ("right", "left"), strict=True)):
        above.annotate(
            f"{mean:.1f} %", (place, mean), (9 * (2 * place - 1), 0), textcoords="offset points", ha=side, va="center",
            color=colours["ink"], fontsize=9.5,
        )  # fmt: skip
    above.set_xlim(-0.55, 1.55)
    above.set_xticks([0, 1], names)
    above.set_title("Top-1, a line a seed, their mean thick", loc="left", fontsize=9.5, color=colours["ink"])
    above.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    above.yaxis.set_major_locator(MaxNLocator(5))
    at_most_whole(above.yaxis, 100)
    _dress(above, colours, "y")
    _interval(below, 0, difference, colours["accent"], 8)
    below.set_yticks([])
    below.set_title("Difference in points, with its 95 % interval", loc="left", fontsize=9.5, color=colours["ink"])
    _about_zero(below, colours)
    return _png(figure)


def forest_plot(
    names: Sequence[str], differences: Sequence[Metric], told: Sequence[bool], *, dark: bool = False
) -> bytes:
    """A difference for each name with its interval, in points, the first on top; those that are told are coloured.

    Args:
        names: one a row.
        differences: of each, −1 … 1.
        told: whether it is more than noise.
        dark: light lines on a dark ground.
    """
    colours = DARK if dark else LIGHT
    figure = Figure((WIDTH, 0.27 * len(names) + 0.9), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    for place, (difference, sure) in enumerate(zip(differences, told, strict=True)):
        colour = colours["soft"] if not sure else colours["accent" if difference.value > 0 else "second"]
        _interval(axes, place, difference, colour, 5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    shown = [name if len(name) <= 28 else f"{name[:27]}…" for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_xlabel("points, with − without", color=colours["soft"], fontsize=9)
    _about_zero(axes, colours)
    return _png(figure)


def _interval(axes: Axes, place: int, difference: Metric, colour: str, size: float) -> None:
    axes.plot([100 * end for end in difference.interval], [place, place], color=colour, linewidth=size / 3)
    axes.plot(100 * difference.value, place, "o", color=colour, markersize=size)


def _about_zero(axes: Axes, colours: dict[str, str]) -> None:
    axes.axvline(0, color=colours["ink"], linewidth=0.9)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:+g}".replace("-", "−") if share else "0"))
    _dress(axes, colours, "x")


def _dress(axes: Axes, colours: dict[str, str], grid: str) -> None:
    axes.set_facecolor(colours["paper"])
    axes.spines[:].set_visible(False)
    axes.grid(axis=grid, color=colours["soft"], alpha=0.25, linewidth=0.6)  # type: ignore[arg-type]
    axes.tick_params(length=0, labelsize=8.5, labelcolor=colours["ink"])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


JSON, TABLE, PAGE = "compare.json", "compare.csv", "index.html"
"""The files of a comparison's folder."""


@dataclass(frozen=True, slots=True)
class ComparisonRow:
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
    rows: tuple[ComparisonRow, ...] = ()
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
    plots = light_and_dark(lambda dark: comparison_plot(done, dark=dark)) if done else None
    by_speed = len({row.backbone for row in done}) > 1
    write_page(folder / PAGE, "compare.html", page=comparison, plots=plots, by_speed=by_speed, done=done)
    with whole_file(folder / TABLE) as temporary:
        temporary.write_bytes(table_csv(comparison.rows))
    with whole_file(folder / JSON) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")


def table_csv(rows: Sequence[ComparisonRow]) -> bytes:
    """The rows as UTF-8 CSV, columns as `COLUMNS`; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        top1 = row.top1 and {"top1": row.top1.value, "top1_low": row.top1.low, "top1_high": row.top1.high}
        writer.writerow({**msgspec.to_builtins(row), "top1": None, **(top1 or {})})
    return text.getvalue().encode()
