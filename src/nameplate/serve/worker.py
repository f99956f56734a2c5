"""A worker process: it decodes, embeds and classifies photos, and does nothing else.

`ipc.start_worker` runs `python -m nameplate.serve.worker FD`, where FD is one end of a socket pair. Hostile bytes are
decoded only here, so a photo that crashes a decoder ends this process and not the service.

Decoder threads prepare photos and put them into `Batches`; runner threads take small batches, embed and classify them,
and send the answers. Photos that take seconds to decode have threads of their own, so that no quick one waits for them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from bisect import insort
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nameplate.defaults import NO_TTA
from nameplate.errors import BundleError, Failure, NameplateError
from nameplate.images.decode import may_take_long
from nameplate.model.bundle import load_bundle
from nameplate.model.model import Model
from nameplate.model.pipeline import (
    DecodedPhoto,
    EmbeddedPhoto,
    Outcome,
    PhotoFile,
    PreparedPhoto,
    Settings,
    UnreadablePhoto,
    decode_photo,
    embedded,
)
from nameplate.model.reference import reference_photo
from nameplate.model.verification import HeatMap
from nameplate.runtime.base import BATCH
from nameplate.runtime.blas import one_blas_thread
from nameplate.runtime.openvino import OpenVino
from nameplate.runtime.ort import OnnxRuntime
from nameplate.runtime.select import ON_DEVICE, make_runtime
from nameplate.serve.ipc import (
    LENGTHS,
    Cancel,
    Failed,
    Fault,
    Frame,
    Ready,
    Setup,
    Slow,
    WorkerJob,
    WorkerResult,
    for_worker,
    frame,
)
from nameplate.serve.turns import Turns

T = TypeVar("T")


YIELD_SECONDS = 0.2
"""A photo lets others pass that come up to so many seconds after it for each car that it has more than they. So a photo
of one car does not wait for several of ten cars, which take as long as dozens like it; and none waits for ever."""


class _Ready(NamedTuple, Generic[T]):
    """A prepared photo in the queue."""

    turn: float
    """When its turn is, on the monotonic clock: the earliest is taken first."""
    arrived: float
    """When it came, on the monotonic clock; this bounds the wait for others."""
    cars: int
    item: T


class Batches(Generic[T]):
    """A queue of prepared photos that several decoders fill and several runners empty, batch by batch.

    A free runner takes what is there: a photo waits for others only while some are being decoded, and never longer
    than `wait`. If several runners are free, they share what is there, so that none is idle. A photo in which many cars
    are named fills a batch, and it lets photos of fewer cars pass that come shortly after it: `YIELD_SECONDS`.
    """

    def __init__(self, size: int, wait: float, cars_of: Callable[[T], int] = lambda _: 1) -> None:
        """Make an empty queue.

        Args:
            size: the most cars of a batch; a photo with more is a batch of its own.
            wait: the most seconds that a photo may wait for others.
            cars_of: how many cars of a photo are named.
        """
        self.size, self._wait, self._cars_of = size, wait, cars_of
        self._ready: list[_Ready[T]] = []  # in the order in which they are taken
        self._coming = 0  # photos that are being decoded
        self._idle = 0  # runners that wait in `take`
        self._changed = threading.Condition()

    def expect(self) -> None:
        """Announce a photo that is being decoded; `put` or `give_up` must follow."""
        with self._changed:
            self._coming += 1

    def give_up(self) -> None:
        """Withdraw an announced photo: it could not be decoded, or nobody waits for it."""
        with self._changed:
            self._coming -= 1
            self._changed.notify_all()

    def put(self, item: T) -> None:
        """Add an announced photo."""
        with self._changed:
            self._coming -= 1
            arrived, cars = time.monotonic(), self._cars_of(item)
            place = _Ready(arrived + YIELD_SECONDS * (cars - 1), arrived, cars, item)
            insort(self._ready, place, key=lambda ready: ready.turn)
            self._changed.notify_all()

    def take(self) -> list[T]:
        """Take the next batch, of at least one photo; wait until there is one."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    pause = self._pause()
                    if pause == 0:
                        return self._share()
                    self._changed.wait(pause)
            finally:
                self._idle -= 1

    def _share(self) -> list[T]:
        """Take out the photos for one runner: at least one, then as many as a batch has room for."""
        share = -(-len(self._ready) // self._idle)  # a fair one, rounded up
        count, room = 1, self.size - self._ready[0].cars
        while count < share and self._ready[count].cars <= room:
            room -= self._ready[count].cars
            count += 1
        taken = self._ready[:count]
        del self._ready[:count]
        return [ready.item for ready in taken]

    def _pause(self) -> float | None:
        """Return how many seconds to wait for a batch to fill: 0 to take what is there, None if nothing is there."""
        if not self._ready:
            return None
        if sum(ready.cars for ready in self._ready) >= self.size or self._coming == 0:
            return 0
        return max(0.0, min(ready.arrived for ready in self._ready) + self._wait - time.monotonic())


NICE = 5
"""Niceness of workers. The service has priority, so that it still refuses at once when all processors are busy."""


Spans = dict[str, tuple[float, float]]
"""Stage → when it began and ended, on the monotonic clock."""


@dataclass(slots=True)
class Task:
    """A job on its way through the worker."""

    job: WorkerJob
    photo: bytes
    until: float
    """The deadline, on the monotonic clock."""
    prepared: PreparedPhoto | None = None
    """None until the photo is decoded, or if it cannot be."""
    outcome: Outcome | None = None
    """What the answer is made from; None until the photo is embedded, or if the job was dropped."""
    shown: NDArray[np.uint8] | None = None
    """The photo that the heat map is drawn on, uint8 H×W×3, if one is asked for."""
    cancelled: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that stages took, for metrics (`WorkerResult.seconds`)."""
    spans: Spans = field(default_factory=dict)
    ready: float = 0.0
    """When the model inputs were ready, on the monotonic clock."""

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.cancelled or time.monotonic() > self.until

    @property
    def cars(self) -> int:
        """How many cars of the photo are named; 1 where the whole photo is."""
        return 1 if self.prepared is None else 1 + len(self.prepared.others)


class _Stages(threading.local):
    """The stages of the photo that a thread works on; each thread has its own."""

    def __init__(self) -> None:
        self.spans: Spans = {}

    @contextmanager
    def watch(self, stage: str) -> Iterator[None]:
        """Note when a stage of this thread's photo begins and ends; implements `runtime.base.Watch`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spans[stage] = (began, time.monotonic())


class Worker:
    """The worker's model, its decoder threads and its runner threads."""

    def __init__(self, setup: Setup, reply: Callable[[Frame], None]) -> None:
        """Load the bundle.

        Args:
            setup: which bundle to serve, and how.
            reply: sends a frame to the service; it is called from several threads.

        Raises:
            NameplateError: the bundle cannot be served.
        """
        self._reply = reply
        self._stages = _Stages()
        settings = Settings(
            setup.runtime, setup.threads, setup.limits, tta=setup.tta, cars=setup.cars, watch=self._stages.watch
        )
        self._model = Model(load_bundle(setup.bundle), settings)  # the service has checked the bundle (`Engines`)
        self._model.require_head()
        self._with_tta = setup.tta != NO_TTA
        self._runtime, size = _open(setup, self._model.bundle.backbone)
        self._batches: Batches[Task] = Batches(size, setup.batch_wait, lambda task: task.cars)
        self._tasks: dict[int, Task] = {}
        self._decoders = ThreadPoolExecutor(setup.threads, thread_name_prefix="decode")
        self._slow: Turns[Task] = Turns()
        self._threads = setup.threads

    def warm_up(self) -> Ready:
        """Run a full batch, which allocates all memory, and identify the reference image.

        Returns:
            The message that says so; the service checks the prediction in it.

        Raises:
            BundleError: the reference image cannot be read.
        """
        size = self._model.bundle.manifest.preprocess
        self._runtime.run(np.zeros((self._batches.size, size.height, size.width, 3), np.uint8))
        # An hour, since a cold start on a busy machine must not make the reference image "late".
        task = Task(WorkerJob(0, "reference image", 0), reference_photo(), time.monotonic() + 3600)
        self._decode(task)
        if isinstance(task.outcome, UnreadablePhoto):
            raise BundleError(f"The reference image cannot be read: {task.outcome.failure}.")
        self._embed([task])
        assert task.outcome is not None
        prediction, _ = self._model.answer("reference image", task.outcome)
        return Ready(self._runtime.name, prediction)

    def run(self, receive: Callable[[], tuple[bytes, bytes] | None]) -> None:
        """Work until `receive` returns None, which means that the service has closed the socket."""
        for number in range(self._threads):
            threading.Thread(target=self._guarded, args=(self._runner,), name=f"run-{number}", daemon=True).start()
        for number in range(max(1, self._threads - 1)):  # one processor is left to the quick ones
            threading.Thread(
                target=self._guarded, args=(self._slow_decoder,), name=f"slow-{number}", daemon=True
            ).start()
        while (received := receive()) is not None:
            message = for_worker(received[0])
            if isinstance(message, WorkerJob):
                task = Task(message, received[1], time.monotonic() + message.seconds)
                self._tasks[message.id] = task
                # Announced before a thread decodes it, so that a runner already waits for it to fill its batch.
                self._batches.expect()
                self._decoders.submit(self._guarded, self._sort, task)
            elif isinstance(message, Cancel):
                for task in filter(None, map(self._tasks.get, message.ids)):
                    task.cancelled = True

    def _guarded(self, work: Callable[..., None], *arguments: Task) -> None:
        """Call `work`. An exception that nobody foresaw ends the process, and the service starts another worker."""
        try:
            work(*arguments)
        except BaseException:
            with suppress(OSError):  # the service has ended
                self._report()
            os._exit(1)

    def _report(self) -> None:
        """Tell the service of the exception that is being handled."""
        self._reply(frame(Fault(traceback.format_exc())))

    def _sort(self, task: Task) -> None:
        """Prepare a job's photo, or leave it to the threads for slow ones. Runs in a decoder's thread."""
        if (
            task.dropped
            or task.job.options.form == "input"
            or not may_take_long(task.photo, self._model.settings.limits)
        ):
            self._prepare(task)
            return
        self._batches.give_up()  # for now
        self._reply(frame(Slow(task.job.id)))
        self._slow.put(task.job.client, task)

    def _slow_decoder(self) -> None:
        """Prepare slow photos for ever. Runs in a thread of its own."""
        while True:
            task = self._slow.take()
            self._batches.expect()
            self._prepare(task)

    def _prepare(self, task: Task) -> None:
        """Decode a job's photo and pass it on. Runs in a decoder's thread."""
        start = time.monotonic()
        self._stages.spans = task.spans
        if not task.dropped:
            try:
                self._decode(task)
            except Exception as error:  # a fault that one photo shows must not cost the others their worker
                self._report()
                task.prepared, task.outcome = None, _fault(error)
        task.ready = time.monotonic()
        task.seconds["decode"] = task.ready - start
        if "locate" in task.spans:
            task.seconds["locate"] = spent = _seconds(task.spans["locate"])
            task.seconds["decode"] -= spent
        if task.prepared is not None and not task.dropped:
            self._batches.put(task)
        else:
            self._batches.give_up()
            self._finish(task)

    def _decode(self, task: Task) -> None:
        """Set the task's model inputs, and the photo to draw on if a heat map is asked for; or its failure."""
        size = self._model.bundle.manifest.preprocess
        if task.job.options.form == "input":
            pixels = np.frombuffer(task.photo, np.uint8).reshape(size.height, size.width, 3)
            decoded: DecodedPhoto | UnreadablePhoto = DecodedPhoto(PhotoFile(None, size.width, size.height), pixels)
        else:
            decoded = decode_photo(task.photo, self._model.settings, (size.height, size.width))
        if isinstance(decoded, UnreadablePhoto):
            task.outcome = decoded
            return
        prepared = self._model.embedder.prepare_decoded(
            decoded, "whole" if task.job.options.form == "input" else task.job.options.cars
        )
        if task.job.options.form == "input":
            # The original photo is unknown, and the model input tells nothing about its size or sharpness.
            prepared = replace(prepared, car=replace(prepared.car, quality=None))
        task.prepared = prepared
        if task.job.options.heatmap is not None:
            # Imported only when needed: most workers never draw a heat map, and start faster without it.
            from nameplate.model.cam import SHOWN
            from nameplate.report.explanation import shown

            task.shown = shown(decoded.pixels, SHOWN)

    def _runner(self) -> None:
        """Embed and answer batches for ever. Runs in a thread of its own."""
        while True:
            taken = self._batches.take()
            start = time.monotonic()
            tasks = [task for task in taken if not task.dropped]
            self._embed(tasks)
            embedded = (start, time.monotonic())
            for task in tasks:
                task.spans["embed"] = embedded
                task.seconds |= {"wait": start - task.ready, "embed": _seconds(embedded)}
            # Jobs with a heat map are finished last: drawing it takes a while, and the others must not wait for it.
            for task in sorted(taken, key=lambda task: task.job.options.heatmap is not None):
                self._finish(task, len(tasks))

    def _embed(self, tasks: list[Task]) -> None:
        """Set the outcomes of some tasks. With TTA, each photo's views make batches of their own."""
        if self._with_tta:
            for task in tasks:
                assert task.prepared is not None
                [task.outcome] = self._model.embedder.embed(iter([task.prepared]))
            return
        photos = [task.prepared for task in tasks if task.prepared is not None]
        if not photos:
            return
        inputs = [pixels for photo in photos for pixels in photo.inputs]
        size = self._batches.size  # a photo of many cars may have more inputs than a batch holds
        batches = [np.stack(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        found = np.concatenate([self._runtime.run(batch) for batch in batches])
        start = 0
        for task, photo in zip(tasks, photos, strict=True):
            end = start + len(photo.inputs)
            task.outcome = embedded(photo, found[start:end], self._runtime.name)
            start = end

    def _finish(self, task: Task, batch: int = 0) -> None:
        """Send the answer and forget the task."""
        self._tasks.pop(task.job.id, None)
        job, outcome = task.job, task.outcome
        if outcome is None:
            self._reply(frame(WorkerResult(job.id)))
            return
        began = time.monotonic()
        try:
            prediction, probs = self._model.answer(job.name, outcome, job.options.top)
        except Exception as error:
            self._report()
            outcome = _fault(error)
            prediction, probs = self._model.answer(job.name, outcome)
        if isinstance(outcome, EmbeddedPhoto):
            task.spans["classify"] = (began, time.monotonic())
            task.seconds["classify"] = _seconds(task.spans["classify"])
        # Arrays travel as raw bytes behind the message: in MessagePack they would be copied number by number.
        body = b"" if probs is None else np.ascontiguousarray(probs).tobytes()
        rest = outcome.embedding.tobytes() if job.options.embedding and isinstance(outcome, EmbeddedPhoto) else b""
        heat_map = self._heat_map(task) if prediction.failure is None else None
        now = time.monotonic()
        self._reply(
            frame(
                WorkerResult(
                    job.id,
                    prediction,
                    len(body),
                    heat_map,
                    prediction.failure is not None and prediction.failure.reason == "too slow",
                    task.seconds,
                    {stage: (now - start, now - end) for stage, (start, end) in task.spans.items()},
                    batch,
                ),
                body + rest,
            )
        )

    def _heat_map(self, task: Task) -> HeatMap | None:
        """The heat map that a task asks for; None where it cannot be drawn."""
        try:
            return self._draw(task)
        except Exception:
            self._report()
            return None

    def _draw(self, task: Task) -> HeatMap | None:
        """Draw the heat map of a car of a prepared photo; the photo is not decoded again."""
        if task.job.options.heatmap is None or task.job.options.heatmap >= task.cars:
            return None
        from nameplate.model.cam import explain_mapped, explainable, map_prepared
        from nameplate.report.explanation import heat_json

        if self._cam_runtime is None or not explainable(self._model) or task.prepared is None or task.shown is None:
            return None
        cars = (task.prepared.car, *task.prepared.others)
        alone = replace(task.prepared, car=cars[task.job.options.heatmap], others=())
        [mapped] = map_prepared(self._model, iter([alone]), self._cam_runtime)
        if isinstance(mapped, UnreadablePhoto):
            return None
        return heat_json(explain_mapped(self._model, mapped, task.shown), self._model.bundle.manifest.preprocess)

    @cached_property
    def _cam_runtime(self) -> OnnxRuntime | None:
        """The backbone with its feature maps, opened at the first heat map; None if the backbone exports none."""
        # Heat maps come from ONNX Runtime whatever answers, since `OpenVino` gives no maps.
        runtime = OnnxRuntime(self._model.bundle.backbone, 1, maps=True)
        return runtime if runtime.has_maps else None


def _seconds(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _fault(error: Exception) -> UnreadablePhoto:
    """The outcome of a photo that shows a fault in Nameplate."""
    return UnreadablePhoto(
        Failure("not computed", f"a fault in Nameplate, which the log shows: {type(error).__name__}")
    )


def _open(setup: Setup, backbone: bytes) -> tuple[OnnxRuntime | OpenVino, int]:
    """Open the runtime and choose the batch size. The answers do not depend on the choice, bit by bit (see the tests).

    ONNX Runtime is faster with one batch per thread than with one batch over all threads. OpenVINO's batches have a
    fixed shape: with batches of one it answers single photos eight times as fast, and loses no throughput
    (docs/benchmarks.md).
    """
    if setup.runtime in ("auto", "onnxruntime"):
        return make_runtime("onnxruntime", backbone, 1), BATCH
    if setup.runtime in ON_DEVICE.values():  # a GPU is fast for full batches
        return make_runtime(setup.runtime, backbone, 1), BATCH
    return make_runtime(setup.runtime, backbone, setup.threads, 1), 1


def main() -> None:
    """Serve the socket whose number is the first argument, until the service closes it."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to the whole group, but the service decides
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

    os.nice(NICE)  # before any thread starts, since each thread has a niceness of its own on Linux
    first = receive()
    setup = None if first is None else for_worker(first[0])
    if not isinstance(setup, Setup):
        return
    with one_blas_thread():  # here, for all threads of the process
        try:
            worker = Worker(setup, reply)
            reply(frame(worker.warm_up()))
        except NameplateError as error:
            reply(frame(Failed(str(error))))
            sys.exit(1)
        except Exception as error:
            reply(frame(Fault(traceback.format_exc())))
            reply(frame(Failed(f"A fault in Nameplate, which the log shows: {type(error).__name__}.")))
            sys.exit(1)
        with suppress(OSError):  # the service has ended
            worker.run(receive)
    os._exit(0)  # does not wait for threads that still decode


def _exactly(connection: socket.socket, length: int) -> bytes | None:
    """Receive exactly `length` bytes; None if the other side has closed the socket."""
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
