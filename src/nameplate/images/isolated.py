"""Decoding of slow photos in child processes: a C decoder cannot be interrupted, but a process can be killed.

A process is started for the first such photo and kept for the next ones. A process that was killed is replaced.

Protocol: the parent writes a request to the child's stdin: two lengths, JSON, and the file of the photo. The reply
comes on stdout in the same form, with the pixels as its body. The child ends when its stdin ends. It also ends by
itself where the parent was killed while the child was decoding.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.images.header import Header
from nameplate.images.jpeg import decode_jpeg
from nameplate.images.pillow import decode_with_pillow, read_pillow_header
from nameplate.types import Limits

# The child process.

LENGTHS = struct.Struct("<QQ")
"""Lengths of the JSON and of the body, in bytes."""
READY = b"\n"
GRACE = 5.0
"""Seconds beyond the limit of a request after which the child ends itself, in case that its parent is gone."""
SPARE = 256 * 1024 * 1024
"""Bytes that a child may take beyond 1.5 times the limit of a request, since libraries map more than they use."""
STACK = 8 * 1024 * 1024
"""Bytes that one thread of a decoder maps. A decoder may start one thread for each processor."""


def main() -> None:
    """Decode one photo after another until stdin ends."""
    with suppress(AttributeError, ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # The parent has checked the limit.
    config, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What a library prints must not get into the replies.
    replies.write(READY)
    replies.flush()
    while lengths := config.read(LENGTHS.size):
        head, body = LENGTHS.unpack(lengths)
        request = json.loads(config.read(head))
        _limit(request["seconds"] + GRACE, request["memory"])
        _answer(request, config.read(body), replies)
        _limit(0, None)


def _answer(request: dict[str, Any], data: bytes, replies: BinaryIO) -> None:
    pixels = np.empty(0, np.uint8)
    reply: dict[str, object]
    try:
        if request["task"] == "header":
            header = read_pillow_header(data, request["format"])
            reply = {name: getattr(header, name) for name in ("format", "width", "height", "orientation", "icc")}
        else:
            pixels = _pixels(request, data)
            reply = {"shape": pixels.shape}
    except PhotoError as error:
        reply = {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        reply = {"reason": "too large", "detail": "there is not enough memory to decode it"}
    head = json.dumps(reply).encode()
    replies.write(LENGTHS.pack(len(head), pixels.nbytes) + head)
    replies.write(pixels.data)
    replies.flush()


def _pixels(request: dict[str, Any], data: bytes) -> NDArray[np.uint8]:
    if request["format"] == "JPEG":
        return decode_jpeg(data, request["height"], request["width"], request["orientation"])
    return decode_with_pillow(data, request["format"], request["orientation"])


def _limit(seconds: float, memory: int | None) -> None:
    """Limit the time and the memory of this process, where the system can.

    Args:
        seconds: after which the process is ended; 0 removes the limit.
        memory: bytes that a request may take; None removes the limit.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    with suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        # The limit counts everything that is mapped, so that what is mapped already is added.
        now = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        room = 0 if memory is None else now + memory * 3 // 2 + SPARE + STACK * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_DATA, (hard if memory is None else room, hard))


if __name__ == "__main__":
    main()
    sys.exit(0)


# The parent process.

PIECE = 1 << 20
"""Bytes that are written to or read from a pipe at once."""


