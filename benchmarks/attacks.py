"""What hostile clients send to an HTTP server that takes photos, over raw sockets, each bounded in bytes and time.

`tests/serve/test_abuse.py` asserts what `nameplate serve` does about them, and `abuse.py` shows how servers fare.
"""

from __future__ import annotations

import io
import math
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial

from PIL import Image

CLOSED = (ConnectionResetError, BrokenPipeError)
"""What a client sees when the server has closed its connection."""
PIECE = 65536
BOUNDARY = b"attack"


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and who attacks it."""

    host: str
    port: int
    alive: str = "/health/live"
    """A path that answers GET."""
    photos: str = "/v1/identify"
    """The path that takes photos, as files `photos` of a form."""
    source: str = "127.0.0.1"
    """The address of the client, on this machine."""

    @property
    def get(self) -> bytes:
        """The begin of a head; a further line end completes it."""
        return f"GET {self.alive} HTTP/1.1\r\nHost: localhost\r\n".encode()


def connect(target: Target) -> socket.socket:
    """Open a connection; it waits for 20 seconds at most."""
    return socket.create_connection((target.host, target.port), timeout=20, source_address=(target.source, 0))


def flood(target: Target, first: bytes, more: bytes, limit: int, until: float = math.inf) -> tuple[int, bytes]:
    """Send `first`, and then `more` until the server closes the connection.

    Args:
        target: the server.
        first: what is sent once.
        more: what is sent again and again.
        limit: the bytes after which it is given up.
        until: when it is given up, on the monotonic clock.

    Returns:
        The bytes sent, and what the server answered.
    """
    sent, answer = len(first), b""
    with connect(target) as client:
        with suppress(*CLOSED, TimeoutError):
            client.sendall(first)
            while sent < limit and time.monotonic() < until:
                client.settimeout(max(0.1, min(20, until - time.monotonic())))
                client.sendall(more)
                sent += len(more)
        client.settimeout(max(0.1, min(20, until - time.monotonic())))
        with suppress(*CLOSED, TimeoutError):
            while piece := client.recv(PIECE):
                answer += piece
    return sent, answer


# Heads, trailers and pipelines: what `flood` sends.

Flood = tuple[bytes, bytes]
"""What is sent once, and what then without end."""


def endless_value(target: Target) -> Flood:
    """A header whose value never ends."""
    return target.get + b"X-Long: ", b"a" * PIECE


def endless_headers(target: Target) -> Flood:
    """Small headers without end."""
    return target.get, b"".join(b"X-%d: 1\r\n" % number for number in range(5000))


def endless_address(target: Target) -> Flood:
    """An address that never ends."""
    return f"GET {target.alive}?".encode(), b"a" * PIECE


def no_request(_: Target) -> Flood:
    """Bytes that are no HTTP."""
    return b"", b"\x00" * PIECE


def _chunked(target: Target) -> bytes:
    head = f"POST {target.photos} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"1\r\na\r\n0\r\n"


def endless_trailers(target: Target) -> Flood:
    """A body in chunks, followed by trailers without end."""
    return _chunked(target), b"X-Trailer: 1\r\n" * 4000


def endless_trailer(target: Target) -> Flood:
    """A body in chunks, followed by a trailer that never ends."""
    return _chunked(target), b"a" * PIECE


def pipelined(target: Target) -> Flood:
    """Requests in advance, for which no answer is awaited."""
    return b"", (target.get + b"\r\n") * 2000


def unwanted_body(target: Target) -> Flood:
    """A body for an address that does not exist."""
    return upload(target, 10**11, path="/v1/nothing"), b"a" * PIECE


def endless_upload(target: Target) -> Flood:
    """A photo that never ends."""
    return upload(target, 10**11), b"a" * PIECE


# Requests that bring photos.


def upload(target: Target, length: int, photo: bytes = b"", *, path: str = "") -> bytes:
    """The begin of a form with one photo.

    Args:
        target: the server.
        length: the bytes that its head states for the body.
        photo: the photo, or its begin.
        path: in place of the one that takes photos.
    """
    part = b'--%s\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\n\r\n' % BOUNDARY
    head = f"POST {path or target.photos} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=%s\r\n\r\n" % BOUNDARY
    return head.encode() + kind + part + photo


def whole(target: Target, photo: bytes) -> bytes:
    """A request that brings one photo."""
    end = b"\r\n--%s--\r\n" % BOUNDARY
    body = upload(target, 0, photo).partition(b"\r\n\r\n")[2] + end
    return upload(target, len(body), photo) + end


@cache
def giant() -> bytes:
    """A sound progressive JPEG of 119 megapixels, of some 3 MB."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((10_900, 10_900)).save(buffer, "JPEG", progressive=True, quality=50)
    return buffer.getvalue()


