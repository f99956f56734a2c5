"""Look at a data set before anything else (`look_at`): counts, sizes and copies, in seconds and without a network.

An audit goes on from here: it embeds the photos, and so also finds cropped copies, wrong labels and outliers. The
measurements of photos are in a cache that both share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nameplate.audit.inspect import CROSS_CLASS, KINDS, LEAK, UNREADABLE, Finding, copy_findings
from nameplate.data.dataset import Dataset
from nameplate.data.split import connected, find_hashed_copies
from nameplate.errors import DataError, PhotoError
from nameplate.images.decode import read_bytes, read_header
from nameplate.images.parallel import ordered_map
from nameplate.images.phash import perceptual_hash
from nameplate.model.embeddings import Progress
from nameplate.model.measurements import Measurements, measure_photos
from nameplate.storage import sha256
from nameplate.types import Photo

UNLABELLED = "test, without labels"
"""What the photos to recognise are called where a part is named."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a data set, in figures. Sizes are in pixels, as the files store them."""

    name: str
    """`train`, `validation`, `test`, the photos `UNLABELLED`, or `all` where the data has no parts."""
    photos: int
    nameplates: int
    """Number of nameplates with photos in it; 0 where the photos have no labels."""
    mean_size: tuple[float, float]
    """Mean width and mean height."""
    median_size: tuple[float, float]
    smallest: tuple[int, int]
    """Width and height of the photo with the fewest pixels."""
    largest: tuple[int, int]
    megabytes: float
    formats: dict[str, int]
    """Format of the files → number of photos."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one sees of a data set at first sight."""

    dataset: Dataset
    photos: tuple[Photo, ...]
    """The N readable photos with SHA-256 and size: first those with labels, then those without."""
    measurements: tuple[Measurements, ...]
    """Brightness, sharpness and format of each."""
    findings: tuple[Finding, ...]
    """Unreadable files and copies, ordered by kind."""
    parts: tuple[Part, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Nameplate → number of readable photos with this label, in the order of the data set."""
        found = Counter(photo.label for photo in self.photos if photo.label is not None)
        return {name: found[name] for name in self.dataset.nameplates}

    @property
    def across(self) -> int:
        """Number of photos of which a copy lies in another part."""
        where = {photo.path: part_of(photo) for photo in self.photos}
        return sum(
            len(finding.photos)
            for finding in self.findings
            if finding.kind in (LEAK, CROSS_CLASS) and len({where[path] for path in finding.photos}) > 1
        )


def look_at(
    dataset: Dataset, unlabelled: Sequence[Photo] = (), *, threads: int = 1, progress: Progress = lambda *_: None
) -> Look:
    """Look at labelled photos, and at the photos to recognise where there are any.

    Args:
        dataset: labelled photos.
        unlabelled: photos to recognise, such as the test photos of a competition. Copies between these and the
            labelled photos are found as well.
        threads: number of photos that are read at the same time.
        progress: see `Progress`.

    Raises:
        DataError: none of the photos can be read.
    """
    everything = [*dataset.photos, *(photo.with_(split="test", label=None) for photo in unlabelled)]
    if unlabelled:  # what a competition lists is what trains
        everything = [photo if photo.split else photo.with_(split="train") for photo in everything]
    read, unreadable = _headers(everything, threads, progress)
    measured = measure_photos(read, threads, lambda done, of: progress("look", done, of))
    photos = [photo for photo, found in zip(read, measured, strict=True) if found is not None]
    measurements = [found for found in measured if found is not None]
    unreadable += [
        Finding(UNREADABLE, (photo.path,), 1.0, "damaged: its pixels cannot be decoded")
        for photo, found in zip(read, measured, strict=True)
        if found is None
    ]
    if not photos:
        raise DataError(f"None of {len(everything):,} photos can be read; the first is '{everything[0].path}'.")
    copies = sorted(_copies(photos, measurements, progress), key=lambda each: (KINDS.index(each.kind), -each.score))
    return Look(
        dataset=dataset,
        photos=tuple(photos),
        measurements=tuple(measurements),
        findings=(*unreadable, *copies),
        parts=tuple(_parts(photos, measurements)),
    )


def part_of(photo: Photo) -> str:
    """The part that a photo belongs to; empty where the data names none."""
    return UNLABELLED if photo.label is None else str(photo.split or "")


def _headers(photos: Sequence[Photo], threads: int, progress: Progress) -> tuple[list[Photo], list[Finding]]:
    """The photos whose header can be read, with digest and size, and a finding for each other one."""

    def read(photo: Photo) -> Photo | Finding:
        try:
            data = read_bytes(photo.path)
            header = read_header(data)
        except PhotoError as error:
            return Finding(UNREADABLE, (photo.path,), 1.0, str(error))
        return photo.with_(sha256=sha256(data), width=header.width, height=header.height)

    good: list[Photo] = []
    bad: list[Finding] = []
    for number, found in enumerate(ordered_map(read, photos, threads), start=1):
        progress("read", number, len(photos))
        if isinstance(found, Finding):
            bad.append(found)
        else:
            good.append(found)
    return good, bad


def _copies(photos: Sequence[Photo], measurements: Sequence[Measurements], progress: Progress) -> Iterator[Finding]:
    greys = np.stack([each.grey for each in measurements])
    hashes = np.stack([perceptual_hash(np.repeat(grey[..., None], 3, axis=2)) for grey in greys])
    digests = [str(photo.sha256) for photo in photos]
    copies = find_hashed_copies(digests, hashes, greys, lambda done, of: progress("compare", done, of))
    group = connected(copies.pairs, len(photos))
    weakest = np.ones(len(photos))
    np.minimum.at(weakest, group[copies.pairs[:, 0]], copies.likeness)
    for number in np.unique(group[copies.pairs[:, 0]]).tolist():
        members = [photos[i] for i in np.flatnonzero(group == number).tolist()]
        yield from copy_findings(members, float(weakest[number]))


def _parts(photos: Sequence[Photo], measurements: Sequence[Measurements]) -> Iterator[Part]:
    rows: dict[str, list[tuple[Photo, Measurements]]] = {}
    for photo, measured in zip(photos, measurements, strict=True):
        rows.setdefault(part_of(photo), []).append((photo, measured))
    for name, members in rows.items():
        sizes = np.array([(photo.width, photo.height) for photo, _ in members], np.int64)
        order = np.argsort(sizes.prod(1), kind="stable")
        width, height = sizes.mean(0).tolist()
        middle_width, middle_height = np.median(sizes, axis=0).tolist()
        yield Part(
            name=name or ("no part" if len(rows) > 1 else "all"),
            photos=len(members),
            nameplates=len({photo.label for photo, _ in members if photo.label is not None}),
            mean_size=(width, height),
            median_size=(middle_width, middle_height),
            smallest=_pair(sizes[order[0]].tolist()),
            largest=_pair(sizes[order[-1]].tolist()),
            megabytes=sum(measured.bytes for _, measured in members) / 1e6,
            formats=dict(Counter(measured.format for _, measured in members).most_common()),
        )


def _pair(size: list[int]) -> tuple[int, int]:
    return size[0], size[1]
