"""Shards of a job made in this process: URIs → bytes → predictions → files of rows.

The photos of all shards pass through the model in one stream, so that decoding never waits for a shard's end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from nameplate.batch import archives
from nameplate.batch.job import Job, ShardRecord
from nameplate.batch.tables import AnsweredPhoto
from nameplate.batch.uris import read_uri
from nameplate.data.uris import is_remote
from nameplate.model.model import Model
from nameplate.model.pipeline import Source
from nameplate.storage import printable
from nameplate.types import Limits

FETCHES = 32
"""Objects that are fetched from a store at once: each takes long, but is small."""
FETCHED_AHEAD = 64
"""The most fetched objects that may wait for a decoding thread."""


class Reader:
    """Turns URIs into the pipeline's sources.

    The pipeline's own threads read local files and archives. Objects in stores are fetched ahead by a pool of threads.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stream = archives.MemberStream(limits)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def sources(self, uris: Iterable[str]) -> Iterator[Source]:
        """Yield a source for each URI, in order."""
        waiting: deque[Source] = deque()
        for uri in uris:
            ahead = is_remote(uri)
            waiting.append(self._fetched(uri) if ahead else self._local(uri))
            # A local file waits for nothing, but must not overtake objects that were listed before it.
            while len(waiting) > (FETCHED_AHEAD if ahead else 0):
                yield waiting.popleft()
        yield from waiting

    def _local(self, uri: str) -> Source:
        if not archives.is_member(uri):
            return uri
        if archives.is_streamed(uri):  # read now and in order: see `MemberStream`
            return self._stream.source(uri)
        return partial(read_uri, uri, self._limits)

    def _fetched(self, uri: str) -> Source:
        self._pool = self._pool or ThreadPoolExecutor(FETCHES, thread_name_prefix="nameplate-fetch")
        return self._pool.submit(read_uri, uri, self._limits).result


class MakeShards(Protocol):
    """A function that makes shards of a job: `make_shards`, or one that lets other processes make them."""

    def __call__(
        self,
        model: Model,
        job: Job,
        shards: Sequence[int],
        record: Callable[[ShardRecord], None],
        step: Callable[[int], None],
    ) -> tuple[ShardRecord, ...]:
        """Make some shards; see `make_shards` for the arguments."""
        ...


def make_shard(model: Model, job: Job, shard: int) -> ShardRecord:
    """Make one shard; the caller must record it (`Job.record`)."""
    [record] = make_shards(model, job, [shard], lambda _: None)
    return record


def make_shards(
    model: Model,
    job: Job,
    shards: Sequence[int],
    record: Callable[[ShardRecord], None],
    step: Callable[[int], None] = lambda _: None,
) -> tuple[ShardRecord, ...]:
    """Make some shards, their photos in one stream.

    An interruption loses the rows of the shard under way, and nothing else.

    Args:
        model: the model, with the job's runtime and TTA.
        job: the planned job.
        shards: the numbers of the shards to make, ascending.
        record: called with each shard's record when its file is complete.
        step: called after each photo with the number of photos done so far.

    Returns:
        The records that `record` was called with.
    """
    names: deque[str] = deque()

    def uris() -> Iterator[str]:
        for shard in shards:
            for uri in job.uris(shard):
                names.append(uri)  # the stream keeps the order, so names are taken off from the left below
                yield uri

    records: list[ShardRecord] = []
    done = 0
    with Reader(model.settings.limits) as reader:
        rows = model.embedder.rows(reader.sources(uris()))
        for shard in shards:
            start = time.perf_counter()
            answers: list[AnsweredPhoto] = []
            for _ in range(job.rows(shard)):
                row = next(rows)
                with model.settings.watch("judge"):
                    prediction, _probs = model.answer(printable(names.popleft()), row, job.spec.top)
                answers.append(AnsweredPhoto(prediction, row.digest))
                done += 1
                step(done)
            with model.settings.watch("write"):
                written = job.write(shard, answers, time.perf_counter() - start)
                record(written)
            records.append(written)
    return tuple(records)
