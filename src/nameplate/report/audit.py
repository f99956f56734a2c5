"""The report of an audit (`write_report`): a page with plots, JSON, and the list of photos to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nameplate import __version__
from nameplate.audit.inspect import (
    CROSS_CLASS,
    EXACT,
    KINDS,
    LABEL,
    LEAK,
    NEAR,
    OUTLIER,
    SEED,
    UNREADABLE,
    Audit,
    Finding,
)
from nameplate.data.dataset import digest
from nameplate.data.split import best_copy
from nameplate.data.tables import write_table
from nameplate.images.parallel import ordered_map
from nameplate.model.measurements import Measurements
from nameplate.report.page import file_thumbnail_uri, light_and_dark, write_page
from nameplate.report.plots import DARK, LIGHT, as_png, dress
from nameplate.storage import absolute, printable, whole_file
from nameplate.types import Doubles

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


def shortcut_plot(rows: Sequence[tuple[str, float, float, float]], guessing: float, *, dark: bool = False) -> bytes:
    """Draw the accuracy with parts of photos hidden: rows of (visible part, share, low, high), and guessing."""
    colours = DARK if dark else LIGHT
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


MOST_SHOWN, MOST_COPIES = 60, 6
"""How many findings of one kind, and how many copies of one photo, the page shows."""
EXAMPLES, MOST_EXAMPLES = 6, 1000
"""How many photos of one class, and of all classes, the grid shows."""
EARLIER = "on an earlier list"
"""The kind of a row that was on an earlier list."""
SHOWN, SMALL = 200, 130
"""Longest sides of the images of findings and of examples, in pixels."""
TITLES = {
    UNREADABLE: ("Unreadable", "They cannot be decoded, or are damaged, so they cannot train a model."),
    EXACT: ("Exact duplicates", "Files of the same bytes. One of each is enough."),
    NEAR: ("Near duplicates", "One image, resized, recompressed, slightly cropped or mirrored."),
    CROSS_CLASS: ("One image under several classes", "At most one of the labels is right."),
    LEAK: ("Leaks between parts", "One image is in several parts, so figures of the evaluation are too good."),
    LABEL: (
        "Suspect labels",
        "Heads that were not trained on the photo give another class a higher probability than its label.",
    ),
    OUTLIER: (
        "Outliers",
        "First photos without a whole car, then photos unlike all others, then photos unlike the rest of their class.",
    ),
}
"""The heading and the explanation of each kind of finding."""


@dataclass(frozen=True, slots=True)
class AuditFiles:
    """The files of the report."""

    page: Path
    json: Path
    exclude: Path
    excluded: int
    """The number of photos on the list, those of an earlier list included."""

    @staticmethod
    def beside(page: Path) -> tuple[Path, Path, Path]:
        """The paths of the page, of its JSON and of the list for `--exclude`, from the path of the page."""
        return page, page.with_suffix(".json"), page.with_suffix(".exclude.csv")


def write_report(audit: Audit, page: Path, threads: int, seconds: float, before: Iterable[str] = ()) -> AuditFiles:
    """Write the page, and beside it its JSON and the list for `--exclude`, each whole.

    Args:
        audit: what was found.
        page: the HTML file; the others have its name with .json and .exclude.csv.
        threads: that make small pictures.
        seconds: that the audit took.
        before: paths that an earlier list left out: they stay on the list, or they would come back.

    Raises:
        NameplateError: the folder cannot be written to.
    """
    earlier: list[dict[str, object]] = [
        {"path": path, "kind": EARLIER, "score": "", "detail": ""} for path in sorted(before)
    ]
    rows = [*left_out(audit), *earlier]
    said = as_json(audit, seconds)
    excluded = len({row["path"] for row in rows})
    written = AuditFiles(*AuditFiles.beside(page), excluded)
    with whole_file(written.exclude) as temporary:
        write_table(temporary, ("path", "kind", "score", "detail"), rows)
    with whole_file(written.json) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
    _write_page(audit, said, written, threads)
    return written


def left_out(audit: Audit) -> Iterator[dict[str, object]]:
    """The rows of the list for `--exclude`: photos that training is better without.

    Of copies, one stays (`best_copy`). Where copies have several labels, none stays. Where they are in several splits,
    those to train on go. Of doubted labels and outliers, the list has only the sure ones (`Finding.sure`).
    """
    photos = {photo.path: photo for photo in audit.photos}
    for finding in audit.findings:
        paths: Sequence[str] = finding.photos
        if finding.kind in (EXACT, NEAR):
            best = best_copy([photos[path] for path in paths]).path
            paths = [path for path in paths if path != best]
        elif finding.kind == LEAK:
            paths = [path for path in paths if photos[path].split == "train"]
        if not finding.sure:
            continue
        for path in paths:
            yield {
                "path": absolute(path),
                "kind": finding.kind,
                "score": f"{finding.score:.4f}",
                "detail": printable(finding.detail),
            }


def as_json(audit: Audit, seconds: float) -> dict[str, object]:
    """Return the report as plain data."""
    counts = class_counts(audit)
    sizes = np.array([(photo.width, photo.height) for photo in audit.photos], np.float64).reshape(-1, 2)
    looks = [look for look in audit.measurements if look is not None]
    return {
        "photos": len(audit.dataset.photos),
        "readable": len(audit.photos),
        "classes": counts,
        "findings": [
            {
                "kind": finding.kind,
                "photos": [printable(path) for path in finding.photos],
                "score": round(finding.score, 4),
                "sure": finding.sure,
                "detail": printable(finding.detail),
            }
            for finding in audit.findings
        ],
        "aliases": [asdict(alias) for alias in audit.aliases],
        "imbalance": {"most": max(counts.values()), "fewest": min(counts.values())},
        "shortcuts": None if audit.shortcuts is None else asdict(audit.shortcuts),
        "accuracy": audit.accuracy,
        "measures": {
            "width": _summary(sizes[:, 0]),
            "height": _summary(sizes[:, 1]),
            "aspect": _summary(sizes[:, 0] / np.maximum(sizes[:, 1], 1)),
            "bytes": _summary(np.array([look.bytes for look in looks])),
            "brightness": _summary(np.array([look.brightness for look in looks])),
            "sharpness": _summary(np.array([look.sharpness for look in looks])),
            "formats": dict(Counter(look.format for look in looks)),
            "orientations": {str(k): n for k, n in Counter(look.orientation for look in looks).items()},
        },
        "left_out": [{"path": printable(entry.name), "reason": entry.reason} for entry in audit.dataset.refused],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seed": SEED,
        "runtime": audit.runtime,
        "data_sha256": digest(audit.photos),
        "version": __version__,
    }


def class_counts(audit: Audit) -> dict[str, int]:
    """Count the readable photos of each class."""
    found = Counter(photo.label for photo in audit.photos)
    return {name: found[name] for name in audit.dataset.nameplates}


def _summary(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> dict[str, float] | None:
    if not len(values):
        return None
    figures = {"mean": values.mean(), "median": np.median(values), "min": values.min(), "max": values.max()}
    return {name: round(float(figure), 5) for name, figure in figures.items()}


def _write_page(audit: Audit, said: dict[str, object], written: AuditFiles, threads: int) -> None:
    shown = {kind: [f for f in audit.findings if f.kind == kind] for kind in KINDS}
    examples = _examples(audit)
    small = [(path, SMALL) for paths in examples.values() for path in paths]
    pictures = dict(ordered_map(_picture, small, threads))
    wanted = [path for found in shown.values() for f in found[:MOST_SHOWN] for path in f.photos[:MOST_COPIES]]
    large = dict(ordered_map(_picture, [(path, SHOWN) for path in dict.fromkeys(wanted)], threads))
    labels = {photo.path: photo.label for photo in audit.dataset.photos}
    counts = class_counts(audit)
    write_page(
        written.page,
        "audit.html",
        said=said,
        kinds=[(kind, *TITLES[kind], found) for kind, found in shown.items()],
        most_shown=MOST_SHOWN,
        most_copies=MOST_COPIES,
        pictures=large,
        labels=labels,
        examples=[(name, counts[name], [(p, pictures[p]) for p in paths]) for name, paths in examples.items()],
        name=Path,
        aliases=audit.aliases,
        shortcuts=audit.shortcuts,
        dark=light_and_dark(lambda dark: counts_plot(counts, dark=dark)),
        measures=_measures(audit),
        hidden=_hidden(audit),
        exclude=written.exclude.name,
        json=written.json.name,
        darkest=_extremes(audit, lambda look: look.brightness),
        blurred=_extremes(audit, lambda look: look.sharpness),
    )


def _examples(audit: Audit) -> dict[str, list[str]]:
    """Choose some photos of each class by the order of their digests, so that the choice is the same in every run."""
    each = max(1, min(EXAMPLES, MOST_EXAMPLES // max(1, len(audit.dataset.nameplates))))
    found: dict[str, list[str]] = {name: [] for name in audit.dataset.nameplates}
    for photo in sorted(audit.photos, key=lambda photo: str(photo.sha256)):
        if len(found[str(photo.label)]) < each:
            found[str(photo.label)].append(photo.path)
    return found


def _picture(wanted: tuple[str, int]) -> tuple[str, str | None]:
    path, longest = wanted
    return path, file_thumbnail_uri(path, longest)


def _extremes(
    audit: Audit, measure: Callable[[Measurements], float], count: int = EXAMPLES
) -> list[tuple[str, str | None]]:
    """Return the photos with the lowest values of a measurement."""
    known = [
        (photo.path, look) for photo, look in zip(audit.photos, audit.measurements, strict=True) if look is not None
    ]
    least = sorted(known, key=lambda pair: measure(pair[1]))[:count]
    return [_picture((path, SMALL)) for path, _ in least]


def _measures(audit: Audit) -> dict[bool, str] | None:
    known = [(photo, look) for photo, look in zip(audit.photos, audit.measurements, strict=True) if look is not None]
    if not known:
        return None
    rows = np.array([(p.width, p.height, k.bytes / 1e6, k.brightness, k.sharpness) for p, k in known], np.float64)
    return light_and_dark(lambda dark: measures_plot(*rows.T, dark=dark))


def _hidden(audit: Audit) -> dict[bool, str] | None:
    found = audit.shortcuts
    if found is None:
        return None
    rows = [
        (name, figure.value, figure.low, figure.high)
        for name, figure in (
            ("the whole photo", found.whole),
            ("the centre alone", found.centre),
            ("the border alone", found.border),
        )
    ]
    return light_and_dark(lambda dark: shortcut_plot(rows, found.guessing, dark=dark))


def finding_counts(findings: Sequence[Finding]) -> dict[str, int]:
    """Count the findings of each kind, in the order of the kinds."""
    found = Counter(finding.kind for finding in findings)
    return {kind: found[kind] for kind in KINDS}
