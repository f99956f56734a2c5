"""What the service and its workers tell each other: frames over a socket pair.

A frame is two lengths (big-endian uint32), a head in MessagePack, and a body of bytes as they are.
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
from numpy.typing import NDArray

from nameplate.errors import Failure, NameplateError
from nameplate.model.verification import HeatMap
from nameplate.types import TOP, Limits, Prediction

LENGTHS = struct.Struct(">II")


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first frame that a worker gets: what it serves, and how."""

    bundle: str
    """The bundle's folder."""
    runtime: str
    threads: int
    limits: Limits
    tta: str
    batch_wait: float
    """Seconds that a picture may wait for others."""


class WorkerJob(msgspec.Struct, tag=True, frozen=True):
    """One photo to name; its file is the frame's body."""

    id: int
    name: str
    """What the answer calls the photo."""
    seconds: float
    """Time left; what is late is dropped before it is decoded or embedded."""
    form: Literal["file", "picture"] = "file"
    """A photo's file, or the model's picture, uint8 H×W×3, prepared already."""
    top: int = TOP
    heatmap: bool = False
    embedding: bool = False
    """Whether the answer holds the embedding too."""


class Cancel(msgspec.Struct, tag=True, frozen=True):
    """Nobody waits for these jobs any more."""

    ids: tuple[int, ...]


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker is warm."""

    runtime: str
    """What runs the backbone."""
    golden: Prediction
    """What it says of the golden photo."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker cannot serve this bundle, and ends."""

    reason: str


class WorkerResult(msgspec.Struct, tag=True, frozen=True):
    """What became of a job; the frame's body holds the probabilities and then the embedding, float32."""

    id: int
    prediction: Prediction | None = None
    """None where it was dropped, cancelled or late."""
    probs: int = 0
    """Bytes of the probabilities."""
    heatmap: HeatMap | None = None
    stale: bool = False
    """Whether a decoder that took too long is still at work: the worker should be replaced."""
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    """Time to `decode`, to `wait` for the runtime, and to `embed` the batch."""
    batch: int = 0
    """Photos in its batch."""


ToWorker = Setup | WorkerJob | Cancel
ToService = Ready | Failed | WorkerResult


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it goes over the wire."""

    head: bytes
    body: bytes = b""

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """What to write, one after the other."""
        return LENGTHS.pack(len(self.head), len(self.body)), self.head, self.body


def frame(message: ToWorker | ToService, body: bytes = b"") -> Frame:
    """A message ready to send."""
    return Frame(msgspec.msgpack.encode(message), body)


_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_service: msgspec.msgpack.Decoder[ToService] = msgspec.msgpack.Decoder(ToService)


def for_worker(head: bytes) -> ToWorker:
    """A frame's head, as a worker reads it."""
    return _to_worker.decode(head)


def for_service(head: bytes) -> ToService:
    """A frame's head, as the service reads it."""
    return _to_service.decode(head)


# JOINED `Worker`: one worker process as the service sees it: started, fed, listened to, and ended.


START_SECONDS = 120.0
"""A worker that is not warm after so long is given up."""
CLOGGED_BYTES = 8 * 1024 * 1024
"""With so many bytes on their way to a worker it is given no more, so that few copies of photos are in memory."""


@dataclass(slots=True)
class Worker:
    """A running worker process."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: Ready | None = None
    jobs: set[int] = field(default_factory=set)
    """Those under way here."""
    heard: float = field(default_factory=time.monotonic)
    """When it last sent something, or was given work while it had none."""
    leaving: bool = False
    """Whether it gets no more jobs."""
    killed: bool = False
    """Whether `kill` was called; the process may take a moment to end."""

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def memory(self) -> int:
        """Resident bytes, 0 where the system does not say."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    @property
    def clogged(self) -> bool:
        """Whether photos that it was given are still on their way to it."""
        return self.writer.transport.get_write_buffer_size() > CLOGGED_BYTES

    def give(self, job: WorkerJob, photo: bytes) -> None:
        """Send a job."""
        if not self.jobs:
            self.heard = time.monotonic()
        self.jobs.add(job.id)
        self._send(frame(job, photo))

    def cancel(self, ids: tuple[int, ...]) -> None:
        """Say that nobody waits for these any more."""
        self._send(frame(Cancel(ids)))

    async def listen(self, done: Callable[[WorkerResult, bytes], None]) -> None:
        """Hand on what it sends, until it ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message, body = await self._receive()
                self.heard = time.monotonic()
                if isinstance(message, WorkerResult):
                    self.jobs.discard(message.id)
                    done(message, body)

    async def warm(self) -> Ready:
        """Wait until it is warm.

        Raises:
            NameplateError: it cannot serve the bundle, or ended.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                message, _ = await self._receive()
        except TimeoutError:
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
        """End it, in peace if it goes within `patience` seconds; its exit code."""
        self.leaving = True
        self.writer.close()
        with suppress(TimeoutError, ProcessLookupError):
            async with asyncio.timeout(patience):
                return await self.process.wait()
        self.kill()
        return await self.process.wait()

    def _send(self, message: Frame) -> None:
        self.writer.writelines(message.parts)

    async def _receive(self) -> tuple[Ready | Failed | WorkerResult, bytes]:
        head, body = LENGTHS.unpack(await self.reader.readexactly(LENGTHS.size))
        return for_service(await self.reader.readexactly(head)), await self.reader.readexactly(body)


async def start_worker(setup: Setup) -> Worker:
    """Start a process and tell it what to serve; it is not warm yet."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "nameplate.serve.worker", str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.writelines(frame(setup).parts)
    return Worker(process, reader, writer)


# JOINED What the service knows of a photo: while it waits, and when it is answered.


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """What the service knows of one photo."""

    prediction: Prediction
    probs: NDArray[np.float32] | None = None
    """Probabilities of all nameplates, (C,); None where the photo is unreadable."""
    embedding: NDArray[np.float32] | None = None
    """(D,), where it was asked for."""
    heatmap: HeatMap | None = None


@dataclass(slots=True)
class Waiting:
    """A job until it is answered."""

    job: WorkerJob
    photo: bytes
    until: float
    """When it is late, on the monotonic clock."""
    answer: asyncio.Future[ServedAnswer]
    worker: Worker | None = None
    """Who has it; None while it waits."""
    tries: int = 0


def read_answer(done: WorkerResult, body: bytes) -> ServedAnswer:
    """A worker's answer, its numbers read off the frame."""
    assert done.prediction is not None
    probs = np.frombuffer(body[: done.probs], np.float32) if done.probs else None
    rest = body[done.probs :]
    return ServedAnswer(done.prediction, probs, np.frombuffer(rest, np.float32) if rest else None, done.heatmap)


def late(waiting: Waiting) -> ServedAnswer:
    """The answer to a job that waited until its time was over."""
    return ServedAnswer(Prediction(waiting.job.name, failure=Failure("too slow", "its turn did not come in time")))