@dataclass(slots=True, eq=False)
class _Reader:
    """A child process that decodes photos."""

    process: subprocess.Popen[bytes]
    late: bool = False
    """Whether it was killed because it took too long."""

    def send(self, *parts: bytes) -> None:
        """Write to the child."""
        if self.process.stdin is not None:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[self.process.stdin.write(view[:PIECE]) :]

    def fill(self, room: memoryview) -> None:
        """Read from the child into `room`; raises EOFError where the child has ended."""
        while room:
            count = self.process.stdout.readinto(room[:PIECE]) if self.process.stdout else 0  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            room = room[count:]

    def receive(self, length: int) -> bytes:
        """Read `length` bytes; raises EOFError where the child has ended."""
        room = bytearray(length)
        self.fill(memoryview(room))
        return bytes(room)

    def give_up(self) -> None:
        """Kill the child because it takes too long."""
        self.late = True
        self.process.kill()

    def end(self) -> None:
        """Kill the child, close its pipes and collect its exit status."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


_lock = threading.Lock()
idle: list[_Reader] = []
"""Child processes that wait for a photo."""
_busy: dict[int, _Reader] = {}
"""Identifier of a thread → the child process that the thread waits for."""


def header_apart(data: bytes, format_: str, limits: Limits) -> Header:
    """`read_pillow_header` in a child process.

    Raises:
        PhotoError: as `read_pillow_header` raises it, or the photo took too long.
    """
    reply, _ = _asked({"task": "header", "format": format_}, data, limits)
    return Header(**reply)


def pixels_apart(data: bytes, header: Header, size: tuple[int, int], limits: Limits) -> NDArray[np.uint8]:
    """Decode a photo to uint8 H×W×3, upright, in a child process at `size` (height, width).

    Raises:
        PhotoError: as in this process, or decoding took too long or too much memory.
    """
    request = {"format": header.format, "height": size[0], "width": size[1], "orientation": header.orientation}
    reply, pixels = _asked({"task": "pixels", **request}, data, limits)
    return pixels.reshape(reply["shape"])


def end_readers(threads: Iterable[int] | None = None) -> None:
    """Kill the child processes that some threads wait for, so that their photos are refused as "too slow".

    This frees the threads of an interrupted job at once.

    Args:
        threads: identifiers of the threads; None stands for all.
    """
    with _lock:
        chosen = [_busy[thread] for thread in (list(_busy) if threads is None else threads) if thread in _busy]
    for reader in chosen:
        reader.give_up()


def _asked(request: dict[str, object], data: bytes, limits: Limits) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    request |= {"seconds": limits.seconds, "memory": limits.memory}
    reader = _taken()
    timer = threading.Timer(limits.seconds, reader.give_up)
    timer.daemon = True
    sound = False
    try:
        timer.start()
        reply, pixels = _exchange(reader, json.dumps(request).encode(), data, 3 * limits.pixels)
        sound = True
    except (EOFError, OSError):
        raise _broken(reader, limits) from None
    finally:
        timer.cancel()
        _give_back(reader, sound=sound and not reader.late)
    if "reason" in reply:
        raise PhotoError(reply["reason"], reply["detail"])
    return reply, pixels


def _exchange(reader: _Reader, request: bytes, data: bytes, most: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    reader.send(LENGTHS.pack(len(request), len(data)), request, data)
    head, body = LENGTHS.unpack(reader.receive(LENGTHS.size))
    reply: dict[str, Any] = json.loads(reader.receive(head))
    if body > most:  # A photo has taken the child over: its reply is not believed.
        raise EOFError
    pixels = np.empty(body, np.uint8)
    reader.fill(pixels.data)
    return reply, pixels


def _broken(reader: _Reader, limits: Limits) -> PhotoError:
    """The error for a child that ended before it replied."""
    if reader.late:
        return PhotoError("too slow", f"not decoded within {limits.seconds:g} s")
    with suppress(subprocess.TimeoutExpired):
        reader.process.wait(1)
    code = reader.process.returncode
    if code == -9:  # The system kills a process when memory runs out.
        return PhotoError("too large", "its decoder was killed, as the system does when memory runs out")
    return PhotoError("damaged", f"its decoder crashed with the exit code {code}")


def _taken() -> _Reader:
    """An idle child process, or a new one; it is marked as busy for this thread."""
    with _lock:
        reader = idle.pop() if idle else None
    if reader is None or reader.process.poll() is not None:
        if reader is not None:
            reader.end()
        reader = _started()
    with _lock:
        _busy[threading.get_ident()] = reader
    return reader


def _give_back(reader: _Reader, *, sound: bool) -> None:
    with _lock:
        _busy.pop(threading.get_ident(), None)
        if sound and len(idle) < (os.cpu_count() or 1):
            idle.append(reader)
            return
    reader.end()


def _started() -> _Reader:
    try:
        process = subprocess.Popen(
            # Not by -m, which warns that the package has imported the module already, and warnings may be errors.
            [sys.executable, "-P", "-W", "ignore", "-c", "from nameplate.images.isolated import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
    except OSError as error:
        raise PhotoError("too slow", f"the process to decode it cannot be started: {error}") from None
    reader = _Reader(process)
    try:
        reader.receive(len(READY))
    except (EOFError, OSError):
        reader.end()
        raise PhotoError("too slow", "the process to decode it ended before it was ready") from None
    except BaseException:  # Ctrl-C
        reader.end()
        raise
    return reader


def _forget() -> None:
    """Forget all child processes after a fork, since they belong to the parent."""
    global _lock
    _lock = threading.Lock()
    for reader in (*idle, *_busy.values()):
        reader.process.returncode = 0
    idle.clear()
    _busy.clear()


def end_all() -> None:
    """End every child process."""
    for reader in (*idle, *_busy.values()):
        reader.end()


atexit.register(end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
