"""Rates of requests: `parse_rate` reads one, and `Window` counts against it."""

from __future__ import annotations

import re
import time
from collections import OrderedDict, deque

from nameplate.errors import UsageError

CLIENTS = 10_000
"""The most clients that are remembered. Beyond, the client that has been silent for longest is forgotten."""
REQUESTS = 1_000_000
"""The most request times that are remembered for all clients together, some 32 MB. Beyond, the same."""
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 30 * 86_400, "year": 360 * 86_400}
"""Unit of time → seconds."""
RATE = re.compile(rf"\s*([0-9]{{1,9}})\s*(?:/|per)\s*([0-9]{{1,9}})?\s*({'|'.join(UNITS)})s?\s*", re.IGNORECASE)
"""The number of requests, an optional number of units, and the unit."""


def parse_rate(text: str) -> tuple[int, float]:
    """Parse a rate such as `600/minute` or `10 per 5 seconds`.

    Returns:
        The number of requests, and the length of the window in seconds.

    Raises:
        UsageError: the text is no rate, or its number of requests is larger than can be counted.
    """
    found = RATE.fullmatch(text)
    amount, seconds = (int(found[1]), int(found[2] or 1) * UNITS[found[3].lower()]) if found else (0, 0)
    if amount < 1 or seconds < 1:
        raise UsageError(f"'{text}' is no rate. Write requests per time, such as '600/minute' or '10 per 5 seconds'.")
    if amount > REQUESTS:
        raise UsageError(
            f"The rate '{text}' allows more than {REQUESTS:,} requests, which cannot be counted. Take a shorter time."
        )
    return amount, float(seconds)


class Window:
    """A moving window: it remembers when each client sent its last requests.

    The package `limits` offers one too, but its storage in memory keeps the name of every client that ever came, and
    walks through all of them in a thread of its own, a hundred times a second. This one forgets clients.
    """

    def __init__(self, amount: int, seconds: float) -> None:
        self.amount, self.seconds = amount, seconds
        self.clients: OrderedDict[str, deque[float]] = OrderedDict()
        self.held = 0

    def hit(self, client: str, now: float | None = None) -> float:
        """Count a request of a client. Requests that are refused do not count.

        Returns:
            0 if the request may pass, else the seconds until one would.
        """
        now = time.monotonic() if now is None else now
        times = self.clients.setdefault(client, deque())
        self.clients.move_to_end(client)  # in order of the last request; the first is forgotten first
        while times and times[0] <= now - self.seconds:
            times.popleft()
            self.held -= 1
        # The oldest counted request leaves the window first, and then the next one may pass.
        if len(times) >= self.amount:
            return times[0] + self.seconds - now
        times.append(now)
        self.held += 1
        # The limits hold however many addresses an attacker uses. Forgetting a client only lets it send a little more.
        while len(self.clients) > CLIENTS or self.held > REQUESTS:
            self.held -= len(self.clients.popitem(last=False)[1])
        return 0.0
