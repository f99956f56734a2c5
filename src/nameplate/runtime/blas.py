"""numpy's matrix products on one thread, for the products of single photos.

A photo's product with the head is done in 0.1 ms, so a second thread gains nothing there. While other threads decode
and infer it costs much: BLAS waits for its own threads actively, on processors that are busy with something else. With
a head of a thousand nameplates that was half of the processor time of a bulk job (docs/benchmarks.md). The rounding of
the product depends on the number of threads, too, so on one thread every machine computes the same.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """A block in which the process computes matrix products with one thread; afterwards with as many as before.

    The number holds for the whole process, and blocks of several threads would restore it in any order. So only the
    main thread sets it; in other threads the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return nullcontext()
    limit: AbstractContextManager[object] = _blas().limit(limits=1)
    return limit


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    """The BLAS libraries of the process. To look for them takes a millisecond, so it is done once."""
    return ThreadpoolController().select(user_api="blas")
