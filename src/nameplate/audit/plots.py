"""What a set of photos is like, drawn; each function returns a PNG's bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from nameplate.reports.plots import DAY, NIGHT, as_png, dress

MUCH = 10
"""Ratio of the largest size to the smallest from which sizes are drawn by their logarithms."""
NAMED = 45
"""Classes up to which each bar has its name; of more only the ends are named."""


def counts_plot(counts: dict[str, int], *, dark: bool = False) -> bytes:
    """Photos of each class, the largest first."""
    colours = NIGHT if dark else DAY
    order = sorted(counts, key=lambda name: -counts[name])
    values = [counts[name] for name in order]
    if len(order) <= NAMED:
        figure = Figure((6.4, 0.27 * len(order) + 0.8), layout="constrained", facecolor=colours["paper"])
        axes = figure.add_subplot()
        dress(axes, colours)
        axes.barh(range(len(order)), values, color=colours["accent"], height=0.72)
        axes.set_yticks(range(len(order)), order, fontsize=8.5, color=colours["ink"])
        axes.invert_yaxis()
        axes.margins(y=0.01)
        for place, value in enumerate(values):
            axes.annotate(f"{value:,}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8,
                          color=colours["soft"])  # fmt: skip
        axes.grid(visible=False)
        axes.set_xticks([])
        return as_png(figure, dpi=160)
    figure = Figure((6.4, 2.9), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    axes.bar(range(len(order)), values, color=colours["accent"], width=1.0)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_xticks([])
    axes.set_xlabel(f"{len(order)} classes, the largest first", color=colours["soft"], fontsize=9)
    axes.set_ylabel("photos", color=colours["soft"], fontsize=9)
    axes.set_title(
        f"most: {order[0]} ({values[0]:,}) · fewest: {order[-1]} ({values[-1]:,})",
        loc="left", fontsize=9, color=colours["ink"],
    )  # fmt: skip
    return as_png(figure, dpi=160)


def measures_plot(
    widths: NDArray[np.float64],
    heights: NDArray[np.float64],
    megabytes: NDArray[np.float64],
    brightness: NDArray[np.float64],
    sharpness: NDArray[np.float64],
    *,
    dark: bool = False,
) -> bytes:
    """Sizes, aspect ratios, files, brightness and sharpness of the photos, each float64 (N,)."""
    colours = NIGHT if dark else DAY
    figure = Figure((6.4, 6.6), layout="constrained", facecolor=colours["paper"])
    panels = figure.subplots(3, 2)
    for axes in panels.flat:
        dress(axes, colours)
    sizes = panels[0, 0]
    sizes.plot(widths, heights, ".", color=colours["accent"], markersize=2.5, alpha=0.35, markeredgewidth=0)
    for axis, values in ((sizes.xaxis, widths), (sizes.yaxis, heights)):
        scale_sizes(axis, values)
    sizes.set_title("Width × height, pixels", loc="left", fontsize=9.5, color=colours["ink"])
    _histogram(panels[0, 1], widths / heights, "Width ÷ height", colours)
    _histogram(panels[1, 0], megabytes, "Megabytes", colours)
    _histogram(panels[1, 1], brightness, "Brightness, 0 black – 1 white", colours)
    _histogram(
        panels[2, 0], np.log10(np.maximum(sharpness, 1e-6)), "Sharpness, log₁₀ of the Laplacian's variance", colours
    )
    _histogram(panels[2, 1], np.sqrt(widths * heights), "Side of a square of as many pixels", colours)
    return as_png(figure, dpi=160)


def scale_sizes(axis: Axis, pixels: NDArray[np.float64]) -> None:
    """Steps of 1, 2 and 5 times the powers of ten where sizes differ by much, else even ones: there are always some."""
    low, high = float(pixels.min()), float(pixels.max())
    if high > MUCH * low:
        axis._set_axes_scale("log")  # type: ignore[attr-defined]  # the one way to name an axis without its letter
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda each, _: f"{each:,.0f}"))


def _histogram(axes: Axes, values: NDArray[np.float64], title: str, colours: dict[str, str]) -> None:
    high = float(np.quantile(values, 0.995))
    axes.hist(np.minimum(values, high), bins=40, color=colours["accent"])
    axes.axvline(float(np.median(values)), color=colours["second"], linewidth=1.4)
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=9.5, color=colours["ink"])


def shortcut_plot(rows: Sequence[tuple[str, float, float, float]], guessing: float, *, dark: bool = False) -> bytes:
    """Accuracy with parts of the photos hidden: (what is seen, share, low, high) each, and what guessing gives."""
    colours = NIGHT if dark else DAY
    figure = Figure((5.2, 0.5 * len(rows) + 0.7), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    for place, (_, share, low, high) in enumerate(rows):
        axes.barh(place, 100 * share, color=colours["accent"], height=0.55)
        axes.plot([100 * low, 100 * high], [place, place], color=colours["second"], linewidth=2)
        axes.annotate(f"{100 * share:.1f} %", (100 * high, place), (5, 0), textcoords="offset points", va="center",
                      fontsize=8.5, color=colours["ink"])  # fmt: skip
    axes.axvline(100 * guessing, color=colours["soft"], linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=9, color=colours["ink"])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 118)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("top-1, %; dotted: always the largest class", color=colours["soft"], fontsize=9)
    return as_png(figure, dpi=160)
