"""The plot of a search for a learning rate (`rates_plot`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nameplate.report.plots import DARK, LIGHT, as_png, dress


def rates_plot(rates: Sequence[float], losses: Sequence[float], proposal: float, *, dark: bool = False) -> bytes:
    """Draw the loss against the learning rate on a logarithmic axis, and mark the proposal.

    Args:
        rates: ascending, above 0.
        losses: one for each rate.
        proposal: one of the rates.
        dark: light lines on a dark ground.

    Returns:
        A PNG.
    """
    colours = DARK if dark else LIGHT
    figure = Figure((5.6, 3.4), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    axes.plot(rates, losses, color=colours["accent"], linewidth=1.7)
    axes.set_xscale("log")
    at = float(losses[int(np.argmin(np.abs(np.log(rates) - np.log(proposal))))])
    axes.axvline(proposal, color=colours["second"], linewidth=1, linestyle=":")
    axes.plot(proposal, at, "o", color=colours["second"], markersize=6.5)
    axes.annotate(
        f"proposed: {proposal:.1e}",
        (proposal, at),
        (-8, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color=colours["ink"],
    )
    low, first = min(losses), losses[0]  # the explosion would flatten the descent, so that only its beginning is shown
    axes.set_ylim(low - 0.15 * (first - low), min(max(losses), first + 0.5 * (first - low)))
    axes.set_xlabel("learning rate", color=colours["soft"], fontsize=9)
    axes.set_title("Training loss (smoothed)", loc="left", fontsize=9.5, color=colours["ink"])
    return as_png(figure, dpi=180)
