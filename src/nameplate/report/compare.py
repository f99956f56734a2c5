"""The comparison of several models or recipes (`write_comparison`): a page, a table and JSON, with their plots.

`comparison_plot` shows all rows. `runs_plot` and `forest_plot` show two methods; `extra-data` draws its page with them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nameplate.report.page import fill, in_notebook, light_and_dark, write_html
from nameplate.report.plots import DARK, LIGHT, as_png, at_most_whole, dress
from nameplate.storage import whole_file
from nameplate.types import Doubles, Metric

JSON, TABLE, PAGE = "compare.json", "compare.csv", "index.html"
"""The names of the files in a comparison's folder."""


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One compared model or recipe; its figures are None where there is an error."""

    # The names of the fields are the keys of compare.json.

    name: str
    backbone: str
    """The name of the network in timm."""
    photos: int = 0
    """The number of evaluated photos."""
    top1: Metric | None = None
    """With Wilson's interval."""
    log_loss: float | None = None
    """Of calibrated probabilities."""
    parameters: int | None = None
    """The number of weights, the classifier's included."""
    gmacs: float | None = None
    """Multiply-accumulate operations for one photo, in 10⁹."""
    photos_per_second: float | None = None
    """The throughput of the network alone, measured on this machine."""
    megabytes: float | None = None
    """The size of the weights in float32, in 10⁶ bytes."""
    licence: str | None = None
    """The licence of the pretrained weights."""
    seconds: float | None = None
    """The time that this row took on this machine; embeddings from the cache cost nothing."""
    error: str | None = None
    """Why there are no figures."""
    verdict: str = ""
    """The result of the test against the reference, in words."""
    rank: str = ""
    """1 and the number of rows that are better beyond noise; with `=` where another row has the same rank. Empty where
    not all pairs were tested."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows, compared on the photos that both evaluated."""

    # The names of the fields are the keys of compare.json.
    first: str
    second: str
    photos: int
    difference: Metric
    """The difference of top-1, second − first, with the 95 % interval of this pair alone."""
    better: int
    """The number of photos on which only the second is right."""
    worse: int
    """The number of photos on which only the first is right."""
    p: float
    """The p value of this pair alone."""
    raised: float
    """The p value corrected for the number of pairs (S. Holm, 1979)."""
    told: bool
    """Whether the difference is significant by the corrected p value."""
    photos_to_tell: int | None
    """See `nameplate.evaluate.significance.Paired`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison; it is written as compare.json, whose keys are the names of the fields."""

    protocol: str
    """`frozen`, `fine-tune` or `recipes`."""
    judged: str
    """The evaluated photos, in words."""
    made: str
    """The time, ISO 8601."""
    settings: dict[str, object]
    """The settings that all rows share."""
    data: dict[str, object]
    """The number of photos, their digest, and their sources."""
    versions: dict[str, str]
    """The version of each library."""
    seconds_to_read: float = 0.0
    """The time for what all rows share: reading the photos and finding copies. It is short where that is cached."""
    waiting: tuple[str, ...] = ()
    """The names that are still to be evaluated."""
    rows: tuple[ComparisonRow, ...] = ()
    """The best first, rows with errors last."""
    reference: str | None = None
    """The row with which all others are compared: the best one, or the base of a sweep."""
    summary: str = ""
    """Which row is best, and which rows cannot be told from it, in words."""
    pairs: tuple[Pair, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    """Path and reason of each photo that cannot be read."""
    contenders: tuple[dict[str, object], ...] = ()
    """The specification of each row."""

    def _repr_html_(self) -> str:
        return in_notebook(comparison_page(self))


def is_comparison(folder: Path, protocol: str) -> bool:
    """Whether a folder holds a comparison of this protocol."""
    try:
        found = msgspec.json.decode((folder / JSON).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return False
    return found.get("protocol") == protocol


COLUMNS = (
    *("rank", "name", "backbone", "top1", "top1_low", "top1_high", "log_loss", "photos", "parameters", "gmacs"),
    *("photos_per_second", "megabytes", "licence", "seconds", "verdict", "error"),
)
"""The columns of compare.csv."""


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the page, the table and compare.json; each file appears whole or not at all.

    compare.json is last, so that where it is new, the other two are new as well.

    Raises:
        WriteError: The folder cannot be written to.
    """
    write_html(folder / PAGE, comparison_page(comparison))
    with whole_file(folder / TABLE) as temporary:
        temporary.write_bytes(table_csv(comparison.rows))
    with whole_file(folder / JSON) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")


def comparison_page(comparison: Comparison) -> str:
    """The page as HTML."""
    done = [row for row in comparison.rows if row.top1 is not None]
    plots = light_and_dark(lambda dark: comparison_plot(done, dark=dark)) if done else None
    by_speed = len({row.backbone for row in done}) > 1
    return fill("compare.html", page=comparison, plots=plots, by_speed=by_speed, done=done)


def table_csv(rows: Sequence[ComparisonRow]) -> bytes:
    """The rows as UTF-8 CSV with `COLUMNS`; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        top1 = row.top1 and {"top1": row.top1.value, "top1_low": row.top1.low, "top1_high": row.top1.high}
        writer.writerow({**msgspec.to_builtins(row), "top1": None, **(top1 or {})})
    return text.getvalue().encode()


# Plots of a comparison; each function returns a PNG's bytes.

NEAR = 4
"""Speeds are drawn on a linear axis where they differ by at most this factor: a logarithmic one would have no ticks."""


def comparison_plot(rows: Sequence[ComparisonRow], *, dark: bool = False) -> bytes:
    """Draw top-1 with its interval against throughput, or row below row where all rows are of one network.

    Args:
        rows: At least one, each with its figures.
        dark: Draw light marks on a dark ground.

    Returns:
        A narrow PNG, which a phone shows at its full width.
    """
    colours = DARK if dark else LIGHT
    by_speed = len({row.backbone for row in rows}) > 1
    figure = Figure((5.6, 4.2 if by_speed else 0.42 * len(rows) + 0.9), layout="constrained")
    figure.set_facecolor(colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    (_against_speed if by_speed else _row_by_row)(axes, rows, colours)
    axes.set_title("Top-1 with 95 % interval", loc="left", fontsize=9.5, color=colours["ink"])
    return as_png(figure, dpi=180)


def _percent(rows: Sequence[ComparisonRow]) -> tuple[Doubles, Doubles]:
    """Top-1 in percent, (N,), and how far its interval reaches down and up, 2×N."""
    figures = [row.top1 for row in rows if row.top1 is not None]
    values = np.array([figure.value for figure in figures])
    reach = [values - [figure.low for figure in figures], [figure.high for figure in figures] - values]
    return 100 * values, 100 * np.array(reach)


def _against_speed(axes: Axes, rows: Sequence[ComparisonRow], colours: dict[str, str]) -> None:
    values, reach = _percent(rows)
    speeds = np.array([row.photos_per_second or np.nan for row in rows])
    axes.errorbar(speeds, values, reach, fmt="o", color=colours["accent"], elinewidth=1.3, capsize=3)
    axes.set_xlabel("photos a second, network alone, this machine", color=colours["soft"], fontsize=9)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    at_most_whole(axes.yaxis, 100)
    axes.margins(x=0.22)
    if np.nanmax(speeds) > NEAR * np.nanmin(speeds):
        axes.set_xscale("log")
        _round_speeds(axes)
    _names_beside(axes, speeds, values, [row.name for row in rows], colours)


def _row_by_row(axes: Axes, rows: Sequence[ComparisonRow], colours: dict[str, str]) -> None:
    values, reach = _percent(rows)
    axes.errorbar(values, np.arange(len(rows)), xerr=reach, fmt="o", color=colours["accent"], elinewidth=1.3, capsize=3)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=colours["soft"], alpha=0.25, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], color=colours["ink"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    at_most_whole(axes.xaxis, 100)


def _round_speeds(axes: Axes) -> None:
    """Set ticks of a logarithmic axis at 1, 2 and 5 times the powers of ten, written as plain numbers."""
    low, high = axes.get_xlim()
    ticks = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _names_beside(axes: Axes, x: Doubles, y: Doubles, names: Sequence[str], colours: dict[str, str]) -> None:
    """Write a name beside each point, and move names down that would cover others."""
    # The layout must be computed before positions in points are known.
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    spots = axes.transData.transform(np.stack([x, y], axis=1)) * 72 / axes.figure.dpi
    taken: list[tuple[float, float]] = []
    for place in np.argsort(-y, kind="stable"):
        across, height = spots[place]
        near = [below for other, below in taken if abs(other - across) < 95]
        while any(abs(height - below) < 11 for below in near):
            height -= 11
        taken.append((across, height))
        axes.annotate(
            names[place],
            (x[place], y[place]),
            (7, height - spots[place][1] + 4),
            textcoords="offset points",
            fontsize=8.5,
            color=colours["ink"],
            path_effects=[withStroke(linewidth=2.5, foreground=colours["paper"])],  # over another row's interval
        )


# Plots of two methods.

WIDTH, DPI = 4.6, 180
"""Inches and dots per inch, so that a phone shows the plot at its full width."""


def runs_plot(
    names: tuple[str, str],
    first: Sequence[float],
    second: Sequence[float],
    difference: Metric,
    *,
    dark: bool = False,
) -> bytes:
    """Draw a share under two methods with a line per run, and below it the difference with its interval, in points.

    Args:
        names: The names of the two methods.
        first: The share of each run, 0–1.
        second: The same for the other method, with the runs in the same order.
        difference: The difference of the means, second − first, −1 … 1.
        dark: Draw light lines on a dark ground.
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
    _dress_plain(above, colours, "y")
    _interval(below, 0, difference, colours["accent"], 8)
    below.set_yticks([])
    below.set_title("Difference in points, with its 95 % interval", loc="left", fontsize=9.5, color=colours["ink"])
    _about_zero(below, colours)
    return as_png(figure, DPI)


def forest_plot(
    names: Sequence[str], differences: Sequence[Metric], significant: Sequence[bool], *, dark: bool = False
) -> bytes:
    """Draw a difference with its interval per row, in points, the first on top; significant ones are coloured.

    Args:
        names: One per row.
        differences: One per row, −1 … 1.
        significant: Whether each difference is significant.
        dark: Draw light lines on a dark ground.
    """
    colours = DARK if dark else LIGHT
    figure = Figure((WIDTH, 0.27 * len(names) + 0.9), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    for place, (difference, sure) in enumerate(zip(differences, significant, strict=True)):
        colour = colours["soft"] if not sure else colours["accent" if difference.value > 0 else "second"]
        _interval(axes, place, difference, colour, 5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    shown = [name if len(name) <= 28 else f"{name[:27]}…" for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_xlabel("points, with − without", color=colours["soft"], fontsize=9)
    _about_zero(axes, colours)
    return as_png(figure, DPI)


def _interval(axes: Axes, place: int, difference: Metric, colour: str, size: float) -> None:
    axes.plot([100 * end for end in difference.interval], [place, place], color=colour, linewidth=size / 3)
    axes.plot(100 * difference.value, place, "o", color=colour, markersize=size)


def _about_zero(axes: Axes, colours: dict[str, str]) -> None:
    """Mark 0 on the x axis and write signed ticks."""
    axes.axvline(0, color=colours["ink"], linewidth=0.9)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:+g}".replace("-", "−") if share else "0"))
    _dress_plain(axes, colours, "x")


def _dress_plain(axes: Axes, colours: dict[str, str], grid: str) -> None:
    axes.set_facecolor(colours["paper"])
    axes.spines[:].set_visible(False)
    axes.grid(axis=grid, color=colours["soft"], alpha=0.25, linewidth=0.6)  # type: ignore[arg-type]
    axes.tick_params(length=0, labelsize=8.5, labelcolor=colours["ink"])
