"""A worker: a process that decodes, embeds and classifies photos, and nothing else.

`python -m nameplate.serving.worker FD` is started by `supervisor.py` with one end of a socket pair. Hostile bytes
are decoded here alone, so that what kills a decoder kills no more than this process.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nameplate.errors import BundleError, NameplateError
from nameplate.models.bundle import load_bundle
from nameplate.models.embedding import Row, Settings, prepare_photo
from nameplate.models.golden import golden_photo
from nameplate.models.model import Model
from nameplate.models.runtime import BATCH, OnnxRuntime, OpenVino, make_runtime
from nameplate.serving.batches import Batches
from nameplate.serving.wire import LENGTHS, Cancel, Done, Failed, Frame, Job, Ready, Setup, for_worker, frame
from nameplate.types import NO_TTA

NICE = 5
"""Below the service: where processors are few it answers, and refuses, at once, and the work takes what is left."""


@dataclass(slots=True)
class Task:
    """A job on its way through the worker."""

    job: Job
    photo: bytes
    until: float
    """When it is late, on the monotonic clock."""
    row: Row = field(default_factory=Row)
    cancelled: bool = False
    decoded: float = 0.0
    """Seconds that decoding took."""
    prepared: float = 0.0
    """When its picture was ready."""

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled or time.monotonic() > self.until


class Worker:
    """Decoders and runners over one model, side by side."""

    def __init__(self, setup: Setup, reply: Callable[[Frame], None]) -> None:
        """Load the bundle.

        Args:
            setup: which, and how.
            reply: sends a frame to the service; called from several threads.

        Raises:
            NameplateError: it cannot be served.
        """
        self._reply = reply
        settings = Settings(setup.runtime, setup.threads, setup.limits, tta=setup.tta)
        self._model = Model(load_bundle(setup.bundle), settings)  # the service has proven it (`engines`)
        self._model.require_head()
        self._whole = setup.tta != NO_TTA
        self._runtime, size = _open(setup, self._model.bundle.backbone)
        self._batches: Batches[Task] = Batches(size, setup.batch_wait)
        self._tasks: dict[int, Task] = {}
        self._decoders = ThreadPoolExecutor(setup.threads, thread_name_prefix="decode")
        self._threads = setup.threads

    def warm_up(self) -> Ready:
        """Run a full batch and the golden photo; what the service holds its answer against."""
        size = self._model.bundle.manifest.preprocess
        self._runtime.run(np.zeros((self._batches.size, size.height, size.width, 3), np.uint8))
        task = Task(Job(0, "golden", 0), golden_photo(), time.monotonic() + 3600)
        task.row = prepare_photo(task.photo, size, self._model.settings)
        if task.row.failure is not None:
            raise BundleError(f"The golden photo cannot be read: {task.row.failure}.")
        if self._whole:
            task.row = self._looked_at(task)
        else:
            self._embed([task])
        prediction, _ = self._model.answer("golden", task.row)
        return Ready(self._runtime.name, prediction)

    def run(self, receive: Callable[[], tuple[bytes, bytes] | None]) -> None:
        """Work until `receive` has no more frames."""
        for number in range(self._threads):
            threading.Thread(target=self._guarded, args=(self._runner,), name=f"run-{number}", daemon=True).start()
        while (received := receive()) is not None:
            message = for_worker(received[0])
            if isinstance(message, Job):
                task = Task(message, received[1], time.monotonic() + message.seconds)
                self._tasks[message.id] = task
                self._batches.expect()
                self._decoders.submit(self._guarded, self._prepare, task)
            elif isinstance(message, Cancel):
                for task in filter(None, map(self._tasks.get, message.ids)):
                    task.cancelled = True

    def _guarded(self, work: Callable[..., None], *arguments: Task) -> None:
        """What fails unforeseen ends the process: the service starts another one, and tells."""
        try:
            work(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def _prepare(self, task: Task) -> None:
        start = time.monotonic()
        if not task.dropped and task.job.form == "picture":
            task.row.picture = picture = self._picture(task.photo)
            task.row.measure(picture, picture, self._model.bundle.manifest.preprocess)
        elif not task.dropped and not self._whole:
            task.row = prepare_photo(task.photo, self._model.bundle.manifest.preprocess, self._model.settings)
        task.prepared = time.monotonic()
        task.decoded = task.prepared - start
        if task.row.failure is None and not task.dropped:
            self._batches.put(task)
        else:
            self._batches.give_up()
            self._finish(task)

    def _picture(self, data: bytes) -> NDArray[np.uint8]:
        size = self._model.bundle.manifest.preprocess
        return np.frombuffer(data, np.uint8).reshape(size.height, size.width, 3)

    def _runner(self) -> None:
        while True:
            taken = self._batches.take()
            start = time.monotonic()
            tasks = [task for task in taken if not task.dropped]
            if self._whole:
                for task in tasks:
                    task.row = self._looked_at(task)
            elif tasks:
                self._embed(tasks)
            embedded = time.monotonic() - start
            for task in taken:
                self._finish(task, start - task.prepared, embedded, len(tasks))

    def _embed(self, tasks: list[Task]) -> None:
        """The network sees these pictures."""
        pictures = [task.row.picture for task in tasks if task.row.picture is not None]
        for task, embedding in zip(tasks, self._runtime.run(np.stack(pictures)), strict=True):
            task.row.take(embedding, self._runtime.name)
            task.row.picture = None

    def _looked_at(self, task: Task) -> Row:
        """With test-time augmentation all looks at one photo make the batches."""
        source = task.row.picture if task.job.form == "picture" and task.row.picture is not None else task.photo
        [row] = self._model.looks.rows([source])
        return row

    def _finish(self, task: Task, waited: float = 0.0, embedded: float = 0.0, batch: int = 0) -> None:
        """Reply, and forget the task."""
        self._tasks.pop(task.job.id, None)
        job, row = task.job, task.row
        if row.embedding is None and row.failure is None:
            self._reply(frame(Done(job.id)))
            return
        prediction, chances = self._model.answer(job.name, row, job.top)
        body = b"" if chances is None else np.ascontiguousarray(chances).tobytes()
        rest = row.embedding.tobytes() if job.embedding and row.embedding is not None else b""
        self._reply(
            frame(
                Done(
                    job.id,
                    prediction,
                    len(body),
                    self._heat_map(task.photo) if job.heatmap and prediction.failure is None else None,
                    prediction.failure is not None and prediction.failure.reason == "too slow",
                    {"decode": task.decoded, "wait": waited, "embed": embedded},
                    batch,
                ),
                body + rest,
            )
        )

    def _heat_map(self, photo: bytes) -> dict[str, object] | None:
        from nameplate.models.explain import explain
        from nameplate.reports.explain import heat_json

        if self._maps is None or len(self._model.nameplates) < 2:
            return None
        return heat_json(explain(self._model, photo, runtime=self._maps), self._model.bundle.manifest.preprocess)

    @cached_property
    def _maps(self) -> OnnxRuntime | None:
        """The backbone with its maps, opened when the first heat map is asked for; None where it gives none."""
        maps = OnnxRuntime(self._model.bundle.backbone, 1, maps=True)
        return maps if maps.has_maps else None


def _open(setup: Setup, backbone: bytes) -> tuple[OnnxRuntime | OpenVino, int]:
    """The runtime, and how many photos make a batch. Both choices give the same bits as any other (tests say so).

    ONNX Runtime is faster with a batch a thread than with one batch over all of them; OpenVINO, whose batches have
    a fixed shape, answers single photos eight times as fast in batches of one, and loses nothing (docs/benchmarks.md).
    """
    if setup.runtime in ("auto", "onnxruntime"):
        return make_runtime("onnxruntime", backbone, 1), BATCH
    return make_runtime(setup.runtime, backbone, setup.threads, 1), 1


def main() -> None:
    """Serve the socket whose number is the first argument, until the service closes it."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to the whole group; the service decides
        signal.signal(each, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    sending = threading.Lock()

    def reply(answer: Frame) -> None:
        with sending:
            connection.sendall(b"".join(answer.parts))

    def receive() -> tuple[bytes, bytes] | None:
        lengths = _exactly(connection, LENGTHS.size)
        if lengths is None:
            return None
        head, body = (_exactly(connection, length) for length in LENGTHS.unpack(lengths))
        return None if head is None or body is None else (head, body)

    os.nice(NICE)
    first = receive()
    setup = None if first is None else for_worker(first[0])
    if not isinstance(setup, Setup):
        return
    try:
        worker = Worker(setup, reply)
        reply(frame(worker.warm_up()))
    except NameplateError as error:
        reply(frame(Failed(str(error))))
        sys.exit(1)
    with suppress(OSError):  # the service is gone
        worker.run(receive)
    os._exit(0)  # threads that still decode are left behind


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    """So many bytes, or None where the other side has closed."""
    data = bytearray(length)
    view, got = memoryview(data), 0
    while got < length:
        count = connection.recv_into(view[got:])
        if count == 0:
            return None
        got += count
    return bytes(data)


if __name__ == "__main__":
    main()
