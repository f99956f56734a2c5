"""`Batches`: pictures on their way to the runtime, taken in small batches, none kept waiting for long."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """A queue that several decoders fill and several runners empty.

    A runner that is free takes what is there: a picture waits for others only while some are being decoded,
    and never longer than `wait`. Runners that are free at once share what is there, so that none idles.
    """

    def __init__(self, size: int, wait: float) -> None:
        """Make an empty queue.

        Args:
            size: pictures a batch at most.
            wait: seconds that a picture may wait for others, at most.
        """
        self.size, self._wait = size, wait
        self._ready: deque[tuple[float, T]] = deque()
        self._coming = 0
        self._idle = 0
        self._changed = threading.Condition()

    def expect(self) -> None:
        """Say that a picture is being decoded; `put` or `give_up` must follow."""
        with self._changed:
            self._coming += 1

    def give_up(self) -> None:
        """The picture that was expected does not come."""
        with self._changed:
            self._coming -= 1
            self._changed.notify_all()

    def put(self, item: T) -> None:
        """Add the picture that was expected."""
        with self._changed:
            self._coming -= 1
            self._ready.append((time.monotonic(), item))
            self._changed.notify_all()

    def take(self) -> list[T]:
        """The next batch, of one picture at least; waits until there is one."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    pause = self._pause()
                    if pause == 0:
                        count = min(self.size, -(-len(self._ready) // self._idle))
                        return [self._ready.popleft()[1] for _ in range(count)]
                    self._changed.wait(pause)
            finally:
                self._idle -= 1

    def _pause(self) -> float | None:
        """Seconds to wait for a batch to fill; 0 to take what is there, None until something comes."""
        if not self._ready:
            return None
        if len(self._ready) >= self.size or self._coming == 0:
            return 0
        return max(0.0, self._ready[0][0] + self._wait - time.monotonic())
