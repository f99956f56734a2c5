"""The report of an audit: a page with plots (`audit` for notebooks), JSON, and the list of photos to leave out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.figure import Figure

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
    inspect,
)
from nameplate.data.dataset import digest, read_dataset
from nameplate.data.split import best_copy
from nameplate.data.tables import write_table
from nameplate.images.parallel import ordered_map
from nameplate.model.embeddings import Progress
from nameplate.model.model import Model
from nameplate.report.page import fill, in_notebook, light_and_dark, write_html
from nameplate.report.photos import class_counts, file_picture, photo_section
from nameplate.report.plots import DARK, LIGHT, as_png, dress
from nameplate.storage import absolute, printable, whole_file
from nameplate.types import percent


def shortcut_plot(rows: Sequence[tuple[str, float, float, float]], guessing: float, *, dark: bool = False) -> bytes:
    """Draw the accuracy with parts of photos hidden: rows of (visible part, share, low, high), and guessing."""
    colours = DARK if dark else LIGHT
    figure = Figure((5.2, 0.5 * len(rows) + 0.7), layout="constrained", facecolor=colours["paper"])
    axes = figure.add_subplot()
    dress(axes, colours)
    for place, (_, share, low, high) in enumerate(rows):
        axes.barh(place, 100 * share, color=colours["accent"], height=0.55)
        axes.plot([100 * low, 100 * high], [place, place], color=colours["second"], linewidth=2)
        axes.annotate(percent(share), (100 * high, place), (5, 0), textcoords="offset points", va="center",
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
EARLIER = "on an earlier list"
"""The kind of a row that was on an earlier list."""
SHOWN = 200
"""Longest side of the images of findings, in pixels."""
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


@dataclass(frozen=True, slots=True)
class AuditPage:
    """An audit with its page; a notebook shows the page."""

    found: Audit
    html: str
    """The page, a single file without scripts."""
    seconds: float
    """Duration of the audit, without drawing the page."""
    threads: int
    """Number of processors that draw it."""

    def write(self, page: str | os.PathLike[str]) -> AuditFiles:
        """Write the page, its JSON and the list for `exclude`: see `write_report`."""
        return write_report(self.found, Path(page), self.threads, self.seconds)

    def _repr_html_(self) -> str:
        return in_notebook(self.html)


def audit(
    *sources: str | os.PathLike[str],
    names: str | os.PathLike[str] | None = None,
    model: Model | None = None,
    shortcuts: bool = True,
    progress: Progress = lambda *_: None,
) -> AuditPage:
    """Audit labelled photos: copies, leaks, wrong labels, photos of no car, and damaged files.

    Args:
        sources: see `read_dataset`.
        names: see `read_dataset`.
        model: embeds the photos; None: the one that ships.
        shortcuts: whether to test what the background gives away, which embeds the photos twice more.
        progress: see `Progress`.

    Raises:
        DataError: see `read_dataset`; or none of the photos can be read.
    """
    begun = time.monotonic()
    model = Model.load() if model is None else model
    found = inspect(read_dataset(*sources, names=names), model, shortcuts=shortcuts, progress=progress)
    seconds, threads = time.monotonic() - begun, model.settings.threads
    return AuditPage(found, _page(found, as_json(found, seconds), None, threads), seconds, threads)


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
    rows = [*left_out(audit), *earlier_rows(before)]
    said = as_json(audit, seconds)
    excluded = len({row["path"] for row in rows})
    written = AuditFiles(*AuditFiles.beside(page), excluded)
    with whole_file(written.exclude) as temporary:
        write_table(temporary, ("path", "kind", "score", "detail"), rows)
    with whole_file(written.json) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
    write_html(page, _page(audit, said, written, threads))
    return written


def earlier_rows(before: Iterable[str]) -> list[dict[str, object]]:
    """The rows of photos that an earlier list left out: without them they would come back."""
    return [{"path": path, "kind": EARLIER, "score": "", "detail": ""} for path in sorted(before)]


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
    counts = class_counts(audit.photos, audit.dataset.nameplates)
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


def _summary(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> dict[str, float] | None:
    if not len(values):
        return None
    figures = {"mean": values.mean(), "median": np.median(values), "min": values.min(), "max": values.max()}
    return {name: round(float(figure), 5) for name, figure in figures.items()}


def _page(audit: Audit, said: dict[str, object], written: AuditFiles | None, threads: int) -> str:
    """The page; where nothing is written beside it, it names no files."""
    shown = {kind: [f for f in audit.findings if f.kind == kind] for kind in KINDS}
    wanted = [path for found in shown.values() for f in found[:MOST_SHOWN] for path in f.photos[:MOST_COPIES]]
    large = dict(ordered_map(file_picture, [(path, SHOWN) for path in dict.fromkeys(wanted)], threads))
    labels = {photo.path: photo.label for photo in audit.dataset.photos}
    return fill(
        "audit.html",
        said=said,
        kinds=[(kind, *TITLES[kind], found) for kind, found in shown.items()],
        most_shown=MOST_SHOWN,
        most_copies=MOST_COPIES,
        pictures=large,
        labels=labels,
        name=Path,
        aliases=audit.aliases,
        shortcuts=audit.shortcuts,
        like=photo_section(audit.photos, audit.measurements, audit.dataset.nameplates, threads),
        hidden=_hidden(audit),
        exclude=None if written is None else written.exclude.name,
        json=None if written is None else written.json.name,
    )


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
