"""Inter-process communication between the service and its workers: frames over a socket pair.

A frame is two lengths (big-endian uint32), a head in MessagePack, and a body of raw bytes. `WorkerProcess` is a worker
process as the service sees it: started, fed, listened to and ended. The worker's own side is `worker.py`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from nameplate.defaults import TOP
from nameplate.errors import Failure, NameplateError
from nameplate.model.verification import HeatMap
from nameplate.serve.tracing import Times
from nameplate.types import Cars, Floats, Limits, Prediction

LENGTHS = struct.Struct(">II")


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first frame that a worker gets: which bundle it serves, and how."""

    bundle: str
    """The bundle's folder."""
    runtime: str
    threads: int
    limits: Limits
    tta: str
    cars: Cars
    """Which cars of a photo are named, unless a job says it."""
    batch_wait: float
    """Seconds that a prepared photo may wait for others to fill its batch."""


class JobOptions(msgspec.Struct, frozen=True):
    """How a photo is to be answered."""

    form: Literal["file", "input"] = "file"
    """What the body is: a photo's file, or an already prepared model input, uint8 H×W×3."""
    top: int = TOP
    """How many nameplates the answer lists."""
    heatmap: int | None = None
    """Number of the car whose heat map is drawn, 0 for the main one; None draws none."""
    embedding: bool = False
    """Whether the answer must hold the embedding too."""
    cars: Cars | None = None
    """Which cars of the photo are named; None: as `Setup` says."""


USUAL = JobOptions()


class WorkerJob(msgspec.Struct, tag=True, frozen=True):
    """One photo to identify; the photo itself is the frame's body."""

    id: int
    name: str
    """The photo's name in the answer."""
    seconds: float
    """Time left. A job that is late is dropped before it is decoded or embedded."""
    options: JobOptions = USUAL
    client: str = ""
    """Whose photo it is (`access.Client.share`)."""


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Tells a worker that nobody waits for these jobs any more."""

    ids: tuple[int, ...]


class Ready(msgspec.Struct, tag=True, frozen=True):
    """Tells the service that the worker is warm."""

    runtime: str
    """The runtime that runs the backbone."""
    reference: Prediction
    """The worker's prediction for the reference image."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """Tells the service that the worker cannot serve this bundle and ends."""

    reason: str


class Slow(msgspec.Struct, tag=True, frozen=True):
    """Tells the service that this job's photo may take seconds to decode. It waits for others like it, and the worker
    takes as many quick ones as if it did not have this one.
    """

    id: int


class Fault(msgspec.Struct, tag=True, frozen=True):
    """Tells the service of an exception that nobody foresaw, for its log."""

    traceback: str


class WorkerResult(msgspec.Struct, tag=True, frozen=True):
    """The outcome of a job. The frame's body holds the probabilities, (C,), then the embedding, (D,), both float32."""

    id: int
    prediction: Prediction | None = None
    """None if the job was dropped because it was cancelled or late."""
    probs: int = 0
    """Bytes of the probabilities within the body."""
    heatmap: HeatMap | None = None
    stale: bool = False
    """Whether a decoder that exceeded its time limit is still running. Threads cannot be stopped, so the worker should
    be replaced."""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds to `decode`, to `locate` cars where they are sought, to `wait` for the runtime, to `embed` the batch, and
    to `classify`."""
    spans: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    """Stage (`tracing.STAGES`) → how many seconds before this message it began, and ended."""
    batch: int = 0
    """Photos in the job's batch."""


ToWorker = Setup | WorkerJob | Cancel
ToService = Ready | Failed | Slow | Fault | WorkerResult


@dataclass(frozen=True, slots=True)
class Frame:
    """A message encoded for the socket."""

    head: bytes
    body: bytes = b""

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """The byte strings to write, in order."""
        return LENGTHS.pack(len(self.head), len(self.body)), self.head, self.body


def frame(message: ToWorker | ToService, body: bytes = b"") -> Frame:
    """Encode a message."""
    return Frame(msgspec.msgpack.encode(message), body)


_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)


def for_worker(head: bytes) -> ToWorker:
    """Decode a frame's head that was sent to a worker."""
    return _to_worker.decode(head)


def for_service(head: bytes) -> ToService:
    """Decode a frame's head that was sent to the service."""
    return _to_service.decode(head)


# A worker process as the service sees it.

START_SECONDS = 120.0
"""A worker that is not warm after this time is given up."""
CLOGGED_BYTES = 8 * 1024 * 1024
"""While this many bytes are unsent, a worker gets no further photos, so that few copies of photos are in memory."""


