"""`Worker`: one worker process as the service sees it: started, fed, listened to, and ended."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.errors import NameplateError
from nameplate.serving.wire import LENGTHS, Cancel, Done, Failed, Frame, Job, Ready, Setup, for_service, frame

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

    def give(self, job: Job, photo: bytes) -> None:
        """Send a job."""
        if not self.jobs:
            self.heard = time.monotonic()
        self.jobs.add(job.id)
        self._send(frame(job, photo))

    def cancel(self, ids: tuple[int, ...]) -> None:
        """Say that nobody waits for these any more."""
        self._send(frame(Cancel(ids)))

    async def listen(self, done: Callable[[Done, bytes], None]) -> None:
        """Hand on what it sends, until it ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message, body = await self._receive()
                self.heard = time.monotonic()
                if isinstance(message, Done):
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

    async def end(self, patience: float = 0.0) -> int:
        """End it, in peace if it goes within `patience` seconds; its exit code."""
        self.leaving = True
        self.writer.close()
        with suppress(TimeoutError, ProcessLookupError):
            async with asyncio.timeout(patience):
                return await self.process.wait()
        with suppress(ProcessLookupError):
            self.process.kill()
        return await self.process.wait()

    def _send(self, message: Frame) -> None:
        self.writer.writelines(message.parts)

    async def _receive(self) -> tuple[Ready | Failed | Done, bytes]:
        head, body = LENGTHS.unpack(await self.reader.readexactly(LENGTHS.size))
        return for_service(await self.reader.readexactly(head)), await self.reader.readexactly(body)


async def start_worker(setup: Setup) -> Worker:
    """Start a process and tell it what to serve; it is not warm yet."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "nameplate.serving.worker", str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.writelines(frame(setup).parts)
    return Worker(process, reader, writer)
