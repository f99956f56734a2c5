"""What a command reads is never what it writes over."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from nameplate.data.kaggle import SAMPLE_TABLE, TRAIN_TABLE, find_competition
from nameplate.errors import UsageError
from nameplate.images.formats import is_photo_file

Named = str | os.PathLike[str]


def refuse_overwriting_input(outputs: Iterable[Named | None], inputs: Iterable[Named | None]) -> None:
    """Look, before anything is written, whether a command would write over what it reads.

    An output may be a new file in a folder that is read. It may not be a file that is read (under whatever name or
    link), a photo or a competition's table in a folder that is read, nor a folder that holds what is read.

    Args:
        outputs: files or folders that are to be written; None, and what is not there yet, is passed over.
        inputs: files and folders that are read; None, and what is no path here, is passed over.

    Raises:
        UsageError: it would; says which.
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
    """`refuse_overwriting_input` for a folder, which inside a folder of labelled photos would be taken for a class.

    Args:
        output: the folder that is to be written; it need not be there.
        data: labelled photos that are read.
        others: other files that are read.

    Raises:
        UsageError: it lies in a folder of photos that is read, or would write over what is read.
    """
    sources = [os.fspath(path) for path in data]
    refuse_overwriting_input([output], [*sources, *others])
    for source in sources:
        if _holds(source, output) and find_competition(Path(source)) is None:  # that has its photos in a table
            raise UsageError(
                f"'{os.fspath(output)}' lies in '{source}', which is read, and would be taken for a nameplate in it. "
                "Choose a folder outside."
            )


def _holds(folder: Named, path: Named) -> bool:
    """Whether a path lies below a folder, whatever links either goes by."""
    if not os.path.isdir(folder):  # noqa: PTH112
        return False
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def _is_read(path: str) -> bool:
    """Whether a file in a folder that is read would be."""
    name = os.path.basename(path)  # noqa: PTH119
    return os.path.isfile(path) and (name in (TRAIN_TABLE, SAMPLE_TABLE) or is_photo_file(path))  # noqa: PTH113
