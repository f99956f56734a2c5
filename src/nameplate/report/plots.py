"""Plots, drawn without a display; each function returns a PNG's bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from nameplate.types import Doubles, Epoch, Evaluation

INK, ACCENT = "#1c2733", "#1f6f8b"
DPI = 120
LIGHT = {"ink": INK, "soft": "#5b6b78", "accent": ACCENT, "second": "#c2632e", "band": "#eef3f6", "paper": "#ffffff"}
DARK = {
    "ink": "#e3eaef",
    "soft": "#97a7b3",
    "accent": "#62b8d4",
    "second": "#e8935f",
    "band": "#1d2831",
    "paper": "#141b21",
}
"""Colours of the curves on a light and on a dark page."""


def confusion_plot(matrix: NDArray[np.int64], nameplates: Sequence[str]) -> bytes:
    """Draw a confusion matrix of counts, int64 C×C, whose rows are the true classes; colours are shares of the row."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.5, 0.46 * len(nameplates) + 2)
    figure = Figure((side + 1.2, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1)
    axes.set_xticks(range(len(nameplates)), nameplates, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(nameplates)), nameplates, fontsize=8)
    axes.set_xlabel("named", color=INK)
    axes.set_ylabel("truth", color=INK)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return as_png(figure)


def class_plot(evaluation: Evaluation) -> bytes:
    """Draw the F1 of every nameplate, best first."""
    results = sorted(evaluation.classes, key=lambda result: result.f1)
    figure = Figure((6.5, 0.32 * len(results) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(results)), [result.f1 for result in results], color=ACCENT, height=0.7)
    axes.set_yticks(range(len(results)), [result.nameplate for result in results], fontsize=8)
    for place, result in enumerate(results):
        axes.text(result.f1 + 0.01, place, f"{result.f1:.2f}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("F1", color=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return as_png(figure)


def curves_plot(epochs: Sequence[Epoch], *, best: int | None = None, word: str = "best", dark: bool = False) -> bytes:
    """Draw the curves of a run, one below the other: loss, validation top-1 and learning rate. Bands show the stages.

    Args:
        epochs: At least one, in order. What is None or not finite leaves a gap; without any validation its
            panel is left out.
        best: The number of the epoch to mark in the validation top-1.
        word: What it is.
        dark: Light lines on a dark ground.

    Returns:
        A narrow PNG, which a phone shows at its full width.
    """
    colours = DARK if dark else LIGHT
    top1 = _series([epoch.validation_top1 for epoch in epochs])
    validated = bool(np.isfinite(top1).any())
    heights = [1.35, 1.35, 0.8] if validated else [1.35, 0.8]
    figure = Figure((4.6, 1.75 * sum(heights)), layout="constrained", facecolor=colours["paper"])
    panels = list(figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    x = np.array([epoch.epoch for epoch in epochs])
    for axes in panels:
        dress(axes, colours)
        _stage_bands(axes, epochs, colours)
    _loss_panel(panels[0], x, epochs, colours)
    _sizes_above(panels[0], epochs, colours)
    if validated:
        _top1_panel(panels[1], x, top1, best, word, colours)
    _line(panels[-1], x, _series([epoch.learning_rate for epoch in epochs]), colours["accent"])
    panels[-1].set_title("Learning rate", loc="left", fontsize=9.5, color=colours["ink"])
    panels[-1].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
    panels[-1].set_ylim(bottom=0)
    panels[-1].set_xlim(x[0] - 0.5, x[-1] + 0.5)
    panels[-1].set_xticks(_whole_ticks(x))
    panels[-1].set_xlabel("epoch", color=colours["soft"], fontsize=9)
    return as_png(figure, dpi=180)


def at_most_whole(axis: Axis, whole: float) -> None:
    """Keep the ticks of shares within 0–100 %: the room above is for marks, and no share lies there."""
    low, high = axis.get_view_interval()
    axis.set_ticks([tick for tick in axis.get_majorticklocs() if low <= tick <= high and 0 <= tick <= whole])


def _series(values: Sequence[float | None]) -> Doubles:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _whole_ticks(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return about eight round numbers of epochs for the axis."""
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if len(x) <= 8 * step), 500)
    return x[x % step == 0] if len(x) > step else x


def _line(axes: Axes, x: NDArray[np.int64], y: Doubles, colour: str, label: str = "") -> None:
    """Draw a curve; its points are marked if there are few, or if one stands alone."""
    axes.plot(x, y, color=colour, linewidth=1.7, marker="o", markersize=3.2 if len(x) <= 20 else 0, label=label)


def dress(axes: Axes, colours: dict[str, str]) -> None:
    """Set background, text and grid to the colours of a page, `LIGHT` or `DARK`."""
    axes.set_facecolor(colours["paper"])
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=colours["soft"], alpha=0.25, linewidth=0.6)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=colours["soft"])
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _spans(epochs: Sequence[Epoch], value: Callable[[Epoch], object]) -> list[tuple[float, float, Epoch]]:
    """Return the start and the end of each run of equal values on the axis of epochs, and its first epoch."""
    stretches = [list(members) for _, members in groupby(epochs, key=value)]
    return [(stretch[0].epoch - 0.5, stretch[-1].epoch + 0.5, stretch[0]) for stretch in stretches]


def _stage_bands(axes: Axes, epochs: Sequence[Epoch], colours: dict[str, str]) -> None:
    for start, end, _ in _spans(epochs, lambda epoch: epoch.stage)[::2]:
        axes.axvspan(start, end, color=colours["band"], linewidth=0, zorder=0)


def _sizes_above(axes: Axes, epochs: Sequence[Epoch], colours: dict[str, str]) -> None:
    """Write the photo sizes above a panel, vertically if a stage is narrower than the text."""
    spans = _spans(epochs, lambda epoch: (epoch.height, epoch.width))
    narrow = min(end - start for start, end, _ in spans) < 0.125 * (spans[-1][1] - spans[0][0])
    for start, end, epoch in spans:
        axes.annotate(
            f"{epoch.height}×{epoch.width}",
            ((start + end) / 2, 1.0),
            (0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90 if narrow else 0,
            fontsize=8,
            color=colours["soft"],
        )
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=9.5, color=colours["ink"], pad=42 if narrow else 17)


def _loss_panel(axes: Axes, x: NDArray[np.int64], epochs: Sequence[Epoch], colours: dict[str, str]) -> None:
    _line(axes, x, _series([epoch.train_loss for epoch in epochs]), colours["second"], "training")
    validation = _series([epoch.validation_loss for epoch in epochs])
    if np.isfinite(validation).any():
        _line(axes, x, validation, colours["accent"], "validation")
    axes.legend(loc="upper right", frameon=False, fontsize=8.5, labelcolor=colours["ink"])
    axes.set_title("Loss", loc="left", fontsize=9.5, color=colours["ink"])


def _top1_panel(
    axes: Axes, x: NDArray[np.int64], top1: Doubles, best: int | None, word: str, colours: dict[str, str]
) -> None:
    _line(axes, x, 100 * top1, colours["accent"])
    axes.set_title("Validation top-1", loc="left", fontsize=9.5, color=colours["ink"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    axes.margins(y=0.22)  # leaves room for the label of the best epoch
    at_most_whole(axes.yaxis, 100)
    for place in np.flatnonzero((x == best) & np.isfinite(top1)):
        axes.plot(x[place], 100 * top1[place], "o", color=colours["second"], markersize=6.5)
        axes.annotate(
            f"{word} {100 * top1[place]:.1f} %, epoch {x[place]}",
            (x[place], 100 * top1[place]),
            (0, 7),
            textcoords="offset points",
            ha="left" if place < len(x) / 3 else "right",
            fontsize=8.5,
            color=colours["ink"],
        )


def as_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
