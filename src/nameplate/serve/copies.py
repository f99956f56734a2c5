"""Copies of the served bundles on disk, which workers read; those of services that were killed are deleted."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PREFIX = "nameplate-served-"
OWNER = ".owner"
"""The file in a copy that its service has locked as long as it lives."""


@dataclass(frozen=True, slots=True)
class BundleCopy:
    """A folder of this process."""

    folder: Path
    _owner: BinaryIO

    @classmethod
    def make(cls) -> BundleCopy:
        """Make an empty one.

        Raises:
            OSError: it cannot be made.
        """
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        owner = (folder / f"{OWNER}.new").open("wb")
        fcntl.flock(owner, fcntl.LOCK_EX)
        (folder / f"{OWNER}.new").rename(folder / OWNER)  # so nobody finds it before it is locked
        return cls(folder, owner)

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._owner.close()


def remove_orphans() -> int:
    """Delete the copies whose service has ended without doing so, and return how many there were."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Another user's cannot be opened; one that is being made has no such file yet.
        with suppress(OSError), (folder / OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
            removed += 1
    return removed