@dataclass(slots=True)
class WorkerProcess:
    """A running worker process."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    fault: Callable[[int, str], None]
    """Is called with its process id and the traceback of an exception."""
    ready: Ready | None = None
    jobs: set[int] = field(default_factory=set)
    """Ids of the jobs that it was given and has not answered."""
    slow: set[int] = field(default_factory=set)
    """Those of them whose photos take seconds to decode."""
    last_heard: float = field(default_factory=time.monotonic)
    """When it last sent something, or was given work while it had none (monotonic clock)."""
    leaving: bool = False
    """Whether it gets no more jobs."""
    killed: bool = False
    """Whether `kill` was called; the process may take a moment to end."""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def quick(self) -> int:
        """How many of its jobs are not slow."""
        return len(self.jobs) - len(self.slow)

    @property
    def memory(self) -> int:
        """Resident memory in bytes; 0 on systems without /proc."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    @property
    def clogged(self) -> bool:
        """Whether too many bytes of the photos that it was given are still unsent."""
        return self.writer.transport.get_write_buffer_size() > CLOGGED_BYTES

    def give(self, job: WorkerJob, photo: bytes) -> None:
        """Send a job with its photo."""
        if not self.jobs:  # an idle worker is silent: the time in which it must answer starts now
            self.last_heard = time.monotonic()
        self.jobs.add(job.id)
        self._send(frame(job, photo))

    def cancel(self, ids: tuple[int, ...]) -> None:
        """Tell the worker that nobody waits for these jobs any more."""
        self._send(frame(Cancel(ids)))

    async def listen(self, done: Callable[[WorkerResult, bytes], None], slow: Callable[[int], None]) -> None:
        """Pass the worker's results to `done` until its socket closes; to `slow` ids of slow photos."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message, body = await self._receive()
                self.last_heard = time.monotonic()
                if isinstance(message, WorkerResult):
                    self.jobs.discard(message.id)
                    self.slow.discard(message.id)
                    done(message, body)
                elif isinstance(message, Slow):
                    self.slow.add(message.id)
                    slow(message.id)

    async def warm(self) -> Ready:
        """Wait until the worker is warm.

        Raises:
            NameplateError: the worker cannot serve the bundle, ended, or was not ready in `START_SECONDS`.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                message, _ = await self._receive()
        except TimeoutError:  # the caller ends the process
            raise NameplateError(f"A worker was not ready after {START_SECONDS:.0f} s.") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self.process.wait()
            raise NameplateError(f"A worker ended with {code} before it was ready; it says why above.") from None
        if isinstance(message, Failed):
            raise NameplateError(message.reason)
        if not isinstance(message, Ready):
            raise NameplateError(f"A worker began with {type(message).__name__}.")
        self.ready = message
        return message

    def kill(self) -> None:
        """Kill the process; `listen` ends soon afterwards."""
        self.killed = self.leaving = True
        with suppress(ProcessLookupError):  # it has just ended by itself
            self.process.kill()

    async def end(self, patience: float = 0.0) -> int:
        """Close the socket, at which the worker ends by itself; kill it after `patience` seconds.

        Returns:
            Its exit code.
        """
        self.leaving = True
        self.writer.close()  # the worker reads the end of the stream, and ends
        with suppress(TimeoutError, ProcessLookupError):
            async with asyncio.timeout(patience):
                return await self.process.wait()
        self.kill()
        return await self.process.wait()

    def _send(self, message: Frame) -> None:
        self.writer.writelines(message.parts)

    async def _receive(self) -> tuple[ToService, bytes]:
        while True:
            head, length = LENGTHS.unpack(await self.reader.readexactly(LENGTHS.size))
            message, body = for_service(await self.reader.readexactly(head)), await self.reader.readexactly(length)
            if not isinstance(message, Fault):
                return message, body
            self.fault(self.pid, message.traceback)


async def start_worker(setup: Setup, fault: Callable[[int, str], None]) -> WorkerProcess:
    """Start a worker process and send it its setup; it is not warm yet. `fault`: see `WorkerProcess`."""
    # A socket pair and not pipes: it is one file descriptor for the child, and closing it ends the worker.
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        # -P: modules in the current folder must not shadow installed ones.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "nameplate.serve.worker", str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.writelines(frame(setup).parts)
    return WorkerProcess(process, reader, writer, fault)


# A job while it waits, and its answer.


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """A worker's answer for one photo."""

    prediction: Prediction
    probs: Floats | None = None
    """Probabilities of all nameplates, (C,); None if the photo is unreadable."""
    embedding: Floats | None = None
    """The embedding, (D,), if it was asked for."""
    heatmap: HeatMap | None = None


@dataclass(slots=True)
class Waiting:
    """A job that is not answered yet."""

    job: WorkerJob
    photo: bytes
    until: float
    """The deadline, on the monotonic clock."""
    answer: asyncio.Future[ServedAnswer]
    worker: WorkerProcess | None = None
    """The worker that has it; None while it is in the queue."""
    tries: int = 0
    """How many workers it was given to. A photo whose worker died is tried once more, alone."""
    slow: bool = False
    """Whether a worker has said that the photo takes long to decode."""
    times: Times = field(default_factory=Times)


def read_answer(done: WorkerResult, body: bytes) -> ServedAnswer:
    """Make an answer of a worker's result and the arrays in its frame's body."""
    assert done.prediction is not None
    probs = np.frombuffer(body[: done.probs], np.float32) if done.probs else None
    rest = body[done.probs :]
    return ServedAnswer(done.prediction, probs, np.frombuffer(rest, np.float32) if rest else None, done.heatmap)


LATE = Failure("too slow", "its turn did not come in time")


def late(waiting: Waiting) -> ServedAnswer:
    """Make the answer for a job whose deadline passed before its turn came."""
    return ServedAnswer(Prediction(waiting.job.name, failure=LATE))
