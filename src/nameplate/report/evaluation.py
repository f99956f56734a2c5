"""The report of an evaluation (`write_report`): a page with plots, JSON, and a table with every photo's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from nameplate.data.labels import makes_of, natural_key
from nameplate.data.tables import write_table
from nameplate.evaluate.calibration import RISKS, Calibration, RiskCoverage, curve
from nameplate.evaluate.comparison import ModelComparison, loss_verdict, verdict
from nameplate.evaluate.evaluator import EvaluationResult, Mistake, surest_mistakes, worst_pairs
from nameplate.evaluate.figures import PHOTO_COLUMNS, EvaluationFigures, photo_rows
from nameplate.evaluate.metrics import confusion_matrix
from nameplate.images.parallel import ordered_map
from nameplate.report.page import file_thumbnail_uri, light_and_dark, write_page
from nameplate.report.plots import DARK, LIGHT, as_png, at_most_whole, dress
from nameplate.storage import whole_file
from nameplate.types import Doubles, Floats, Verdict

# Plots of an evaluation; each function returns a PNG's bytes.

NAMED = 60
"""Most classes for which each row is labelled and each cell has its count; with more, only makes are labelled."""
BLOCK = 3
"""Least number of classes of a make that is labelled beside a larger matrix; smaller blocks have no room for a name."""
LEAST = 0.5
"""Strength of the palest colour, 0–1, so that a single mistake is visible."""


def matrix_plot(
    matrix: NDArray[np.int64], names: Sequence[str], blocks: Sequence[str] | None = None, *, dark: bool = False
) -> bytes:
    """Draw a confusion matrix in which mistakes stand out and empty cells stay blank.

    Args:
        matrix: int64 C×C, rows the truth.
        names: of the C classes.
        blocks: what each class belongs to (its make); classes of one block stand together. None: no blocks.
        dark: light marks on a dark ground.
    """
    colours = DARK if dark else LIGHT
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


def _cells(matrix: NDArray[np.int64], colours: dict[str, str]) -> Doubles:
    """Return the colours of the cells, C×C×3, by their share of the row on a square-root scale."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    depth = np.where(matrix > 0, LEAST + (1 - LEAST) * np.sqrt(shares), 0.0)[..., None]
    right = np.eye(len(matrix), dtype=bool)[..., None]
    ink = np.where(right, to_rgb(colours["accent"]), to_rgb(colours["second"]))
    depth = np.where(right, 0.55 * depth, depth)
    return np.asarray(depth * ink + (1 - depth) * np.array(to_rgb(colours["paper"])), np.float64)


