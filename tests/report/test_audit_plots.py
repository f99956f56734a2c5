"""Plots of the measurements of photos."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from nameplate.report.photos import scale_sizes
from nameplate.types import Doubles


@pytest.mark.parametrize("pixels", [[640, 640, 640], [601, 612, 640], [200, 900], [120, 4000], [40, 50_000]])
def test_sizes_have_ticks_however_close_they_are(pixels: list[int]) -> None:
    values: Doubles = np.array(pixels, np.float64)
    axes = Figure().add_subplot()
    axes.plot(values, values, ".")
    scale_sizes(axes.xaxis, values)
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.xaxis.get_majorticklocs() if low <= tick <= high]
    labels = [axes.xaxis.get_major_formatter()(tick) for tick in shown]
    assert len(shown) >= 2 or min(pixels) == max(pixels)
    assert shown
    assert len(set(labels)) == len(labels)
