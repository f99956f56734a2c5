"""Corrections → a data set of photos and a table, which `nameplate train` and `nameplate extra-data` read.

train.csv      a row per photo: path, label, source, group, and facts about its corrections
photos/        the photos as they are stored, named by their digests
left-out.csv   the corrections that were left out, and why
manifest.json  the selection, counts, versions and the data's digest
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from nameplate.data.dataset import digest
from nameplate.data.kaggle import TRAIN_TABLE
from nameplate.data.tables import write_table
from nameplate.errors import DataError, PhotoError
from nameplate.fit.run import versions
from nameplate.images.decode import decode
from nameplate.serve.feedback.database import Status, reading
from nameplate.serve.feedback.store import FORMULA, Entry, FeedbackStore, count_photos, entries_by_photo, photo_bytes
from nameplate.storage import sha256, whole_folder
from nameplate.types import Photo, Preprocess

SOURCE = "feedback"
LEFT_OUT, MANIFEST, PHOTOS = "left-out.csv", "manifest.json", "photos"
COLUMNS = (
    *("path", "label", "source", "group", "sha256", "width", "height"),
    *("status", "corrections", "predicted", "confidence", "model", "comment"),
)
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tiff",
    "HEIC": ".heic",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which corrections are exported."""

    statuses: tuple[Status, ...] = ("new", "accepted")
    since: datetime | None = None
    """Only corrections from this moment on."""
    model: str | None = None
    """Only corrections of this model's answers."""
    include_conflicts: bool = False
    """Whether a photo with contradicting corrections is exported, once under each nameplate."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The counts of an export; `manifest.json` has these fields as keys."""

    photos: int
    corrections: int
    unmoderated: int
    """Photos without an accepted correction."""
    nameplates: dict[str, int]
    """Nameplate → number of photos."""
    left_out: dict[str, int]
    """Reason → number of corrections that were left out."""
    digest: str
    """SHA-256 of all photos' digests with their labels."""


@dataclass(slots=True)
class _Tally:
    """What was exported and left out so far."""

    photos: list[Photo] = field(default_factory=list)
    corrections: int = 0
    unmoderated: int = 0
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, entries: Sequence[Entry], reason: str, detail: str = "") -> None:
        for entry in entries:
            row = {"correction": entry.id, "sha256": entry.sha256, "label": entry.nameplate}
            self.left_out.append({**row, "reason": reason, "detail": detail})

    def exported(self) -> ExportSummary:
        return ExportSummary(
            len(self.photos),
            self.corrections,
            self.unmoderated,
            dict(sorted(Counter(str(photo.label) for photo in self.photos).items())),
            dict(Counter(row["reason"] for row in self.left_out).most_common()),
            digest(self.photos),
        )


