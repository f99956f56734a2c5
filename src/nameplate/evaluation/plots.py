"""What an evaluation found, drawn; each function returns a PNG's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from nameplate.evaluation.calibration import Calibration
from nameplate.evaluation.selective import RISKS, RiskCoverage
from nameplate.reports.plots import DAY, NIGHT, as_png, at_most_whole, dress

NAMED = 60
"""Classes up to which each row has its name and each cell its count; of more only blocks are named."""
BLOCK = 3
"""Classes that a make must have for its name to find room beside a matrix of more."""
LEAST = 0.5
"""How far from the paper the palest cell is, 0–1, so that a single mistake shows."""


def matrix_plot(
    matrix: NDArray[np.int64], names: Sequence[str], blocks: Sequence[str] | None = None, *, dark: bool = False
) -> bytes:
    """A confusion matrix; what is wrong stands out, and what never happens is blank.

    Args:
        matrix: int64 C×C, rows the truth.
        names: of the C classes.
        blocks: what each class belongs to (its make); classes of one block stand together. None: no blocks.
        dark: light marks on a dark ground.
    """
    colours = NIGHT if dark else DAY
    few = len(names) <= NAMED
    side = max(4.2, 0.19 * len(names) + 1.6) if few else 8.6
    figure = Figure((side, side), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    axes.grid(visible=False)
    axes.imshow(_cells(matrix, colours), interpolation="nearest")
    _edges(axes, blocks or (), colours)
    ticks = [(float(place), name) for place, name in enumerate(names)] if few else _middles(blocks or ())
    places, labels = [place for place, _ in ticks], [label for _, label in ticks]
    size = 7.5 if few else 8
    axes.set_xticks(places, labels, rotation=90, fontsize=size, color=colours["ink"])
    axes.set_yticks(places, labels, fontsize=size, color=colours["ink"])
    if few:
        _counts(axes, matrix, colours)
    axes.set_xlabel("named", color=colours["soft"], fontsize=9)
    axes.set_ylabel("truth", color=colours["soft"], fontsize=9)
    return as_png(figure, dpi=160)


def _cells(matrix: NDArray[np.int64], colours: dict[str, str]) -> NDArray[np.float64]:
    """Colours of the cells by their share of the row, on a root scale; C×C×3."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    depth = np.where(matrix > 0, LEAST + (1 - LEAST) * np.sqrt(shares), 0.0)[..., None]
    right = np.eye(len(matrix), dtype=bool)[..., None]
    ink = np.where(right, to_rgb(colours["accent"]), to_rgb(colours["second"]))
    depth = np.where(right, 0.55 * depth, depth)
    return np.asarray(depth * ink + (1 - depth) * np.array(to_rgb(colours["paper"])), np.float64)


def _stretches(blocks: Sequence[str]) -> list[tuple[int, int, str]]:
    """Where each block begins and ends."""
    found, start = [], 0
    for name, members in groupby(blocks):
        length = len(list(members))
        found.append((start, start + length, name))
        start += length
    return found


def _edges(axes: Axes, blocks: Sequence[str], colours: dict[str, str]) -> None:
    for start, _, _ in _stretches(blocks)[1:]:
        axes.axhline(start - 0.5, color=colours["soft"], alpha=0.35, linewidth=0.5)
        axes.axvline(start - 0.5, color=colours["soft"], alpha=0.35, linewidth=0.5)


def _middles(blocks: Sequence[str]) -> list[tuple[float, str]]:
    return [((start + end - 1) / 2, name) for start, end, name in _stretches(blocks) if end - start >= BLOCK]


def _counts(axes: Axes, matrix: NDArray[np.int64], colours: dict[str, str]) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=6.5, color=colours["ink"])


def reliability_plot(calibration: Calibration, confidence: NDArray[np.float32], *, dark: bool = False) -> bytes:
    """Share named rightly against confidence, with Wilson's intervals; below it how the confidences lie."""
    colours = NIGHT if dark else DAY
    figure = Figure((5.0, 5.2), layout="constrained", facecolor=colours["paper"])
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    for axes in (above, below):
        dress(axes, colours)
    bins = calibration.bins
    values = np.array([each.right.value for each in bins])
    reach = np.array([[each.right.value - each.right.low, each.right.high - each.right.value] for each in bins]).T
    above.plot([0, 1], [0, 1], color=colours["soft"], linewidth=1, linestyle=":")
    above.errorbar(
        [each.confidence for each in bins], values, np.maximum(reach, 0), fmt="o", color=colours["accent"],
        elinewidth=1.2, capsize=2.5, markersize=4.5,
    )  # fmt: skip
    above.set_title("Share named rightly; dotted: as confident", loc="left", fontsize=9.5, color=colours["ink"])
    above.set_ylim(-0.03, 1.03)
    below.hist(confidence, bins=np.linspace(0, 1, 41).tolist(), color=colours["accent"])
    below.set_title("Photos", loc="left", fontsize=9.5, color=colours["ink"])
    below.set_xlabel("confidence", color=colours["soft"], fontsize=9)
    below.set_xlim(-0.02, 1.02)
    for axis in (above.yaxis, below.xaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    return as_png(figure, dpi=160)


def risk_plot(
    curve: tuple[NDArray[np.float64], NDArray[np.float64]], selective: RiskCoverage, *, dark: bool = False
) -> bytes:
    """The share of wrong answers against the share of photos answered, surest first."""
    colours = NIGHT if dark else DAY
    figure = Figure((5.0, 3.6), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    coverage, risk = curve
    axes.plot(100 * coverage, 100 * risk, color=colours["accent"], linewidth=1.7)
    for at_most, point in zip(RISKS, selective.within, strict=True):
        if point is None:
            continue
        spot = (100 * point.coverage, 100 * point.risk.value)
        axes.plot(*spot, "o", color=colours["second"], markersize=6)
        axes.annotate(
            f"at most {100 * at_most:g} % wrong:\n{100 * point.coverage:.0f} % of photos", spot, (-8, 8),
            textcoords="offset points", ha="right" if spot[0] > 45 else "left", fontsize=8.5, color=colours["ink"],
        )  # fmt: skip
    axes.set_title("Wrong among those answered", loc="left", fontsize=9.5, color=colours["ink"])
    axes.set_xlabel("photos answered, the surest first", color=colours["soft"], fontsize=9)
    axes.set_xlim(0, 102)
    axes.set_ylim(0, max(1.0, 115 * float(risk[len(risk) // 10 :].max())))
    at_most_whole(axes.yaxis, 100)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    return as_png(figure, dpi=160)
