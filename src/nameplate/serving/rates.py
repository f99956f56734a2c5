"""How many requests a client may send in a while: a moving window."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

import limits
from limits.util import parse_many

from nameplate.errors import UsageError

CLIENTS = 10_000
"""Clients that are remembered; then the one not heard of for longest is forgotten."""
REQUESTS = 1_000_000
"""Times of requests that are remembered for all clients together, some 32 MB; then likewise."""


def parse_rate(text: str) -> tuple[int, float]:
    """`600/minute`, `10 per 5 seconds`: requests, and the seconds of the window.

    Raises:
        UsageError: it is no such rate, or of more requests than can be counted.
    """
    try:
        items: list[limits.RateLimitItem] = parse_many(text)
    except ValueError:
        items = []
    if len(items) != 1 or items[0].amount < 1 or items[0].get_expiry() < 1:
        raise UsageError(f"'{text}' is no rate. Write requests a time, such as '600/minute' or '10 per 5 seconds'.")
    if items[0].amount > REQUESTS:
        raise UsageError(f"The rate '{text}' is of more than {REQUESTS:,} requests. Take a shorter time.")
    return items[0].amount, float(items[0].get_expiry())


class Window:
    """When each client sent its last requests.

    The storage in memory that comes with `limits` keeps the name of every client that ever came, and looks through all
    of them each hundredth of a second, in a thread of its own; this one forgets.
    """

    def __init__(self, amount: int, seconds: float) -> None:
        self.amount, self.seconds = amount, seconds
        self._clients: OrderedDict[str, deque[float]] = OrderedDict()
        self._held = 0

    def hit(self, client: str, now: float | None = None) -> float:
        """Count a request: 0 where it may pass, else the seconds until one would. Those refused do not count."""
        now = time.monotonic() if now is None else now
        times = self._clients.setdefault(client, deque())
        self._clients.move_to_end(client)
        while times and times[0] <= now - self.seconds:
            times.popleft()
            self._held -= 1
        if len(times) >= self.amount:
            return times[0] + self.seconds - now
        times.append(now)
        self._held += 1
        while len(self._clients) > CLIENTS or self._held > REQUESTS:
            self._held -= len(self._clients.popitem(last=False)[1])
        return 0.0
