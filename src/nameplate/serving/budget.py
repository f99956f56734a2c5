"""`Budget`: the bytes of all requests' bodies that are in memory, under a hard cap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nameplate.serving.problems import Problem


@dataclass(slots=True)
class Hold:
    """What one request holds of the budget."""

    budget: Budget
    bytes: int = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            Problem: the budget has no more; `full`.
        """
        budget = self.budget
        if budget.used + count > budget.cap:
            raise Problem(
                "full",
                f"The photos of other requests fill {budget.used:,} of {budget.cap:,} bytes. Try again shortly.",
                retry_after=1,
            )
        budget.used += count
        self.bytes += count


@dataclass(slots=True)
class Budget:
    """Bytes that may be held, and those that are."""

    cap: int
    used: int = 0

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Something to hold bytes with; all are given back when the block ends."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.used -= hold.bytes
