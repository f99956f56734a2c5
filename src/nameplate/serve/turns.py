"""`Turns`: a queue in which every client has a line of its own, and the lines are served in turn."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Threads put items in and take them out. A client with many items waiting delays another's by one at most."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()  # the first line is served next; none is empty
        self._changed = threading.Condition()

    def put(self, client: str, item: T) -> None:
        """Add an item at the end of a client's line."""
        with self._changed:
            self._lines.setdefault(client, deque()).append(item)
            self._changed.notify()

    def take(self) -> T:
        """Take the next item; wait until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            client, line = self._lines.popitem(last=False)
            item = line.popleft()
            if line:
                self._lines[client] = line  # behind the others
            return item
