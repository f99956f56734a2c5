"""The errors that Nameplate raises on purpose: each says what failed, with which value, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "missing",  # no such file, or no permission
    "empty",  # zero bytes
    "not a photo",  # the bytes are of no format that is read
    "truncated",  # the file ends before the picture does
    "damaged",  # the bytes inside are wrong
    "too large",  # more bytes or pixels than the limits allow
    "too slow",  # decoding took longer than the limits allow
    "not computed",  # the photo is read, but what the model computes of it is no number
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a photo could not be read.

    >>> print(Failure("truncated", "JPEG: premature end"))
    truncated: JPEG: premature end
    """

    reason: Reason
    """The kind of failure: what programs decide by."""
    detail: str
    """The rest in words, for people."""

    def __str__(self) -> str:
        """The text that JSON, tables and the command line show in `error`."""
        return f"{self.reason}: {self.detail}"


class NameplateError(Exception):
    """Something that the user can put right; the command line prints it without a traceback and exits 1."""


class PhotoError(NameplateError):
    """A photo that cannot be read, and in `failure` why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.failure = Failure(reason, detail)
        super().__init__(str(self.failure))

    @property
    def reason(self) -> Reason:
        """The kind of failure."""
        return self.failure.reason

    @property
    def detail(self) -> str:
        """The rest in words."""
        return self.failure.detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[Reason, str]]:
        return PhotoError, (self.reason, self.detail)


class DataError(NameplateError):
    """A data set, table or archive that cannot be read as one. `left_out` is what was in it instead, each
    with the reason why it is left out.
    """

    def __init__(self, message: str, left_out: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.left_out = tuple(left_out)


class WriteError(NameplateError):
    """A file or folder that cannot be written: a full disk, no permission."""


class BundleError(NameplateError):
    """A model on disk that is damaged, unsafe, made by a newer version, or not one."""


class DatabaseError(NameplateError):
    """A database that cannot be reached, is of another version, or does not do as it is asked."""


class RuntimeUnavailableError(NameplateError):
    """An inference runtime that is not installed or does not work on this machine."""


class UsageError(NameplateError):
    """Arguments that do not go together; the command line exits 2."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
