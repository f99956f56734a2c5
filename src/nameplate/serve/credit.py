"""`Credit`: how many connections an address may have that await an answer or have ended without one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from nameplate.serve.access import network_of
from nameplate.serve.rates import CLIENTS

FORGIVEN_SECONDS = 30.0
"""Seconds in which all that an address may owe is forgiven."""


@dataclass(slots=True)
class Debt:
    """What one address owes."""

    waiting: int = 0
    """Connections that await an answer."""
    wasted: float = 0.0
    """Connections that ended without one, less those forgiven since."""
    since: float = 0.0
    """When `wasted` was true, on the monotonic clock."""


class Credit:
    """Counts, by address, the connections that bring no answer.

    A connection costs more than it seems: its request is read, routed and queued before the service learns that its
    client has hung up. One whose request was answered costs its address nothing here, so clients that take what they
    ask for are never limited, however many connections they open one after the other. For the event loop's thread.
    """

    def __init__(self, most: int, exempt: Callable[[str], bool] = lambda _: False) -> None:
        """Make a credit for all addresses.

        Args:
            most: how many connections an address may owe; 0 sets no limit.
            exempt: whether an address has no limit: a proxy, which speaks for many clients.
        """
        self.most, self.exempt = most, exempt
        self.refused = 0
        """How many connections were refused."""
        self.last = ""
        """The address that was refused last."""
        self._debts: OrderedDict[str, Debt] = OrderedDict()  # in order of the last connection

    def limits(self, address: str) -> bool:
        """Whether an address is limited at all."""
        return self.most > 0 and bool(address) and not self.exempt(address)

    def open(self, address: str, now: float | None = None) -> bool:
        """Count a new connection of an address that is limited; whether it may be."""
        name = network_of(address)
        debt = self._debt(name, now)
        self._debts.move_to_end(name)
        if debt.waiting + debt.wasted + 1 > self.most:
            self.refused, self.last = self.refused + 1, name
            return False
        debt.waiting += 1
        return True

    def ask(self, address: str) -> None:
        """Count a further request on a connection whose earlier ones were answered."""
        self._debt(network_of(address)).waiting += 1

    def settle(self, address: str, *, answered: bool, now: float | None = None) -> None:
        """Take note that a connection was answered, or has ended without that."""
        debt = self._debt(network_of(address), now)
        debt.waiting = max(0, debt.waiting - 1)  # it may have been forgotten meanwhile
        debt.wasted += not answered

    def waste(self, address: str, count: int) -> None:
        """Hold something against an address that costs as much as `count` connections without an answer."""
        self._debt(network_of(address)).wasted += count

    def _debt(self, name: str, now: float | None = None) -> Debt:
        """What a network owes now."""
        now = time.monotonic() if now is None else now
        debt = self._debts.setdefault(name, Debt(since=now))
        debt.wasted = max(0.0, debt.wasted - (now - debt.since) * self.most / FORGIVEN_SECONDS)
        debt.since = now
        if len(self._debts) > CLIENTS:  # however many addresses an attacker uses
            self._debts.popitem(last=False)
        return debt