def export(
    store: FeedbackStore,
    output: Path,
    selection: Selection | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Write corrections as a data set, completely or not at all, with one photo in memory at a time.

    Args:
        store: the corrections.
        output: the folder to write; `nameplate train` takes it, or the table in it.
        selection: which corrections are exported.
        overwrite: whether an existing folder is replaced.
        progress: called with the numbers of photos done and in all.

    Raises:
        DataError: there are no corrections to export.
        DatabaseError: the database fails.
    """
    selection, tally = selection or Selection(), _Tally()
    # One read transaction for everything: corrections that arrive meanwhile cannot make table and photos differ.
    with whole_folder(output, overwrite=overwrite, mode=0o700) as folder, reading(store.engine) as connection:
        (folder / PHOTOS).mkdir()
        write_table(folder / TRAIN_TABLE, COLUMNS, _rows(connection, folder, selection, tally, progress))
        made = tally.exported()
        if not made.photos:
            raise DataError(_nothing(store, made))
        write_table(folder / LEFT_OUT, ("correction", "sha256", "label", "reason", "detail"), tally.left_out)
        (folder / MANIFEST).write_bytes(_manifest(store, selection, made))
    return made


def _rows(
    connection: Connection,
    folder: Path,
    selection: Selection,
    tally: _Tally,
    progress: Callable[[int, int], None] | None,
) -> Iterator[dict[str, object]]:
    """Yield the table's rows; each photo is written before its row."""
    everything = count_photos(connection)
    # `groupby` joins neighbours alone, and the query is sorted by photo.
    grouped = groupby(entries_by_photo(connection), key=lambda entry: entry.sha256)
    for number, (photo, group) in enumerate(grouped, start=1):
        named = chosen(list(group), selection, tally.leave_out)
        entries = [entry for said in named.values() for entry in said]
        data = photo_bytes(connection, photo) if entries else b""
        problem = _problem(data, photo) if entries else None
        if problem is not None:
            tally.leave_out(entries, *problem)
        else:
            for place, (label, said) in enumerate(named.items()):
                yield _written(folder, data, label, said, place, tally)
        if progress is not None:
            progress(number, everything)


def chosen(
    entries: Sequence[Entry], selection: Selection, leave_out: Callable[[Sequence[Entry], str], None]
) -> dict[str, list[Entry]]:
    """Choose the corrections of one photo that are exported, by nameplate; `leave_out` gets the others.

    Whether corrections contradict each other is decided on all that are not rejected, selected or not. If some were
    accepted, only these count.
    """
    kept: list[Entry] = []
    for entry in entries:
        reason = _unwanted(entry, selection)
        leave_out([entry], reason) if reason else kept.append(entry)
    standing = [entry for entry in entries if entry.status != "rejected"]
    accepted = {entry.nameplate for entry in standing if entry.status == "accepted"}
    overruled = [entry for entry in kept if accepted and entry.nameplate not in accepted]
    leave_out(overruled, "another nameplate was accepted")
    kept = [entry for entry in kept if entry not in overruled]
    # Also corrections that are not selected count here: `--since` must not hide that a label is in dispute.
    said = accepted or {entry.nameplate for entry in standing} | {entry.nameplate for entry in kept}
    if len(said) > 1 and not selection.include_conflicts:
        leave_out(kept, "different nameplates for one photo")
        return {}
    return {name: [e for e in kept if e.nameplate == name] for name in dict.fromkeys(e.nameplate for e in kept)}


def _unwanted(entry: Entry, selection: Selection) -> str | None:
    """Why a correction is not selected; None if it is."""
    if entry.status not in selection.statuses:
        return {"new": "not moderated", "accepted": "accepted", "rejected": "rejected"}[entry.status]
    if selection.since is not None and entry.time < selection.since:
        return "too old"
    if selection.model is not None and entry.model != selection.model:
        return "of another model"
    return None


def _problem(data: bytes, photo: str) -> tuple[str, str] | None:
    """Why a photo cannot be exported, as a reason and a detail; None if it can."""
    if (found := sha256(data)) != photo:
        return "not the photo that was stored", f"its SHA-256 is {found}"
    try:
        # A photo may be damaged behind an intact header, so the whole of it is decoded.
        decode(data, at_least=(Preprocess().height, Preprocess().width))
    except PhotoError as error:
        return "unreadable", str(error)
    return None


def _written(
    folder: Path, data: bytes, label: str, said: Sequence[Entry], place: int, tally: _Tally
) -> dict[str, object]:
    """Write a photo, count it and return its row. A photo with several nameplates gets one file for each, since the
    table has one row per file.
    """
    first = next((entry for entry in said if entry.status == "accepted"), said[0])
    path = f"{PHOTOS}/{first.sha256}{f'-{place + 1}' if place else ''}{SUFFIXES.get(first.format, '.jpg')}"
    (folder / path).write_bytes(data)
    tally.photos.append(Photo(path, label, source=SOURCE, sha256=first.sha256))
    tally.corrections += len(said)
    # `first` is an accepted correction if there is any.
    tally.unmoderated += first.status != "accepted"
    return {
        "path": path,
        "label": label,
        "source": SOURCE,
        "group": first.sha256[:16],  # files of the same photo stay in the same split
        "sha256": first.sha256,
        "width": first.width,
        "height": first.height,
        "status": first.status,
        "corrections": " ".join(entry.id for entry in said),
        "predicted": first.predicted,
        "confidence": first.confidence,
        "model": first.model,
        # What somebody wrote shall stay text in a spreadsheet.
        "comment": f"'{first.comment}" if first.comment.startswith(FORMULA) else first.comment,
    }


def _nothing(store: FeedbackStore, made: ExportSummary) -> str:
    if not made.left_out:
        return f"There are no corrections in {store.name}."
    reasons = ", ".join(f"{count:,}× {reason}" for reason, count in made.left_out.items())
    return (
        f"None of the corrections in {store.name} is to be exported: {reasons}. See --status and --include-conflicts."
    )


def _manifest(store: FeedbackStore, selection: Selection, made: ExportSummary) -> bytes:
    said = {
        "made": datetime.now(UTC),
        "database": store.name,
        "selection": asdict(selection),
        **asdict(made),
        "versions": versions("sqlalchemy"),
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n"
