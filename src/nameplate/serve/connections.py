"""HTTP/1.1 within bounds: uvicorn's protocol, which takes heads, trailers, pipelines and refused bodies of any length.

A connection costs memory and time before any guard sees a request of it. So here: a head or trailers of at most
`HEAD_BYTES`, within `HEAD_SECONDS`; few requests in advance; a body that nobody reads any more ends its connection;
a connection beyond the cap displaces one that is idle, or may ask for the service's health alone; and an address that
leaves too many connections without an answer (`Credit`) gets no further one.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from nameplate.serve.credit import Credit
from nameplate.serve.errors import MEDIA_TYPE, Problem, details

HEAD_BYTES = 64 * 1024
"""The most bytes of a request's head, and again of what follows its body; a request may exceed it by `PIECE`."""
HEADERS = 200
"""The most headers of a request."""
PIECE = 16 * 1024
"""Bytes that are parsed at once."""
PIPELINED = 4
"""The most requests that may wait on a connection for the answer to an earlier one."""
HEAD_SECONDS = 5.0
"""Seconds from the first byte of a request, or from the connection, to the end of its head."""
LINGER_SECONDS = 2.0
"""Seconds in which what still arrives is thrown away after a refusal. Closed at once, the client might not see why."""
LINGER_BYTES = 8 * 1024 * 1024
"""The most bytes that are thrown away so: those of nearly any photo.

curl and requests look for an answer when they cannot send on, and see it however little is taken (tried with 5 to 200
MB). Python's http.client and urllib see it only if their whole body is taken. Taking 8 MiB costs some 5 ms.
"""
LINGER_COST = 8
"""As how many connections without an answer one counts that exceeds them."""
STALL_SECONDS = 2.0
"""Seconds for which a refused connection is left as it is: closed at once, an attacker would open the next at once."""
STALLED = 100
"""The most connections that are left so; further ones are closed at once."""
CONNECTIONS = 1000
"""The most connections; see `connections_allowed`."""
RESERVED = 16
"""Connections beyond these, for requests about the service's health."""
OTHER_FILES = 200
"""File descriptors that are kept for everything but connections."""
HEALTH = b"/health/"


