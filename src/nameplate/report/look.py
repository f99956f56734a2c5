"""The page of a first look at a data set (`look`): counts, samples, sizes and copies."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from nameplate.audit.inspect import CROSS_CLASS, EXACT, LEAK, NEAR, UNREADABLE
from nameplate.audit.look import Look, look_at
from nameplate.data.dataset import Dataset, photos_to_recognise, read_dataset
from nameplate.images.parallel import ordered_map
from nameplate.model.embeddings import Progress
from nameplate.report.audit import MOST_COPIES, MOST_SHOWN, SHOWN, TITLES
from nameplate.report.page import fill, in_notebook, write_html
from nameplate.report.photos import file_picture, photo_section
from nameplate.runtime.select import available_cpus

SHOWN_KINDS = (LEAK, CROSS_CLASS, EXACT, NEAR, UNREADABLE)
"""The kinds of findings of a look, in the order of its page."""


@dataclass(frozen=True, slots=True)
class LookPage:
    """A look with its page; a notebook shows the page."""

    found: Look
    html: str
    """The page, a single file without scripts."""
    seconds: float
    """Duration of the look, without drawing the page."""

    def write(self, page: str | os.PathLike[str]) -> Path:
        """Write the page whole, and return its path."""
        write_html(Path(page), self.html)
        return Path(page)

    def _repr_html_(self) -> str:
        return in_notebook(self.html)


def look(*sources: str | os.PathLike[str], names: str | os.PathLike[str] | None = None) -> LookPage:
    """Look at labelled photos; where they are a competition's, also at its test photos.

    >>> from nameplate.demo import photos_folder
    >>> page = look(photos_folder("test"))
    >>> len(page.found.photos), page.found.counts["Ostrel Tarn"]
    (200, 20)

    Args:
        sources: see `read_dataset`.
        names: see `read_dataset`.

    Raises:
        DataError: see `read_dataset`; or none of the photos can be read.
    """
    return look_page(read_dataset(*sources, names=names), sources)


def look_page(
    dataset: Dataset,
    sources: tuple[str | os.PathLike[str], ...],
    threads: int | None = None,
    progress: Progress = lambda *_: None,
) -> LookPage:
    """`look` at a data set that was read already.

    Args:
        dataset: what `read_dataset` returned.
        sources: what it was read from; the test photos of competitions among them are looked at too.
        threads: processors to use; None: all that this process may use.
        progress: see `Progress`.
    """
    begun = time.monotonic()
    threads = threads or available_cpus()
    unlabelled = [photo for source in sources for photo in photos_to_recognise(source)]
    found = look_at(dataset, unlabelled, threads=threads, progress=progress)
    seconds = time.monotonic() - begun
    return LookPage(found, _page(found, ", ".join(map(str, sources)), seconds, threads), seconds)


def _page(found: Look, where: str, seconds: float, threads: int) -> str:
    kinds = {kind: [each for each in found.findings if each.kind == kind] for kind in SHOWN_KINDS}
    wanted = [path for each in kinds.values() for f in each[:MOST_SHOWN] for path in f.photos[:MOST_COPIES]]
    counts = found.counts
    return fill(
        "look.html",
        found=found,
        where=where,
        seconds=seconds,
        kinds=[(kind, *TITLES[kind], listed) for kind, listed in kinds.items()],
        unreadable=len(kinds[UNREADABLE]),
        most_shown=MOST_SHOWN,
        most_copies=MOST_COPIES,
        json=None,
        pictures=dict(ordered_map(file_picture, [(path, SHOWN) for path in dict.fromkeys(wanted)], threads)),
        labels={photo.path: photo.label or "without label" for photo in found.photos},
        name=Path,
        fewest=min(counts.values()),
        most=max(counts.values()),
        like=photo_section(found.photos, found.measurements, found.dataset.nameplates, threads),
    )
