"""What a command reads is never what it writes over."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from nameplate.datasets.competition import SAMPLE_TABLE, TRAIN_TABLE
from nameplate.errors import UsageError
from nameplate.photos.formats import is_photo_file

Named = str | os.PathLike[str]


def refuse_overwriting_input(outputs: Iterable[Named], inputs: Iterable[Named | None]) -> None:
    """Look, before anything is written, whether a command would write over what it reads.

    An output may be a new file in a folder that is read. It may not be a file that is read (under whatever name or
    link), a photo or a competition's table in a folder that is read, nor a folder that holds what is read.

    Args:
        outputs: files or folders that are to be written; they need not be there.
        inputs: files and folders that are read; None, and what is no path here, is passed over.

    Raises:
        UsageError: it would; says which.
    """
    there = [os.fspath(path) for path in outputs if os.path.exists(path)]  # noqa: PTH110 - what is not cannot be lost
    read = [os.fspath(path) for path in inputs if path is not None and os.path.exists(path)]  # noqa: PTH110
    for output, source in product(there, read):
        if os.path.samefile(output, source):  # noqa: PTH121
            raise UsageError(f"'{output}' would be written over, and it is read: choose another name for the output.")
        if _holds(output, source):
            raise UsageError(f"'{output}' holds '{source}', which is read: choose another folder for the output.")
        if _holds(source, output) and _is_read(output):
            raise UsageError(f"'{output}' would be written over, and it is read with '{source}': choose another name.")


def refuse_output_inside(output: Named, inputs: Iterable[Named | None]) -> None:
    """`refuse_overwriting_input` for a folder that would be taken for a class of the data that it was made of.

    Raises:
        UsageError: it lies in a folder that is read, or would write over what is.
    """
    refuse_overwriting_input([output], inputs)
    for source in inputs:
        if source is not None and _holds(source, output):
            raise UsageError(
                f"'{os.fspath(output)}' lies in '{os.fspath(source)}', the labelled photos that are read, and would be "
                "taken for a nameplate of theirs: choose a folder outside."
            )


def _holds(folder: Named, path: Named) -> bool:
    """Whether a path lies below a folder, whatever links either goes by."""
    inner, outer = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return os.path.isdir(folder) and outer in inner.parents  # noqa: PTH112


def _is_read(path: str) -> bool:
    """Whether a file in a folder that is read would be."""
    name = os.path.basename(path)  # noqa: PTH119
    return os.path.isfile(path) and (name in (TRAIN_TABLE, SAMPLE_TABLE) or is_photo_file(path))  # noqa: PTH113
