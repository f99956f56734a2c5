"""Labelled photos read for a command, and what was merged, matched or taken in one of several ways told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nameplate.cli import screen

if TYPE_CHECKING:
    from nameplate.datasets.sources import Dataset
    from nameplate.evaluation.judge import Judged
    from nameplate.fit.parts import Parts


def read_labelled(
    data: Sequence[Path],
    names: Path | None,
    exclude: Path | None,
    layout: str,
    report: Callable[[str, int, int], None],
) -> Dataset:
    """`read_dataset` with a command's options; its notes, and what it left out, are told before anything else can
    fail.
    """
    from nameplate.datasets import read_dataset

    def unpacked(done: int, total: int) -> None:
        report("unpack", done, total)

    dataset = read_dataset(*data, names=names, exclude=exclude, layout=layout, progress=unpacked)
    tell(dataset)
    return dataset


def tell(dataset: Dataset) -> None:
    """How a data set was read, and what it left out."""
    tell_notes(dataset.notes)
    screen.tell_left_out(dataset.refused)


def tell_notes(notes: Iterable[str]) -> None:
    """How the data was read."""
    for note in notes:
        screen.note("data", note)


def tell_parts(parts: Parts) -> None:
    """Which photos and nameplates neither train nor judge, each nameplate with its count."""
    for sentence in parts.told:
        screen.note("left out", sentence)
    if parts.contradictory:
        screen.note(
            "data",
            f"{parts.contradictory:,} photos are exact copies of one under another nameplate; "
            "'nameplate audit' names them.",
        )


def as_json(dataset: Dataset) -> dict[str, object]:
    """How the data was read, for `--json`."""
    return {"read_as": dataset.kinds, "notes": dataset.notes}


def left_out_json(
    refused: Sequence[tuple[str, str]], parts: Parts, unreadable: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """All that neither trains nor judges: paths and reasons, for `--json`."""
    apart = [(entry.name, entry.reason) for entry in parts.left_out]
    return screen.left_out_json((), (*refused, *unreadable, *apart))


def tell_unjudged(judged: Judged) -> None:
    """Nameplates that an evaluation says nothing of, each with its count."""
    for nameplate, photos in judged.unknown[: screen.LINES]:
        alike = [name for name in judged.nameplates if name.casefold().split() == nameplate.casefold().split()]
        near = f"; it knows '{alike[0]}'" if alike else ""
        screen.note(
            "left out",
            f"{nameplate}: {screen.counted(photos, 'photo')}, of a nameplate that the model does not know{near}",
        )
    for nameplate, photos in judged.lost[: screen.LINES]:
        screen.note(
            "not judged",
            f"{nameplate}: {screen.counted(photos, 'photo')}, which all trained this model or cannot be read",
        )
    if len(judged.lost) > screen.LINES:
        screen.notes.print(f"… and {len(judged.lost) - screen.LINES:,} more nameplates not judged")
