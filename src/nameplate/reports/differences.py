"""Plots of two ways held against one another; each function returns a PNG's bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nameplate.reports.plots import DAY, NIGHT, at_most_whole
from nameplate.types import Metric

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
    colours = NIGHT if dark else DAY
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
    colours = NIGHT if dark else DAY
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
