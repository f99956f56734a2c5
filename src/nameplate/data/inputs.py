"""Checks that a command writes neither over what it reads, nor over what is there unless it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nameplate.data.kaggle import SAMPLE_TABLE, TRAIN_TABLE, find_competition
from nameplate.errors import UsageError
from nameplate.images.formats import is_photo_file

Named = str | os.PathLike[str]


def refuse_overwriting_input(outputs: Iterable[Named | None], inputs: Iterable[Named | None]) -> None:
    """Refuse, before anything is written, to write over what is read.

    An output may be a new file in a folder that is read. It may not be a file that is read (under any name or link), a
    photo or table of a competition in a folder that is read, or a folder that contains what is read.

    Args:
        outputs: files or folders that are to be written; None and paths that do not exist yet are ignored.
        inputs: files and folders that are read; None and paths that do not exist are ignored.

    Raises:
        UsageError: an output is such a file or folder; the message names it.
    """
    there = [os.fspath(path) for path in outputs if path is not None and os.path.exists(path)]  # noqa: PTH110
    for source in (os.fspath(path) for path in inputs if there and path is not None):
        for output in there:
            if not os.path.exists(source):  # noqa: PTH110
                continue
            if os.path.samefile(output, source):  # noqa: PTH121
                raise UsageError(f"'{output}' is read, and would be written over. Choose another name for the output.")
            if _holds(output, source):
                raise UsageError(f"'{output}' holds '{source}', which is read. Choose another folder for the output.")
            if _holds(source, output) and _is_read(output):
                raise UsageError(f"'{output}' is read with '{source}', and would be written over. Choose another name.")


def refuse_output_inside(output: Named, data: Iterable[Named], others: Iterable[Named | None] = ()) -> None:
    """Refuse an output folder inside labelled photos, where it would be taken for a class, or over what is read.

    Args:
        output: the folder that is to be written; it need not exist.
        data: sources of labelled photos.
        others: other files that are read.

    Raises:
        UsageError: the folder lies in a folder of photos that is read, or would write over what is read.
    """
    sources = [os.fspath(path) for path in data]
    refuse_overwriting_input([output], [*sources, *others])
    for source in sources:
        if _holds(source, output) and find_competition(Path(source)) is None:  # It lists its photos in a table.
            raise UsageError(
                f"'{os.fspath(output)}' lies in '{source}', which is read, and would be taken for a nameplate in it. "
                "Choose a folder outside."
            )


def refuse_existing(files: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse to replace files.

    Raises:
        UsageError: one is there already and `overwrite` is false.
    """
    for file in files:
        if file.exists() and not overwrite:
            raise UsageError(f"'{file}' is there already. Choose another name, or pass --overwrite.")


def _holds(folder: Named, path: Named) -> bool:
    """Whether a path lies below a folder after all links are resolved."""
    if not os.path.isdir(folder):  # noqa: PTH112
        return False
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _is_read(path: str) -> bool:
    """Whether a command that reads a folder would read this file in it."""
    name = os.path.basename(path)  # noqa: PTH119
    return os.path.isfile(path) and (name in (TRAIN_TABLE, SAMPLE_TABLE) or is_photo_file(path))  # noqa: PTH113
