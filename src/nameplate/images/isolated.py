"""Photos that may take long, read in processes of their own: a C decoder cannot be interrupted, a process be killed.

A process is started when the first such photo comes, and kept for the next ones; killed, it is replaced.
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

# JOINED `main`: a process that reads photos for another one, which may kill it at any time.
#
# JOINED An order comes on stdin: two lengths, JSON, and the photo's file; the reply goes to stdout the same way, with the
# JOINED pixels for a body. It ends when its stdin does, and by itself where its parent was killed while it decoded.


LENGTHS = struct.Struct("<QQ")
"""Bytes of the JSON and of the body."""
READY = b"\n"
GRACE = 5.0
"""Seconds beyond an order's own after which the process ends itself."""
SPARE = 256 * 1024 * 1024
"""Bytes beyond half as much again as an order may take: libraries map more than they use."""
STACK = 8 * 1024 * 1024
"""Bytes that a decoder's thread maps; it may start one a processor."""


def main() -> None:
    """Read one photo after another until stdin ends."""
    with suppress(AttributeError, ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group; the parent decides
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # the parent has counted them
    config, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    replies.write(READY)
    replies.flush()
    while lengths := config.read(LENGTHS.size):
        head, body = LENGTHS.unpack(lengths)
        order = json.loads(config.read(head))
        _limit(order["seconds"] + GRACE, order["memory"])
        _answer(order, config.read(body), replies)
        _limit(0, None)


def _answer(order: dict[str, Any], data: bytes, replies: BinaryIO) -> None:
    pixels = np.empty(0, np.uint8)
    reply: dict[str, object]
    try:
        if order["task"] == "header":
            header = read_pillow_header(data, order["format"])
            reply = {name: getattr(header, name) for name in ("format", "width", "height", "orientation", "icc")}
        else:
            pixels = _pixels(order, data)
            reply = {"shape": pixels.shape}
    except PhotoError as error:
        reply = {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        reply = {"reason": "too large", "detail": "there is not enough memory to decode it"}
    head = json.dumps(reply).encode()
    replies.write(LENGTHS.pack(len(head), pixels.nbytes) + head)
    replies.write(pixels.data)
    replies.flush()


def _pixels(order: dict[str, Any], data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if order["format"] == "JPEG":
        return decode_jpeg(data, order["height"], order["width"], order["orientation"])
    return decode_with_pillow(data, order["format"], order["orientation"])


def _limit(seconds: float, memory: int | None) -> None:
    """End this process after so many seconds (0: never), and let it take no more than so many bytes; where the
    system can.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    with suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        now = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        room = 0 if memory is None else now + memory * 3 // 2 + SPARE + STACK * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_DATA, (hard if memory is None else room, hard))


if __name__ == "__main__":
    main()
    sys.exit(0)


PIECE = 1 << 20
"""Bytes that go through a pipe at once."""


@dataclass(slots=True, eq=False)
class _Reader:
    """A process that reads photos."""

    process: subprocess.Popen[bytes]
    late: bool = False
    """Whether it was killed for its time."""

    def send(self, *parts: bytes) -> None:
        """Write to it."""
        if self.process.stdin is not None:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[self.process.stdin.write(view[:PIECE]) :]

    def fill(self, room: memoryview) -> None:
        """Read from it; raises EOFError where it ended."""
        while room:
            count = self.process.stdout.readinto(room[:PIECE]) if self.process.stdout else 0  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            room = room[count:]

    def receive(self, length: int) -> bytes:
        """Read so many bytes; raises EOFError where it ended."""
        room = bytearray(length)
        self.fill(memoryview(room))
        return bytes(room)

    def give_up(self) -> None:
        """Kill it for its time."""
        self.late = True
        self.process.kill()

    def end(self) -> None:
        """Kill it and let nothing remain."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


_lock = threading.Lock()
_idle: list[_Reader] = []
_busy: dict[int, _Reader] = {}
"""Thread → the process that it waits for."""


def header_apart(data: bytes, format_: str, limits: Limits) -> Header:
    """`read_pillow_header` in another process.

    Raises:
        PhotoError: as there, or it took too long.
    """
    reply, _ = _asked({"task": "header", "format": format_}, data, limits)
    return Header(**reply)


def pixels_apart(data: bytes, header: Header, size: tuple[int, int], limits: Limits) -> NDArray[np.uint8]:
    """The pixels of a photo, uint8 H×W×3, upright, decoded in another process at `size` (height, width).

    Raises:
        PhotoError: as in this process, or it took too long or too much memory.
    """
    order = {"format": header.format, "height": size[0], "width": size[1], "orientation": header.orientation}
    reply, pixels = _asked({"task": "pixels", **order}, data, limits)
    return pixels.reshape(reply["shape"])


def end_readers(threads: Iterable[int] | None = None) -> None:
    """Kill the processes that some threads (by their identifiers) wait for, or all: their photos are then "too slow".

    For a job that is interrupted: its threads are free at once.
    """
    with _lock:
        chosen = [_busy[thread] for thread in (list(_busy) if threads is None else threads) if thread in _busy]
    for reader in chosen:
        reader.give_up()


def _asked(order: dict[str, object], data: bytes, limits: Limits) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    order |= {"seconds": limits.seconds, "memory": limits.memory}
    reader = _taken()
    timer = threading.Timer(limits.seconds, reader.give_up)
    timer.daemon = True
    sound = False
    try:
        timer.start()
        reply, pixels = _exchange(reader, json.dumps(order).encode(), data, 3 * limits.pixels)
        sound = True
    except (EOFError, OSError):
        raise _broken(reader, limits) from None
    finally:
        timer.cancel()
        _give_back(reader, sound=sound and not reader.late)
    if "reason" in reply:
        raise PhotoError(reply["reason"], reply["detail"])
    return reply, pixels


def _exchange(reader: _Reader, order: bytes, data: bytes, most: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    reader.send(LENGTHS.pack(len(order), len(data)), order, data)
    head, body = LENGTHS.unpack(reader.receive(LENGTHS.size))
    reply: dict[str, Any] = json.loads(reader.receive(head))
    if body > most:  # it was taken over
        raise EOFError
    pixels = np.empty(body, np.uint8)
    reader.fill(pixels.data)
    return reply, pixels


def _broken(reader: _Reader, limits: Limits) -> PhotoError:
    """Why a process ended before it replied."""
    if reader.late:
        return PhotoError("too slow", f"not decoded within {limits.seconds:g} s")
    with suppress(subprocess.TimeoutExpired):
        reader.process.wait(1)
    code = reader.process.returncode
    if code == -9:  # the system kills what takes its last memory
        return PhotoError("too large", "its decoder was killed, as happens where memory ends")
    return PhotoError("damaged", f"its decoder broke down ({code})")


def _taken() -> _Reader:
    """An idle process, or a new one."""
    with _lock:
        reader = _idle.pop() if _idle else None
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
        if sound and len(_idle) < (os.cpu_count() or 1):
            _idle.append(reader)
            return
    reader.end()


def _started() -> _Reader:
    try:
        process = subprocess.Popen(
            # not -m: it warns that the package has imported the module already, and warnings may be errors
            [sys.executable, "-P", "-W", "ignore", "-c", "from nameplate.images.isolated import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
    except OSError as error:
        raise PhotoError("too slow", f"a process to decode it in cannot be started: {error}") from None
    reader = _Reader(process)
    try:
        reader.receive(len(READY))
    except (EOFError, OSError):
        reader.end()
        raise PhotoError("too slow", "a process to decode it in ended before it began") from None
    except BaseException:  # an interrupt
        reader.end()
        raise
    return reader


def _forget() -> None:
    """After a fork: the processes are the parent's."""
    global _lock
    _lock = threading.Lock()
    for reader in (*_idle, *_busy.values()):
        reader.process.returncode = 0
    _idle.clear()
    _busy.clear()


def _end_all() -> None:
    for reader in (*_idle, *_busy.values()):
        reader.end()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
