"""What the photos of a data set are like, for the pages of a look and of an audit: plots, examples, extremes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nameplate.images.parallel import ordered_map
from nameplate.model.measurements import Measurements
from nameplate.report.page import file_thumbnail_uri, light_and_dark
from nameplate.report.plots import DARK, LIGHT, as_png, dress
from nameplate.types import Doubles, Photo

# Plots of a data set; each function returns a PNG's bytes.

MUCH = 10
"""Ratio of the largest size to the smallest; above it the axis is logarithmic."""
NAMED = 45
"""Most classes for which each bar is labelled; with more, only the first and the last bars are."""


def counts_plot(counts: dict[str, int], *, dark: bool = False) -> bytes:
    """Draw the number of photos of each class, the largest class first."""
    colours = DARK if dark else LIGHT
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
    widths: Doubles,
    heights: Doubles,
    megabytes: Doubles,
    brightness: Doubles,
    sharpness: Doubles,
    *,
    dark: bool = False,
) -> bytes:
    """Draw histograms of sizes, aspect ratios, file sizes, brightness and sharpness, each float64 (N,)."""
    colours = DARK if dark else LIGHT
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


def scale_sizes(axis: Axis, pixels: Doubles) -> None:
    """Return tick positions: 1, 2 and 5 times powers of ten if the values span a wide range, else even steps."""
    low, high = float(pixels.min()), float(pixels.max())
    if high > MUCH * low:
        axis._set_axes_scale("log")  # type: ignore[attr-defined]  # the one way to name an axis without its letter
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda each, _: f"{each:,.0f}"))


def _histogram(axes: Axes, values: Doubles, title: str, colours: dict[str, str]) -> None:
    high = float(np.quantile(values, 0.995))
    axes.hist(np.minimum(values, high), bins=40, color=colours["accent"])
    axes.axvline(float(np.median(values)), color=colours["second"], linewidth=1.4)
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=9.5, color=colours["ink"])


# The section of a page.

EXAMPLES, MOST_EXAMPLES = 6, 1000
"""How many photos of one class, and of all classes, a page shows."""
SMALL = 130
"""Longest side of the images of examples, in pixels."""

Picture = tuple[str, str | None]
"""The path of a photo and its thumbnail as a data URI; None where it cannot be shown."""


@dataclass(frozen=True, slots=True)
class PhotoSection:
    """What the template `photos.html` shows of a data set. Plots are data URIs, by whether the page is dark."""

    counts: dict[str, int]
    """Nameplate → number of its readable photos."""
    bars: dict[bool, str]
    """The plot of these."""
    examples: list[tuple[str, int, list[Picture]]]
    """Nameplate, number of its photos, and some of them."""
    measures: dict[bool, str] | None
    """Histograms of what was measured; None where nothing was."""
    formats: dict[str, int]
    orientations: dict[int, int]
    """EXIF orientation → number of photos."""
    darkest: list[Picture]
    blurred: list[Picture]


def photo_section(
    photos: Sequence[Photo], measurements: Sequence[Measurements | None], nameplates: Sequence[str], threads: int
) -> PhotoSection:
    """Draw the plots and choose the examples of a data set.

    Args:
        photos: readable, with SHA-256 and size; those without a label count for sizes alone.
        measurements: of each of them; None where the file vanished meanwhile.
        nameplates: the classes, in order.
        threads: that make small pictures.
    """
    counts = class_counts(photos, nameplates)
    known = [(photo, look) for photo, look in zip(photos, measurements, strict=True) if look is not None]
    chosen = _examples(photos, nameplates)
    pictures = dict(ordered_map(file_picture, [(path, SMALL) for paths in chosen.values() for path in paths], threads))
    return PhotoSection(
        counts,
        light_and_dark(lambda dark: counts_plot(counts, dark=dark)),
        [(name, counts[name], [(path, pictures[path]) for path in paths]) for name, paths in chosen.items()],
        _measures(known),
        dict(Counter(look.format for _, look in known)),
        dict(Counter(look.orientation for _, look in known)),
        _extremes(known, lambda look: look.brightness),
        _extremes(known, lambda look: look.sharpness),
    )


def class_counts(photos: Sequence[Photo], nameplates: Sequence[str]) -> dict[str, int]:
    """Count the photos of each class, in the order of the classes."""
    found = Counter(photo.label for photo in photos)
    return {name: found[name] for name in nameplates}


def file_picture(wanted: tuple[str, int]) -> Picture:
    """The thumbnail of (path, longest side in pixels)."""
    path, longest = wanted
    return path, file_thumbnail_uri(path, longest)


def _examples(photos: Sequence[Photo], nameplates: Sequence[str]) -> dict[str, list[str]]:
    """Choose some photos of each class by the order of their digests, so that the choice is the same in every run."""
    each = max(1, min(EXAMPLES, MOST_EXAMPLES // max(1, len(nameplates))))
    found: dict[str, list[str]] = {name: [] for name in nameplates}
    for photo in sorted(photos, key=lambda photo: str(photo.sha256)):
        if photo.label is not None and len(found[photo.label]) < each:
            found[photo.label].append(photo.path)
    return found


def _extremes(known: Sequence[tuple[Photo, Measurements]], measure: Callable[[Measurements], float]) -> list[Picture]:
    """Return the photos with the lowest values of a measurement."""
    least = sorted(known, key=lambda pair: measure(pair[1]))[:EXAMPLES]
    return [file_picture((photo.path, SMALL)) for photo, _ in least]


def _measures(known: Sequence[tuple[Photo, Measurements]]) -> dict[bool, str] | None:
    if not known:
        return None
    rows = np.array([(p.width, p.height, k.bytes / 1e6, k.brightness, k.sharpness) for p, k in known], np.float64)
    return light_and_dark(lambda dark: measures_plot(*rows.T, dark=dark))