def _stretches(blocks: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the first and the last index of each block."""
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


def reliability_plot(calibration: Calibration, confidence: Floats, *, dark: bool = False) -> bytes:
    """Draw the accuracy against the confidence, with Wilson's intervals, above a histogram of confidences."""
    colours = DARK if dark else LIGHT
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


def risk_plot(curve: tuple[Doubles, Doubles], selective: RiskCoverage, *, dark: bool = False) -> bytes:
    """Draw the share of wrong answers (risk) against the share of photos answered (coverage), most confident first."""
    colours = DARK if dark else LIGHT
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


MISTAKES, PAIRS = 24, 16
"""How many mistakes, and how many confused pairs of nameplates, the page shows."""
OPEN_ROWS = 20
"""How many rows of a table are visible at once; the rest can be unfolded."""
SHOWN = 200
"""Longest side of a photo on the page, in pixels."""


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """The files of the report."""

    page: Path
    json: Path
    photos: Path

    @staticmethod
    def beside(page: Path) -> tuple[Path, Path, Path]:
        """The paths of the page, of its JSON and of its table of photos, from the path of the page."""
        return page, page.with_suffix(".json"), page.with_suffix(".photos.csv")


def write_report(
    said: dict[str, object],
    figures: EvaluationFigures,
    result: EvaluationResult,
    page: Path,
    threads: int,
    against: ModelComparison | None,
) -> EvaluationFiles:
    """Write the page, and beside it its JSON and the table of photos, each whole.

    Args:
        said: The JSON.
        figures: The figures of the evaluation.
        result: The evaluation itself.
        page: The HTML file; the other files have its name with .json and .photos.csv.
        threads: The number of threads that make thumbnails.
        against: The comparison with another model; None where there is none.

    Raises:
        NameplateError: The folder cannot be written to.
    """
    written = EvaluationFiles(*EvaluationFiles.beside(page))
    with whole_file(written.photos) as temporary:
        write_table(temporary, PHOTO_COLUMNS, photo_rows(result))
    with whole_file(written.json) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
    _write_page(said, figures, result, written, threads, against)
    return written


def _write_page(
    said: dict[str, object],
    figures: EvaluationFigures,
    result: EvaluationResult,
    written: EvaluationFiles,
    threads: int,
    against: ModelComparison | None,
) -> None:
    mistakes, pairs = surest_mistakes(result, MISTAKES), worst_pairs(result, PAIRS)
    pairs = tuple(pair for pair in pairs if pair.photos > 1) or pairs[:1]
    shown = [*mistakes, *(pair.example for pair in pairs)]
    risks = curve(result.confidence, result.right)
    makes = figures.makes
    write_page(
        written.page,
        "evaluation.html",
        said=said,
        found=figures,
        classes=sorted(figures.evaluation.classes, key=lambda each: (each.f1, each.nameplate)),
        makes=sorted(makes.results, key=lambda each: (each.top1.value, each.make)),
        open_rows=OPEN_ROWS,
        mistakes=mistakes,
        name=Path,
        pairs=pairs,
        pictures=_pictures(shown, threads),
        neighbours=bool(result.training.photos),
        wrong=int((~result.right).sum()),
        risks=list(zip(RISKS, figures.selective.within, strict=True)),
        against=against,
        verdicts=() if against is None else (verdict(against), loss_verdict(against)),
        matrix=_matrix(result),
        make_matrix=_make_matrix(makes.matrix, makes.names) if len(makes.names) > 1 else None,
        reliability=light_and_dark(
            lambda dark: reliability_plot(figures.calibration, result.confidence, dark=dark),
        ),
        risk=light_and_dark(lambda dark: risk_plot(risks, figures.selective, dark=dark)),
        verdict_names=get_args(Verdict),
        json=written.json.name,
        photos=written.photos.name,
    )


def _pictures(shown: Sequence[Mistake], threads: int) -> dict[str, str | None]:
    paths = dict.fromkeys(path for each in shown for path in (each.photo, each.like_truth, each.like_named) if path)
    pictures = ordered_map(lambda path: file_thumbnail_uri(path, SHOWN), paths, threads)
    return dict(zip(paths, pictures, strict=True))


def _matrix(result: EvaluationResult) -> dict[bool, str]:
    """Return the confusion matrix of the nameplates that have photos or were predicted, ordered by make."""
    counts = confusion_matrix(result.y_true, result.y_pred, len(result.nameplates))
    there = [place for place in range(len(counts)) if counts[place].any() or counts[:, place].any()]
    makes = makes_of(result.nameplates)
    order = sorted(there, key=lambda place: (natural_key(makes[place]), natural_key(result.nameplates[place])))
    matrix, names = counts[np.ix_(order, order)], [result.nameplates[place] for place in order]
    return light_and_dark(lambda dark: matrix_plot(matrix, names, [makes[place] for place in order], dark=dark))


def _make_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> dict[bool, str]:
    there = [place for place in range(len(counts)) if counts[place].any() or counts[:, place].any()]
    order = sorted(there, key=lambda place: natural_key(names[place]))
    matrix, shown = counts[np.ix_(order, order)], [names[place] for place in order]
    return light_and_dark(lambda dark: matrix_plot(matrix, shown, dark=dark))
