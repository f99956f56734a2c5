"""Plots the measurements of `serving.py`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#1f6f8b", "#c2632e", "#888888"
STYLES = {"nameplate": "-", "litserve": "--"}
RANKS = (0.0, 0.5, 0.9, 0.99, 0.999)


def serving_plot(found: dict[str, Any]) -> bytes:
    """A PNG: latencies at each load, and what happened in the overload."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_latencies(left, found)
    draw_overload(right, found["nameplate"]["overload"])
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def draw_latencies(axes: Axes, found: dict[str, Any]) -> None:
    """Every latency of the open loops over its rank; the axis stretches the slowest, as HdrHistogram's plots do."""
    for side, style in STYLES.items():
        loads = found.get(side, {}).get("open", {})
        for (share, done), colour in zip(loads.items(), (BLUE, ORANGE), strict=True) if loads else ():
            number = len(done["latencies"])
            ranks = [number / (number - place) for place in range(number)]
            label = f"{side}, {float(share):.0%} of its capacity: {done['photos_per_second']:.0f} photos/s"
            axes.plot(ranks, [1000 * seconds for seconds in done["latencies"]], style, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlim=(1, 1000), xlabel="percentile", ylabel="ms since the intended arrival")
    axes.set_xticks([1 / (1 - rank) for rank in RANKS], [f"{100 * rank:g}" for rank in RANKS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title("Latency, Poisson arrivals")
    axes.legend(fontsize=8)


def draw_overload(axes: Axes, over: dict[str, Any]) -> None:
    """Answers and refusals as they came, and the memory of all processes."""
    for status, colour, label in ((200, BLUE, "answered"), (503, ORANGE, "refused with 503")):
        ends = [end for end, _, got in over["points"] if got == status]
        axes.plot(ends, [1000 * took for _, took, got in over["points"] if got == status], ".", ms=2, color=colour)
        axes.plot([], [], "o", color=colour, label=label)
    axes.plot([], [], color=GREY, label="memory of all processes (right)")
    axes.set(yscale="log", ylim=(0.1, None), xlabel="seconds", ylabel="ms since the intended arrival")
    axes.set_title("Three times its capacity")
    axes.legend(fontsize=8)
    beside = axes.twinx()
    beside.plot([at for at, _ in over["memory"]], [count / 2**20 for _, count in over["memory"]], color=GREY)
    beside.set(ylabel="MiB", ylim=(0, 1.6 * over["memory_highest"] / 2**20))
