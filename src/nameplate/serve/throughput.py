"""`Throughput`: how long a busy engine takes for one photo."""

from __future__ import annotations

import time
from dataclasses import dataclass

WEIGHT = 0.05
"""Of the newest of the times that are averaged."""
LONGEST = 1.0
"""Seconds; a longer time counts as so many, so that one pause is soon forgotten."""


@dataclass(slots=True)
class Throughput:
    """An exponential moving average of the time between two answers while there is work."""

    seconds: float = 0.05
    """Seconds a photo."""
    _since: float = 0.0
    """When the last answer came, or work began after there was none (monotonic clock)."""

    def begin(self) -> None:
        """Take note that there is work, and was none before."""
        self._since = time.monotonic()

    def answered(self, *, busy: bool) -> None:
        """Take note of an answer. `busy`: several photos were under way, so the next was not waited for."""
        now = time.monotonic()
        if busy:
            self.seconds += WEIGHT * (min(LONGEST, now - self._since) - self.seconds)
        self._since = now
