"""Plots, drawn without a display; each function returns a PNG's bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nameplate.types import Evaluation

INK, ACCENT, SOFT = "#1c2733", "#1f6f8b", "#d9e4ea"
DPI = 120


def confusion_plot(matrix: NDArray[np.int64], nameplates: Sequence[str]) -> bytes:
    """A confusion matrix of counts, int64 C×C, rows the truth; coloured by the share of each row."""
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
    return _png(figure)


def class_plot(evaluation: Evaluation) -> bytes:
    """F1 of every nameplate, best first."""
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
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
