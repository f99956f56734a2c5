"""Reading labelled photos for a command, and reporting what was merged, matched or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nameplate.cli import screen

if TYPE_CHECKING:
    from nameplate.data.dataset import Dataset
    from nameplate.evaluate.evaluator import EvaluationResult
    from nameplate.fit.split import Split
    from nameplate.model.bundle import Bundle


def read_labelled(
    data: Sequence[Path],
    names: Path | None,
    exclude: Path | None,
    layout: str,
    report: Callable[[str, int, int], None],
    relabel: Path | None = None,
) -> Dataset:
    """Read a data set with a command's options.

    Its notes and what it left out are printed at once, before anything else can fail.
    """
    from nameplate.data import read_dataset

    def unpacked(done: int, total: int) -> None:
        report("unpack", done, total)

    dataset = read_dataset(*data, names=names, exclude=exclude, relabel=relabel, layout=layout, progress=unpacked)
    tell(dataset)
    return dataset


def tell(dataset: Dataset) -> None:
    """Print how a data set was read and what it left out."""
    tell_notes(dataset.notes)
    screen.tell_left_out(dataset.refused)


def tell_notes(notes: Iterable[str]) -> None:
    """Print how the data was read."""
    for note in notes:
        screen.note("data", note)


def tell_parts(split: Split) -> None:
    """Print which photos and nameplates are used neither for training nor for evaluation."""
    for sentence in split.notes:
        screen.note("left out", sentence)
    if split.contradictory:
        screen.note(
            "data",
            f"{split.contradictory:,} photos are exact copies of one under another nameplate; "
            "'nameplate audit' names them.",
        )


def tell_known(split: Split, start: str, bundle: Bundle | None) -> int:
    """Print how many held-out photos trained the bundle whose network a training began with.

    Args:
        split: the photos.
        start: what the training began with, as the user calls it.
        bundle: the same, or None if it is no bundle.

    Returns:
        Their number.
    """
    from nameplate.evaluate.evaluator import trained_digests

    if bundle is None:
        return 0
    trained = trained_digests(bundle)
    known = sum(p.sha256 in trained for p, trains in zip(split.photos, split.train, strict=True) if not trains)
    if known:
        screen.note(
            "flattered",
            f"{screen.counted(known, 'held-out photo')} trained the network that this training began with, '{start}': "
            "on these the figures are too good. Hold out others, or begin with another network.",
        )
    return known


def as_json(dataset: Dataset) -> dict[str, object]:
    """Return how the data was read, for `--json`."""
    return {"read_as": dataset.kinds, "notes": dataset.notes}


def left_out_json(
    refused: Sequence[tuple[str, str]], split: Split, unreadable: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """Return paths and reasons of all that is used neither for training nor for evaluation, for `--json`."""
    apart = [(entry.name, entry.reason) for entry in split.left_out]
    return screen.left_out_json((), (*refused, *unreadable, *apart))


def tell_not_evaluated(result: EvaluationResult) -> None:
    """Print the nameplates that an evaluation says nothing about, each with its number of photos."""
    for nameplate, photos in result.unknown[: screen.LINES]:
        alike = [name for name in result.nameplates if name.casefold().split() == nameplate.casefold().split()]
        near = f"; it knows '{alike[0]}'" if alike else ""
        screen.note(
            "left out",
            f"{nameplate}: {screen.counted(photos, 'photo')}, of a nameplate that the model does not know{near}",
        )
    for nameplate, photos in result.lost[: screen.LINES]:
        screen.note(
            "not judged",
            f"{nameplate}: {screen.counted(photos, 'photo')}, which all trained this model or cannot be read",
        )
    if len(result.lost) > screen.LINES:
        screen.notes.print(f"… and {len(result.lost) - screen.LINES:,} more nameplates not judged")