def connections_allowed() -> int:
    """The cap on connections that the process's limit on open files leaves, at most `CONNECTIONS`.

    The limit is first raised to what the operator permits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = RESERVED + STALLED + OTHER_FILES
    wanted = CONNECTIONS + others
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(RESERVED, min(CONNECTIONS, soft - others))


class _Refused(Exception):  # noqa: N818 - not an error: it only stops the parser
    """Stops the parser; `BoundedProtocol.send_400_response` is called next."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    cap = CONNECTIONS
    """The most connections."""
    credit = Credit(0)
    """What addresses may leave unanswered."""
    stalled = 0
    """How many connections are refused and not yet closed."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._silent = 0  # bytes since the last head or piece of a body
        self._in_head = True
        self._problem: Problem | None = None
        self._lingering = False
        self._thrown = 0  # bytes since then
        self._excess = False
        self._idle_since: float | None = time.monotonic()
        self._head_timer: asyncio.TimerHandle | None = None
        self._address = ""  # empty where it is not limited
        self._owes = False
        self._stall: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, in the place of an idle one if there are too many; or close it at once."""
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if self.credit.limits(address):
            self._address, self._owes = address, self.credit.open(address)
            if not self._owes:  # before anything else is done for it
                self._refuse_connection(transport)
                return
        super().connection_made(transport)
        if len(self.connections) > self.cap:
            idle = [each for each in self.connections if isinstance(each, BoundedProtocol) and each.displaceable(self)]
            if idle:
                min(idle, key=lambda each: each._idle_since or 0.0).drop()
            elif len(self.connections) <= self.cap + RESERVED:
                self._excess = True
            else:
                self.drop()
                return
        self._await_head()

    def _refuse_connection(self, transport: asyncio.Transport) -> None:
        """Close a connection soon, without an answer."""
        self.transport = transport
        if BoundedProtocol.stalled < STALLED:
            BoundedProtocol.stalled += 1
            self._stall = self.loop.call_later(STALL_SECONDS, transport.abort)
        else:
            transport.abort()

    def displaceable(self, newcomer: BoundedProtocol) -> bool:
        """Whether this connection may be closed in favour of another one: no request of it is under way."""
        return self is not newcomer and self._idle_since is not None and not self.transport.is_closing()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.connections.discard(self)  # at once, since the event loop tells of the end only later
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._stall is not None:
            self._stall.cancel()
            BoundedProtocol.stalled -= 1
        self._stop_timer()
        self._settle(answered=False)
        super().connection_lost(exc)

    def _borrow(self) -> None:
        """Take note that an answer is awaited on this connection again."""
        if self._address and not self._owes:
            self._owes = True
            self.credit.ask(self._address)

    def _settle(self, *, answered: bool) -> None:
        """Take note that nothing is awaited on this connection any more."""
        if self._owes:
            self._owes = False
            self.credit.settle(self._address, answered=answered)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self._silent == 0:  # a connection on which nothing was asked gets no answer
            self.transport.close()
        else:
            self._refuse(Problem("slow-head", f"The request's head took longer than {HEAD_SECONDS:g} s to arrive."))

    # What arrives.

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, piece by piece, so that no bound is exceeded by much."""
        if self._stall is not None:  # read, since a hang-up would not be noticed otherwise
            self._silent += len(data)
            if self._silent > HEAD_BYTES:  # who sends so much waits
                self.transport.pause_reading()
            return
        if self._lingering:
            self._thrown += len(data)
            if self._thrown > LINGER_BYTES:
                if self._address:  # whatever was answered: this one would go on for ever
                    self.credit.waste(self._address, LINGER_COST)
                self.transport.abort()
            return
        for start in range(0, len(data), PIECE):
            if self._lingering or self.transport.is_closing():
                return
            if self._idle_since is not None and self._head_timer is None:
                self._await_head()  # the first byte of another request
            piece = data[start : start + PIECE]
            self._silent += len(piece)
            super().data_received(piece)
            if self._silent > HEAD_BYTES and not self._lingering:
                self._refuse(self._too_long())

    def _too_long(self) -> Problem:
        if self._in_head and not self.headers:
            return Problem("long-address", f"The request's address has more than {HEAD_BYTES:,} bytes.")
        return Problem("large-head", f"The request's headers, or what follows its body, exceed {HEAD_BYTES:,} bytes.")

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, which follow a body, are not used."""
        if not self._in_head:
            return
        if len(self.headers) >= HEADERS:
            self._stop(Problem("large-head", f"The request has more than {HEADERS} headers."))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request, or let it wait for an earlier one."""
        self._in_head, self._silent, self._idle_since = False, 0, None
        self._stop_timer()
        self._borrow()
        if self._excess and not self.url.startswith(HEALTH):
            self._stop(Problem("full", f"There are {self.cap:,} connections already. Try again shortly.", 1))
        if self._busy and len(self.pipeline) >= PIPELINED:
            self._stop(Problem("too-many", "Too many requests were sent before the first was answered."))
        super().on_headers_complete()
        _close_if_refused(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of a body."""
        self._silent = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin the next request, or wait for one."""
        super().on_response_complete()
        if not self.pipeline and not self._busy:
            self._idle_since = time.monotonic()
            self._settle(answered=True)

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Refusals.

    def _stop(self, problem: Problem) -> None:
        self._problem = problem
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        """Refuse what uvicorn could not parse, or what `_stop` refused."""
        self._refuse(self._problem or Problem("bad-request", msg))

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer is under way, and end the connection."""
        if self._busy or self.pipeline:
            self.drop()
            return
        body = msgspec.json.encode(details(problem))
        self.transport.write(
            STATUS_LINE[problem.status]
            + f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        self.linger()

    def linger(self) -> None:
        """End the connection, and until the client does so too, for some seconds throw away what arrives."""
        self._stop_timer()
        self._lingering, self._idle_since = True, None
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)


class _Transport:
    """What a request sees of its connection. When it closes it before its body has arrived, the connection lingers."""

    def __init__(self, protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = protocol, cycle

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        if self._cycle.more_body:
            self._protocol.linger()
        else:
            self._protocol.transport.close()


def _close_if_refused(protocol: BoundedProtocol, cycle: RequestResponseCycle) -> None:
    """Have a request that is answered before its body has arrived end its connection.

    uvicorn would read the rest of the body, however long, to find the next request.
    """
    send = cycle.send

    async def send_and_close(message: Any) -> None:
        if message["type"] == "http.response.start" and cycle.more_body:
            cycle.keep_alive = False
        await send(message)

    cycle.transport = _Transport(protocol, cycle)  # type: ignore[assignment]
    cycle.send = send_and_close  # type: ignore[method-assign]