@cache
def bomb() -> bytes:
    """A sound PNG of 169 megapixels in some 20 KB: just below what Pillow refuses by default."""
    buffer = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, "PNG")
    return buffer.getvalue()


# Attacks that last: each goes on until a time on the monotonic clock.


def flooding(kind: Callable[[Target], Flood], target: Target, until: float) -> None:
    """One connection after another, each flooded with up to 1 GiB."""
    first, more = kind(target)
    while time.monotonic() < until:
        with suppress(OSError):
            flood(target, first, more, 2**30, until)


def holding(first: bytes, byte: bytes, count: int, target: Target, until: float) -> None:
    """Many connections that are left as they are, except for a byte a second; those that are closed are opened again.

    Args:
        first: what each sends at once.
        byte: what each sends every second; may be empty.
        count: how many there are.
        target: the server.
        until: when it ends.
    """
    held: list[socket.socket] = []
    with ExitStack() as stack:
        while (now := time.monotonic()) < until:
            with suppress(OSError):
                while len(held) < count and time.monotonic() < until:
                    held.append(stack.enter_context(connect(target)))
                    held[-1].settimeout(1)
                    held[-1].sendall(first)
            held = [each for each in held if _sent(each, byte)]
            time.sleep(max(0.0, min(now + 1, until) - time.monotonic()))


def _sent(client: socket.socket, data: bytes) -> bool:
    """Whether the connection is open, and took some bytes."""
    with suppress(OSError):
        readable = select.poll()
        readable.register(client, select.POLLIN)
        if not readable.poll(0):
            client.sendall(data)
            return True
    client.close()
    return False


def asking(photo: Callable[[], bytes], count: int, patience: float, target: Target, until: float) -> None:
    """Many connections, each of which sends a photo, waits for an answer, and sends the next on a new connection.

    Args:
        photo: makes the photo.
        count: how many there are.
        patience: seconds that each waits.
        target: the server.
        until: when it ends.
    """
    request = whole(target, photo())
    asked: dict[socket.socket, float] = {}
    while time.monotonic() < until:
        with suppress(OSError):
            while len(asked) < count:
                client = connect(target)
                asked[client] = time.monotonic() + patience
                client.sendall(request)
        ready, _, _ = select.select(asked, [], [], 0.02)
        over = [each for each, end in asked.items() if each in ready or end < time.monotonic()]
        for each in over:
            each.close()
            del asked[each]
    for each in asked:
        each.close()


Attack = Callable[[Target, float], None]


def attacks(target: Target, small: bytes) -> dict[str, Attack]:
    """All attacks by what they do.

    Args:
        target: the server, for whose paths heads are made.
        small: a photo as honest clients send it.
    """
    floods = {
        "a header's value without end": endless_value,
        "small headers without end": endless_headers,
        "an address without end": endless_address,
        "bytes that are no HTTP": no_request,
        "trailers without end": endless_trailers,
        "requests in advance without end": pipelined,
        "a body for an address that does not exist": unwanted_body,
        "a photo without end": endless_upload,
    }
    half = upload(target, 60 * 2**20, bytes(60 * 2**20 - 1000))
    found: dict[str, Attack] = {name: partial(flooding, kind) for name, kind in floods.items()}
    return found | {
        "2,000 idle connections": partial(holding, b"", b"", 2000),
        "500 heads of a byte a second": partial(holding, target.get + b"X-Slow: ", b"a", 500),
        "eight uploads of 60 MiB that stop": partial(holding, half, b"", 8),
        "64 photos at once, again and again": partial(asking, lambda: small, 64, 20.0),
        "64 photos at once, from clients that hang up": partial(asking, lambda: small, 64, 0.0),
        "eight progressive JPEGs of 119 megapixels": partial(asking, giant, 8, 20.0),
        "eight PNGs of 169 megapixels": partial(asking, bomb, 8, 20.0),
    }
