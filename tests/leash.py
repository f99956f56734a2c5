"""Processes that a test starts, Ray's included, and that must end with it."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

NEEDED = ("fsspec", "pandas", "pyarrow", "pydantic", "ray")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_ray = [pytest.mark.ray, pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")]
MARK = "NAMEPLATE_TEST_LEASH"
ENDED_SECONDS = 100
"""In which all that a test started must have ended: Ray's agents take a minute when all else was killed."""


class Leash:
    """Finds a test's processes by a word in their environment, which their children inherit."""

    def __init__(self) -> None:
        self._word = f"{MARK}={uuid.uuid4().hex}"

    @property
    def environment(self) -> dict[str, str]:
        """For the processes that a test starts: this one's, and the word."""
        return {**os.environ, "PYTHONUTF8": "1", MARK: self._word.partition("=")[2]}

    def held(self, name: str = "") -> list[int]:
        """Its processes that live and whose command line holds `name`."""
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if self._is_held(folder, name)]

    def wait(self) -> list[int]:
        """Those that have not ended in time; they are killed."""
        end = time.monotonic() + ENDED_SECONDS
        while (left := self.held()) and time.monotonic() < end:
            time.sleep(0.2)
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return left

    def _is_held(self, folder: Path, name: str) -> bool:
        try:
            alive = "State:\tZ" not in (folder / "status").read_text()
            mine = self._word.encode() in (folder / "environ").read_bytes().split(b"\0")
            return alive and mine and name.encode() in (folder / "cmdline").read_bytes()
        except OSError:
            return False


@contextmanager
def leashed() -> Iterator[Leash]:
    """A leash; fails where a process outlives the block."""
    leash = Leash()
    try:
        yield leash
    finally:
        left = leash.wait()
    assert not left, f"{len(left)} processes outlived the test"
