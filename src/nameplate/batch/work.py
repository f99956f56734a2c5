"""Parts of a job made: references → bytes → answers → files. The photos of all parts go through in one stream."""

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
from nameplate.data import uris
from nameplate.model.model import Model
from nameplate.model.pipeline import Source
from nameplate.storage import printable
from nameplate.types import Limits

FETCHES = 32
"""Objects of a store that are fetched at once: it is far away, and they are small."""
FETCHED_AHEAD = 64
"""Objects that may wait, fetched, for a thread that decodes."""


class Reader:
    """Turns references into what the pipeline reads: local files and zips in its threads, stores ahead of it."""

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

    def sources(self, references: Iterable[str]) -> Iterator[Source]:
        """A source for each reference, in order."""
        waiting: deque[Source] = deque()
        for reference in references:
            ahead = uris.is_remote(reference)
            waiting.append(self._fetched(reference) if ahead else self._local(reference))
            while len(waiting) > (FETCHED_AHEAD if ahead else 0):
                yield waiting.popleft()
        yield from waiting

    def _local(self, reference: str) -> Source:
        if not archives.is_member(reference):
            return reference
        if archives.is_streamed(reference):
            return self._stream.source(reference)
        return partial(read_uri, reference, self._limits)

    def _fetched(self, reference: str) -> Source:
        self._pool = self._pool or ThreadPoolExecutor(FETCHES, thread_name_prefix="nameplate-fetch")
        return self._pool.submit(read_uri, reference, self._limits).result


class Make(Protocol):
    """What makes parts of a job: `make_parts` here, or others elsewhere."""

    def __call__(
        self,
        model: Model,
        job: Job,
        parts: Sequence[int],
        record: Callable[[ShardRecord], None],
        step: Callable[[int], None],
    ) -> tuple[ShardRecord, ...]:
        """Make some parts; see `make_parts`."""
        ...


def work(model: Model, job: Job, part: int) -> ShardRecord:
    """Make one part from its listing alone; whoever called records its line (`Job.record`)."""
    [line] = make_parts(model, job, [part], lambda _: None)
    return line


def make_parts(
    model: Model,
    job: Job,
    parts: Sequence[int],
    record: Callable[[ShardRecord], None],
    step: Callable[[int], None] = lambda _: None,
) -> tuple[ShardRecord, ...]:
    """Make some parts, their photos in one stream: it does not run dry where one ends.

    Where this is interrupted, the rows of the part under way are lost, and nothing else.

    Args:
        model: set to the job's runtime and looks.
        job: planned.
        parts: of it, in order.
        record: called with each part's line when its file is there.
        step: called after each photo with how many of these parts are done.

    Returns:
        The lines that `record` was called with.
    """
    names: deque[str] = deque()

    def references() -> Iterator[str]:
        for part in parts:
            for reference in job.references(part):
                names.append(reference)
                yield reference

    lines: list[ShardRecord] = []
    done = 0
    with Reader(model.settings.limits) as reader:
        rows = model.embedder.rows(reader.sources(references()))
        for part in parts:
            start = time.perf_counter()
            answers: list[AnsweredPhoto] = []
            for _ in range(job.rows(part)):
                row = next(rows)
                with model.settings.watch("judge"):
                    prediction, _probs = model.answer(printable(names.popleft()), row, job.terms.top)
                answers.append(AnsweredPhoto(prediction, row.digest))
                done += 1
                step(done)
            with model.settings.watch("write"):
                line = job.write(part, answers, time.perf_counter() - start)
                record(line)
            lines.append(line)
    return tuple(lines)
