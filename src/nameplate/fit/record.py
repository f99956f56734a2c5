"""The JSON file in which a run keeps its dataclass: written whole, and read with its version checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nameplate.errors import NameplateError
from nameplate.storage import whole_file

T = TypeVar("T")


def write_record(path: Path, value: Any) -> None:
    """Write a dataclass as JSON, atomically.

    Raises:
        WriteError: it cannot be written.
    """
    # json escapes file names that are not valid UTF-8, which msgspec refuses.
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(msgspec.to_builtins(value)), "ascii")


def read_record(path: Path, kind: type[T], schema: int, *, missing: str = "") -> T:
    """Read what `write_record` wrote.

    Args:
        path: the file.
        kind: the dataclass.
        schema: the version of the format that this Nameplate reads.
        missing: a sentence for the user where the file cannot be read.

    Raises:
        NameplateError: the file is missing, damaged, or of another version.
    """
    try:
        said = json.loads(path.read_text("ascii"))
        if said.get("schema") != schema:
            raise ValueError(f"its schema is {said.get('schema')}, this Nameplate reads {schema}")
        return msgspec.convert(said, kind)
    except OSError as error:
        raise NameplateError(f"Cannot read '{path}': {error.strerror or error}.{missing and ' '}{missing}") from None
    except (ValueError, AttributeError, msgspec.ValidationError, RecursionError) as error:
        raise NameplateError(f"'{path}' is damaged: {error}. Train anew with another --output.") from None
