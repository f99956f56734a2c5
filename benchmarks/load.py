"""Sends photos to a server over HTTP and times the answers: a process of its own, and light, so as to disturb little.

    python benchmarks/load.py 127.0.0.1:8000 PHOTOS -o OUT.json --clients 16 --seconds 20     # a closed loop
    python benchmarks/load.py 127.0.0.1:8000 PHOTOS -o OUT.json --rate 150 --seconds 20       # an open loop

In a closed loop each client sends its next request when the last is answered. In an open loop requests arrive by a
Poisson process whatever the server does, and a latency counts from when its request was to arrive, not from when it
could be sent: a server that stalls is charged for all who would have come meanwhile ("coordinated omission", Gil Tene,
How NOT to Measure Latency, 2013; Schroeder, Wierman and Harchol-Balter, Open Versus Closed, NSDI 2006).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

BOUNDARY = "nameplate-benchmark"
PATIENCE = 120.0
"""Seconds after which an answer counts as lost."""
PAUSE = 0.01
"""Seconds between the requests that look for the end of an overload."""


@dataclass
class Log:
    """What was answered: lists of one length, a place for each request."""

    latencies: list[float] = field(default_factory=list)
    """Seconds."""
    statuses: list[int] = field(default_factory=list)
    """0 where the connection broke or no answer came."""
    ended: list[float] = field(default_factory=list)
    """Seconds since the start."""
    answers: dict[int, str] = field(default_factory=dict)
    """Photo's place → the first answer with status 200."""


class Connections:
    """Connections that are kept alive, as many as are in use at once."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 where the connection broke."""
        try:
            return await asyncio.wait_for(self._send(request), PATIENCE)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            return 0, b""

    async def _send(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head:
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), body


def request(address: str, path: str, photos: list[Path]) -> bytes:
    """A POST of photos as a form, ready to send."""
    parts = []
    for photo in photos:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photos"; filename="{photo.name}"\r\n'
        parts += [head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo.read_bytes(), b"\r\n"]
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def closed(once: Callable[[float], Awaitable[int]], clients: int, seconds: float) -> None:
    """`clients` loops, each with one request under way."""
    start = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - start < seconds:
            await once(time.perf_counter())

    await asyncio.gather(*(client() for _ in range(clients)))


async def opened(once: Callable[[float], Awaitable[int]], rate: float, seconds: float, seed: int) -> None:
    """Poisson arrivals, `rate` a second on average."""
    draw, due = random.Random(seed), time.perf_counter()  # noqa: S311 - no secret
    end = due + seconds
    under_way: set[asyncio.Task[int]] = set()
    while (due := due + draw.expovariate(rate)) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.ensure_future(once(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """All of it; what is to be written."""
    host, _, port = arguments.address.partition(":")
    photos = [Path(line) for line in arguments.photos.read_text("utf-8").splitlines()]
    groups = [photos[at : at + arguments.group] for at in range(0, len(photos), arguments.group)]
    requests = [request(arguments.address, arguments.path, group) for group in groups]
    connections, log, turn = Connections(host, int(port)), Log(), iter(range(1 << 60))
    start = time.perf_counter()

    async def once(due: float) -> int:
        place = next(turn) % len(requests)
        status, body = await connections.send(requests[place])
        now = time.perf_counter()
        log.latencies.append(now - due)
        log.statuses.append(status)
        log.ended.append(now - start)
        if status == 200 and place not in log.answers:
            log.answers[place] = body.decode()
        return status

    used = resource.getrusage(resource.RUSAGE_SELF)
    if arguments.rate:
        overload = asyncio.ensure_future(opened(once, arguments.rate, arguments.seconds, arguments.seed))
        recovered = await recovery(connections, requests, arguments) if arguments.normal else None
        await overload
    else:
        await closed(once, arguments.clients, arguments.seconds)
        recovered = None
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "recovered_seconds": recovered,
        "latencies": log.latencies,
        "statuses": log.statuses,
        "ended": log.ended,
        "groups": [[str(photo) for photo in group] for group in groups],
        "answers": {str(place): answer for place, answer in log.answers.items()},
    }


async def recovery(connections: Connections, requests: list[bytes], arguments: argparse.Namespace) -> float | None:
    """Seconds from the last arrival until a request takes no more than `arguments.normal`; None: not in a minute."""
    await asyncio.sleep(arguments.seconds)
    end = time.perf_counter()
    while (sent := time.perf_counter()) < end + 60:
        status, _ = await connections.send(requests[0])
        now = time.perf_counter()
        if status == 200 and now - sent <= arguments.normal:
            return now - end
        await asyncio.sleep(PAUSE)
    return None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("address", help="host:port")
    parser.add_argument("photos", type=Path, help="a file with a photo's path a line")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--path", default="/v1/identify")
    parser.add_argument("--group", type=int, default=1, help="photos a request")
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop")
    parser.add_argument("--rate", type=float, help="requests a second: an open loop")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--normal", type=float, help="seconds of a normal answer: also time the recovery")
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    arguments.output.write_text(json.dumps(asyncio.run(run(arguments))), "utf-8")


if __name__ == "__main__":
    main()
