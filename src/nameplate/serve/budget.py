"""What request bodies may cost: `Budget`, the bytes of all that are in memory, and `Arrival`, the time to arrive."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nameplate.serve.errors import Problem


@dataclass(slots=True)
class Hold:
    """The bytes of the budget that one request holds."""

    budget: Budget
    client: str
    bytes: int = 0

    def take(self, count: int) -> None:
        """Hold `count` more bytes.

        Raises:
            Problem: the budget, or this client's share of it, is exhausted (`full`).
        """
        budget = self.budget
        # No lock: only the event loop's thread calls this, and nothing is awaited here.
        used, own = budget.used + count, budget.clients[self.client] + count
        if own > budget.cap - used:
            raise Problem(
                "full",
                f"The photos under way fill {budget.used:,} of {budget.cap:,} bytes, {own - count:,} of them this "
                "client's: a client may fill as many as are left free. Send fewer at once, or again shortly.",
                retry_after=1,
            )
        budget.used, budget.clients[self.client] = used, own
        self.bytes += count


@dataclass(slots=True)
class Budget:
    """A hard cap on the bytes of all request bodies that are in memory at once.

    A client may hold as many bytes as it leaves free (A. Choudhury and E. Hahne, "Dynamic queue length thresholds for
    shared-memory packet switches", 1998): one client half of the cap, two a third each. So there is always room for a
    newcomer.
    """

    cap: int
    used: int = 0
    clients: Counter[str] = field(default_factory=Counter)
    """Client's share (`access.Client.share`) → the bytes that it holds."""

    @contextmanager
    def hold(self, client: str) -> Iterator[Hold]:
        """Give a request its `Hold`; all its bytes are returned to the budget when the block ends."""
        hold = Hold(self, client)
        try:
            yield hold
        finally:
            self.used -= hold.bytes
            self.clients[client] -= hold.bytes
            if not self.clients[client]:
                del self.clients[client]


PATIENCE = 10.0
"""Seconds that a body may arrive more slowly than at `SLOWEST`, or pause."""
LAST_PATIENCE = 2.0
"""The same once the service is stopping."""
SLOWEST = 8 * 1024
"""Bytes a second at which a body must arrive in the long run."""


class Arrival:
    """A body that is arriving, and how long that may still take.

    It has `PATIENCE` seconds, which its bytes buy back at `SLOWEST`; and never more than `most` seconds in all. For the
    event loop's thread.
    """

    def __init__(self, most: float) -> None:
        """Begin now.

        Args:
            most: seconds after which the body is given up, however fast it arrives.
        """
        loop = asyncio.get_running_loop()
        self._clock, self._most, self._patience = loop.time, most, PATIENCE
        self._end = self._clock() + most
        self._due = self._clock() + PATIENCE
        self.timeout = asyncio.timeout_at(min(self._due, self._end))
        """Surrounds the reading."""

    def came(self, count: int) -> None:
        """Take note that `count` bytes have come."""
        self._set(self._due + count / SLOWEST)

    def hurry(self) -> None:
        """Have less patience from now on."""
        self._patience = LAST_PATIENCE
        self._set(self._due)

    def _set(self, due: float) -> None:
        self._due = min(due, self._clock() + self._patience)
        if not self.timeout.expired():
            self.timeout.reschedule(min(self._due, self._end))

    @property
    def why(self) -> str:
        """Why it was given up, as a sentence."""
        if self._end <= self._due:
            return f"The body took longer than {self._most:g} s to arrive."
        stopping = " while the service is stopping" if self._patience < PATIENCE else ""
        return f"The body arrived with less than {SLOWEST:,} bytes/s for {self._patience:g} s{stopping}."
