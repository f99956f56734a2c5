"""`write_report`: an evaluation as a page, as JSON, and as a table of every photo's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.datasets.names import makes_of, natural_key
from nameplate.datasets.tables import write_table
from nameplate.evaluation.against import Against, loss_verdict, verdict
from nameplate.evaluation.judge import Judged
from nameplate.evaluation.measure import PHOTO_COLUMNS, Measured, photo_rows
from nameplate.evaluation.metrics import confusion_matrix
from nameplate.evaluation.mistakes import Mistake, surest_mistakes, worst_pairs
from nameplate.evaluation.plots import matrix_plot, reliability_plot, risk_plot
from nameplate.evaluation.selective import RISKS, curve
from nameplate.photos.parallel import ordered_map
from nameplate.reports.page import day_and_night, file_thumbnail_uri, write_page
from nameplate.storage import whole_file
from nameplate.types import Verdict

MISTAKES, PAIRS = 24, 16
"""Mistakes and pairs of nameplates that the page shows."""
OPEN_ROWS = 20
"""Rows of a table that show at once; the rest unfolds."""
SHOWN = 200
"""Longest side of a photo on the page, in pixels."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where the report lies."""

    page: Path
    json: Path
    photos: Path

    @staticmethod
    def beside(page: Path) -> tuple[Path, Path, Path]:
        """The page, the JSON and the table of photos that are written for a page's name."""
        return page, page.with_suffix(".json"), page.with_suffix(".photos.csv")


def write_report(
    said: dict[str, object], measured: Measured, judged: Judged, page: Path, threads: int, against: Against | None
) -> Written:
    """Write the page, and beside it its JSON and the table of photos, each whole.

    Args:
        said: the JSON.
        measured: the figures.
        judged: the answers.
        page: the HTML file; the others have its name with .json and .photos.csv.
        threads: that make small pictures.
        against: the comparison with another model, if there is one.

    Raises:
        NameplateError: the folder cannot be written to.
    """
    written = Written(*Written.beside(page))
    with whole_file(written.photos) as temporary:
        write_table(temporary, PHOTO_COLUMNS, photo_rows(judged))
    with whole_file(written.json) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
    _write_page(said, measured, judged, written, threads, against)
    return written


def _write_page(
    said: dict[str, object],
    measured: Measured,
    judged: Judged,
    written: Written,
    threads: int,
    against: Against | None,
) -> None:
    mistakes, pairs = surest_mistakes(judged, MISTAKES), worst_pairs(judged, PAIRS)
    pairs = tuple(pair for pair in pairs if pair.photos > 1) or pairs[:1]
    shown = [*mistakes, *(pair.example for pair in pairs)]
    risks = curve(judged.confidence, judged.right)
    makes = measured.makes
    write_page(
        written.page,
        "evaluation.html",
        said=said,
        found=measured,
        classes=sorted(measured.evaluation.classes, key=lambda each: (each.f1, each.nameplate)),
        makes=sorted(makes.results, key=lambda each: (each.top1.value, each.make)),
        open_rows=OPEN_ROWS,
        mistakes=mistakes,
        name=Path,
        pairs=pairs,
        pictures=_pictures(shown, threads),
        neighbours=bool(judged.training.photos),
        wrong=int((~judged.right).sum()),
        risks=list(zip(RISKS, measured.selective.within, strict=True)),
        against=against,
        verdicts=() if against is None else (verdict(against), loss_verdict(against)),
        matrix=_matrix(judged),
        make_matrix=_make_matrix(makes.matrix, makes.names) if len(makes.names) > 1 else None,
        reliability=day_and_night(
            lambda dark: reliability_plot(measured.calibration, judged.confidence, dark=dark),
        ),
        risk=day_and_night(lambda dark: risk_plot(risks, measured.selective, dark=dark)),
        verdict_names=get_args(Verdict),
        json=written.json.name,
        photos=written.photos.name,
    )


def _pictures(shown: Sequence[Mistake], threads: int) -> dict[str, str | None]:
    paths = dict.fromkeys(path for each in shown for path in (each.photo, each.like_truth, each.like_named) if path)
    pictures = ordered_map(lambda path: file_thumbnail_uri(path, SHOWN), paths, threads)
    return dict(zip(paths, pictures, strict=True))


def _matrix(judged: Judged) -> dict[bool, str]:
    """The confusion matrix of the nameplates that have photos or were named, make by make."""
    counts = confusion_matrix(judged.truths, judged.named, len(judged.nameplates))
    there = [place for place in range(len(counts)) if counts[place].any() or counts[:, place].any()]
    makes = makes_of(judged.nameplates)
    order = sorted(there, key=lambda place: (natural_key(makes[place]), natural_key(judged.nameplates[place])))
    matrix, names = counts[np.ix_(order, order)], [judged.nameplates[place] for place in order]
    return day_and_night(lambda dark: matrix_plot(matrix, names, [makes[place] for place in order], dark=dark))


def _make_matrix(counts: NDArray[np.int64], names: Sequence[str]) -> dict[bool, str]:
    there = [place for place in range(len(counts)) if counts[place].any() or counts[:, place].any()]
    order = sorted(there, key=lambda place: natural_key(names[place]))
    matrix, shown = counts[np.ix_(order, order)], [names[place] for place in order]
    return day_and_night(lambda dark: matrix_plot(matrix, shown, dark=dark))
