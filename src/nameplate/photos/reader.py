"""`main`: a process that reads photos for another one, which may kill it at any time.

An order comes on stdin: two lengths, JSON, and the photo's file; the reply goes to stdout the same way, with the
pixels for a body. It ends when its stdin does, and by itself where its parent was killed while it decoded.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from nameplate.errors import PhotoError
from nameplate.photos.jpeg import decode_jpeg
from nameplate.photos.others import decode_with_pillow, read_pillow_header

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
    orders, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    replies.write(READY)
    replies.flush()
    while lengths := orders.read(LENGTHS.size):
        head, body = LENGTHS.unpack(lengths)
        order = json.loads(orders.read(head))
        _limit(order["seconds"] + GRACE, order["memory"])
        _answer(order, orders.read(body), replies)
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
