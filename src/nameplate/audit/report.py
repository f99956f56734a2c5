"""`write_report`: an audit as a page, as JSON, and as the list of photos to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from nameplate import __version__
from nameplate.audit.findings import CROSS_CLASS, EXACT, KINDS, LABEL, LEAK, NEAR, OUTLIER, UNREADABLE, Finding
from nameplate.audit.inspect import SEED, Audit
from nameplate.audit.plots import counts_plot, measures_plot, shortcut_plot
from nameplate.datasets.copies import best_copy
from nameplate.datasets.sources import digest
from nameplate.datasets.tables import write_table
from nameplate.models.look import Look
from nameplate.photos.parallel import ordered_map
from nameplate.reports.page import day_and_night, file_thumbnail_uri, write_page
from nameplate.storage import absolute, printable, whole_file

MOST_SHOWN, MOST_COPIES = 60, 6
"""Findings of a kind, and copies of one picture, that the page shows."""
EXAMPLES, MOST_EXAMPLES = 6, 1000
"""Photos of a class, and of all classes, in the grid."""
EARLIER = "on an earlier list"
"""Kind of a row of the list that was there before."""
SHOWN, SMALL = 200, 130
"""Longest sides of pictures of findings and of examples, in pixels."""
TITLES = {
    UNREADABLE: ("Unreadable", "They cannot be decoded, or are damaged: nothing can be learnt from them."),
    EXACT: ("Exact duplicates", "Files of the same bytes. One of each is enough."),
    NEAR: ("Near duplicates", "One picture, resized, recompressed, cropped a little or mirrored."),
    CROSS_CLASS: ("One picture under several classes", "At most one of the labels is right."),
    LEAK: ("Leaks between parts", "One picture to train on and to judge on: the judgement flatters."),
    LABEL: ("Suspect labels", "Heads that did not see the photo believe another class more than its label."),
    OUTLIER: (
        "Outliers",
        "First what is no car, or a part of one, then what is unlike any photo here, then what is unlike its class.",
    ),
}
"""Of each kind: its heading, and what it means."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where the report lies."""

    page: Path
    json: Path
    exclude: Path
    excluded: int
    """Photos on the list, those of an earlier list among them."""

    @staticmethod
    def beside(page: Path) -> tuple[Path, Path, Path]:
        """The page, the JSON and the list for `--exclude` that are written for a page's name."""
        return page, page.with_suffix(".json"), page.with_suffix(".exclude.csv")


def write_report(audit: Audit, page: Path, threads: int, seconds: float, before: Iterable[str] = ()) -> Written:
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
    written = Written(*Written.beside(page), excluded)
    with whole_file(written.exclude) as temporary:
        write_table(temporary, ("path", "kind", "score", "detail"), rows)
    with whole_file(written.json) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=1) + b"\n")
    _write_page(audit, said, written, threads)
    return written


def left_out(audit: Audit) -> Iterator[dict[str, object]]:
    """Photos that a training does better without.

    Of copies one stays (`best_copy`). Where the copies have several labels none stays, where they are in
    several parts those to train on go. Of doubted labels and outliers the list has the surest alone.
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
    """The report as plain data."""
    counts = class_counts(audit)
    sizes = np.array([(photo.width, photo.height) for photo in audit.photos], np.float64).reshape(-1, 2)
    looks = [look for look in audit.looks if look is not None]
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
    """Photos of each class that can be read."""
    found = Counter(photo.label for photo in audit.photos)
    return {name: found[name] for name in audit.dataset.nameplates}


def _summary(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> dict[str, float] | None:
    if not len(values):
        return None
    figures = {"mean": values.mean(), "median": np.median(values), "min": values.min(), "max": values.max()}
    return {name: round(float(figure), 5) for name, figure in figures.items()}


def _write_page(audit: Audit, said: dict[str, object], written: Written, threads: int) -> None:
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
        dark=day_and_night(lambda dark: counts_plot(counts, dark=dark)),
        measures=_measures(audit),
        hidden=_hidden(audit),
        exclude=written.exclude.name,
        json=written.json.name,
        darkest=_extremes(audit, lambda look: look.brightness),
        blurred=_extremes(audit, lambda look: look.sharpness),
    )


def _examples(audit: Audit) -> dict[str, list[str]]:
    """Some photos of each class, always the same ones: those whose digests come first."""
    each = max(1, min(EXAMPLES, MOST_EXAMPLES // max(1, len(audit.dataset.nameplates))))
    found: dict[str, list[str]] = {name: [] for name in audit.dataset.nameplates}
    for photo in sorted(audit.photos, key=lambda photo: str(photo.sha256)):
        if len(found[str(photo.label)]) < each:
            found[str(photo.label)].append(photo.path)
    return found


def _picture(wanted: tuple[str, int]) -> tuple[str, str | None]:
    path, longest = wanted
    return path, file_thumbnail_uri(path, longest)


def _extremes(audit: Audit, measure: Callable[[Look], float], count: int = EXAMPLES) -> list[tuple[str, str | None]]:
    """The photos with the least of something."""
    known = [(photo.path, look) for photo, look in zip(audit.photos, audit.looks, strict=True) if look is not None]
    least = sorted(known, key=lambda pair: measure(pair[1]))[:count]
    return [_picture((path, SMALL)) for path, _ in least]


def _measures(audit: Audit) -> dict[bool, str] | None:
    known = [(photo, look) for photo, look in zip(audit.photos, audit.looks, strict=True) if look is not None]
    if not known:
        return None
    rows = np.array([(p.width, p.height, k.bytes / 1e6, k.brightness, k.sharpness) for p, k in known], np.float64)
    return day_and_night(lambda dark: measures_plot(*rows.T, dark=dark))


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
    return day_and_night(lambda dark: shortcut_plot(rows, found.guessing, dark=dark))


def finding_counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many of each kind, all kinds in their order."""
    found = Counter(finding.kind for finding in findings)
    return {kind: found[kind] for kind in KINDS}
