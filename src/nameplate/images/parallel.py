"""`ordered_map` applies a function to many items in threads and yields the results in order, with bounded memory.

This is the only prefetcher. Threads suffice, because decoding, resizing and inference release the interpreter's lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

from nameplate.images.isolated import end_readers

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 64
"""Number of items that may wait. It is large enough that threads stay busy while one item takes long."""
PAUSE = 0.01
"""Seconds between two checks whether the threads of a map that is left early have ended."""


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int = AHEAD, name: str = "nameplate-decode"
) -> Generator[R, None, None]:
    """Apply a function to each item in threads; yield the results in the order of the items.

    When the caller stops early, by an exception, Ctrl-C or closing the iterator, no further item is begun. The items
    that are being worked on are waited for, but a photo that a process apart decodes is given up at once: one photo
    may take `Limits.seconds`. No thread outlives the iterator.

    Args:
        function: called in a thread. What it raises reaches the caller in the place of the item's result.
        items: read in the caller's thread, `ahead` beyond the result that is yielded.
        threads: how many call the function; at least one does.
        ahead: items, at least 1, that are being worked on or wait as results. It bounds the memory.
        name: of the threads, for tracebacks and debuggers.
    """
    at_work: set[int] = set()  # identifiers of threads; additions and removals are atomic
    abandoned = threading.Event()

    def call(item: T) -> R:
        at_work.add(threading.get_ident())
        try:
            if abandoned.is_set():
                raise CancelledError
            return function(item)
        finally:
            at_work.discard(threading.get_ident())

    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix=name)
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:  # of the function, of the items, Ctrl-C, or the iterator is closed
        abandoned.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # Neither the futures nor the pool tell of all that is under way: Ctrl-C may come in the middle of `submit`,
        # when a thread runs that is in no list yet. And a thread may only now begin to wait for another process.
        while at_work:
            end_readers(at_work.copy())
            time.sleep(PAUSE)
        raise
    finally:
        pool.shutdown()
