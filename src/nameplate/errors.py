"""The errors that Nameplate raises on purpose. Each message says what failed, with which value, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "missing",  # There is no such file, or it may not be read.
    "empty",  # The file has zero bytes.
    "not a photo",  # The bytes are of no format that is read.
    "truncated",  # The file ends before the image does.
    "damaged",  # The image data are wrong.
    "too large",  # There are more bytes or pixels than the limits allow, or too little memory.
    "too slow",  # Decoding took longer than the limits allow.
    "not computed",  # The photo was read, but the output of the model for it is not finite, or a fault prevented it.
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a photo could not be read.

    >>> print(Failure("truncated", "JPEG: premature end"))
    truncated: JPEG: premature end
    """

    reason: Reason
    """The kind of failure, which programs may depend on."""
    detail: str
    """The details in words, for people."""

    def __str__(self) -> str:
        """The text that JSON, tables and the command line show as `error`."""
        return f"{self.reason}: {self.detail}"


class NameplateError(Exception):
    """An error that the user can correct. The command line prints it without a traceback and exits with 1."""


class PhotoError(NameplateError):
    """A photo cannot be read; `failure` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.failure = Failure(reason, detail)
        super().__init__(str(self.failure))

    @property
    def reason(self) -> Reason:
        """The kind of failure."""
        return self.failure.reason

    @property
    def detail(self) -> str:
        """The details in words."""
        return self.failure.detail

    def __reduce__(self) -> tuple[type[PhotoError], tuple[Reason, str]]:
        return PhotoError, (self.reason, self.detail)


class DataError(NameplateError):
    """A data set, table or archive cannot be read.

    `left_out` holds the entries that were found instead, as (name, reason).
    """

    def __init__(self, message: str, left_out: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.left_out = tuple(left_out)


class WriteError(NameplateError):
    """A file or folder cannot be written, for example because the disk is full."""


class BundleError(NameplateError):
    """A bundle is damaged, unsafe, made by a newer version, or no bundle."""


class DatabaseError(NameplateError):
    """A database cannot be reached, has another version, or fails."""


class RuntimeUnavailableError(NameplateError):
    """An inference runtime or package is not installed or does not work on this machine."""


class UsageError(NameplateError):
    """Arguments are invalid or contradict each other. The command line exits with 2."""


LONGEST_NAME = 200
"""Characters from which no similar name is sought: it would take long, and there is none."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The text ` Did you mean 'x'?` where a known name is similar, or else an empty text."""
    if len(name) > LONGEST_NAME:
        return ""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
