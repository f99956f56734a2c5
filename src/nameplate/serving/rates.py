"""How many requests a client may send in a while: a moving window."""

from __future__ import annotations

import re
import time
from collections import OrderedDict, deque

from nameplate.errors import UsageError

CLIENTS = 10_000
"""Clients that are remembered; then the one not heard of for longest is forgotten."""
REQUESTS = 1_000_000
"""Times of requests that are remembered for all clients together, some 32 MB; then likewise."""
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 30 * 86_400, "year": 360 * 86_400}
"""Seconds."""
RATE = re.compile(rf"\s*([0-9]{{1,9}})\s*(?:/|per)\s*([0-9]{{1,9}})?\s*({'|'.join(UNITS)})s?\s*", re.IGNORECASE)
"""Requests, perhaps how many units of time, and the unit."""


def parse_rate(text: str) -> tuple[int, float]:
    """`600/minute`, `10 per 5 seconds`: requests, and the seconds of the window.

    Raises:
        UsageError: it is no such rate, or of more requests than can be counted.
    """
    found = RATE.fullmatch(text)
    amount, seconds = (int(found[1]), int(found[2] or 1) * UNITS[found[3].lower()]) if found else (0, 0)
    if amount < 1 or seconds < 1:
        raise UsageError(f"'{text}' is no rate. Write requests a time, such as '600/minute' or '10 per 5 seconds'.")
    if amount > REQUESTS:
        raise UsageError(f"The rate '{text}' is of more than {REQUESTS:,} requests. Take a shorter time.")
    return amount, float(seconds)


class Window:
    """When each client sent its last requests.

    The package `limits` has one too: it keeps the name of every client that ever came, and looks through all of them
    each hundredth of a second, in a thread of its own. This one forgets.
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
