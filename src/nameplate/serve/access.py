"""Who asks, whether they may, and how often."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from nameplate.errors import UsageError
from nameplate.serve.errors import Problem, ProblemResponse
from nameplate.serve.keys import Keys
from nameplate.serve.schema import problems

# JOINED Whether a request may come from the page that sent it: against DNS rebinding and cross-site requests.


THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")
"""A Host header: name or address, and port (RFC 9110, section 7.2)."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing here, and whose answers other origins cannot read."""
PROBES = ("/health/", "/v2/health/")
"""May be asked for under any name: an orchestrator's probes use bare addresses, and the answers are no secrets."""


def is_loopback(host: str) -> bool:
    """Whether an address, or name, to listen on or to come from is this machine's own."""
    found = address_of(host)
    return host == "localhost" if found is None else found.is_loopback


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as one; those of IPv4 that a socket of IPv6 shows as `::ffff:192.0.2.1` as what they are."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def host_name(header: str) -> str | None:
    """A Host header without its port, in lower case; None where it is no host."""
    found = HOST.fullmatch(header)
    return found.group(1).lower().rstrip(".") if found else None


def names_allowed(listens_on: str, allowed: Sequence[str]) -> frozenset[str] | None:
    """Host names that requests may be for; None stands for any."""
    named = frozenset(name.lower() for name in allowed)
    if "*" in named or not (named or is_loopback(listens_on)):
        return None
    return named | THIS_MACHINE if is_loopback(listens_on) else named


class Hosts:
    """ASGI middleware: refuses foreign Host headers, and what other sites' pages make a browser send.

    A page of a hostile site may have its name resolve to 127.0.0.1 (DNS rebinding) and so read a local service's
    answers as its own: only the Host header tells. It may also send POSTs that browsers do not ask leave for (plain
    forms): Origin and Sec-Fetch-Site tell (OWASP, "Cross-Site Request Forgery Prevention", standard headers).
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str] | None, origins: Sequence[str] = ()) -> None:
        self.app, self.names, self.origins = app, names, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not scope["path"].startswith(PROBES):
            told = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _READ}
            refused = self._host(scope, told) or self._origin(scope["method"], told)
            if refused:
                await ProblemResponse(Problem("not-allowed", refused))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _host(self, scope: Scope, told: dict[bytes, str]) -> str | None:
        if self.names is None:
            return None
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            return "The request has several Host headers."
        name = host_name(told.get(b"host", ""))
        if name in self.names:
            return None
        return (
            f"This service does not answer for the host {told.get(b'host', '')[:100]!r}. "
            "If it should, its operator starts it with --allowed-host NAME."
        )

    def _origin(self, method: str, told: dict[bytes, str]) -> str | None:
        if method in SAFE or "*" in self.origins:
            return None
        origin = told.get(b"origin")
        if origin is None:
            crosses = told.get(b"sec-fetch-site") in ("cross-site", "same-site")
        else:
            crosses = origin not in self.origins and origin.partition("://")[2].lower() != told.get(b"host", "").lower()
        if not crosses:
            return None
        return (
            f"A page of another origin ({(origin or 'not named')[:100]!r}) may not send this. "
            "If it should, this service's operator starts it with --cors ORIGIN."
        )


_READ = frozenset({b"host", b"origin", b"sec-fetch-site"})


# JOINED How many requests a client may send in a while: a moving window.


CLIENTS = 10_000
"""Clients that are remembered; then the one not heard of for longest is forgotten."""
REQUESTS = 1_000_000
"""Times of requests that are remembered for all clients together, some 32 MB; then likewise."""
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 30 * 86_400, "year": 360 * 86_400}
"""Seconds."""
RATE = re.compile(rf"\s*([0-9]{{1,9}})\s*(?:/|per)\s*([0-9]{{1,9}})?\s*({'|'.join(UNITS)})s?\s*", re.IGNORECASE)
"""Requests, perhaps how many units of time, and the unit."""


def parse_rate(text: str) -> tuple[int, float]:
    """`600/minute`, `10 per 5 seconds`: requests, and the seconds of the window.

    Raises:
        UsageError: it is no such rate, or of more requests than can be counted.
    """
    found = RATE.fullmatch(text)
    amount, seconds = (int(found[1]), int(found[2] or 1) * UNITS[found[3].lower()]) if found else (0, 0)
    if amount < 1 or seconds < 1:
        raise UsageError(f"'{text}' is no rate. Write requests a time, such as '600/minute' or '10 per 5 seconds'.")
    if amount > REQUESTS:
        raise UsageError(f"The rate '{text}' is of more than {REQUESTS:,} requests. Take a shorter time.")
    return amount, float(seconds)


class Window:
    """When each client sent its last requests.

    The package `limits` has one too: it keeps the name of every client that ever came, and looks through all of them
    each hundredth of a second, in a thread of its own. This one forgets.
    """

    def __init__(self, amount: int, seconds: float) -> None:
        self.amount, self.seconds = amount, seconds
        self._clients: OrderedDict[str, deque[float]] = OrderedDict()
        self._held = 0

    def hit(self, client: str, now: float | None = None) -> float:
        """Count a request: 0 where it may pass, else the seconds until one would. Those refused do not count."""
        now = time.monotonic() if now is None else now
        times = self._clients.setdefault(client, deque())
        self._clients.move_to_end(client)
        while times and times[0] <= now - self.seconds:
            times.popleft()
            self._held -= 1
        if len(times) >= self.amount:
            return times[0] + self.seconds - now
        times.append(now)
        self._held += 1
        while len(self._clients) > CLIENTS or self._held > REQUESTS:
            self._held -= len(self._clients.popitem(last=False)[1])
        return 0.0


OPEN = frozenset({"/", "/page", "/v1/service", "/openapi.json"})
"""What needs no key, besides what is below `OPEN_BELOW`."""
OPEN_BELOW = ("/health/", "/v2/health/", "/page/")
FREE = frozenset({"/", "/page"})
"""What no rate limits, besides what is below `OPEN_BELOW`."""
NETWORK_BITS = 64
"""Of an IPv6 address: one home or host has all addresses below them, so that they count as one client (RFC 6177)."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request: `scope["state"]["client"]`."""

    name: str
    """The key's name, or the address where there is no key."""
    admin: bool
    """Whether it may do what changes the service: by its key, or, where there are no keys, from this machine."""
    by_key: bool = False
    """Whether `name` is a key's."""


def only_admin(client: Client) -> None:
    """
    Raises:
        Problem: it is none.
    """
    if not client.admin:
        raise Problem(
            "not-allowed",
            "This is for admins: send a key made with 'nameplate keys add FILE NAME --admin'. A service without keys "
            "takes it from its own machine.",
        )


def token_of(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The key that a request brings: `Authorization: Bearer KEY` (RFC 6750, section 2.1), or `X-API-Key: KEY`."""
    told = dict(headers)
    scheme, _, token = told.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return told.get(b"x-api-key")


def needs_no_key(path: str) -> bool:
    """Whether anybody may ask for it."""
    return path in OPEN or path.startswith(OPEN_BELOW)


def network_of(address: str) -> str:
    """What requests of one address are counted under: itself, or the network of an IPv6 address."""
    if ":" not in address:
        return address
    found = address_of(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ip_network((int(found), NETWORK_BITS), strict=False))


def describe_access(document: dict[str, Any]) -> None:
    """Say in an OpenAPI document what needs a key (where the service has keys), and how it is refused."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        refusals = problems(403) if path.startswith(OPEN_BELOW) else problems(403, 429)
        for operation in operations.values():
            if not needs_no_key(path):
                operation["security"] = [{}, {"bearer": []}, {"header": []}]
                refusals |= problems(401)
            for status, refusal in refusals.items():
                operation["responses"].setdefault(str(status), refusal)


class Authentication:
    """ASGI middleware: finds out who asks, and refuses who has no key where one is needed."""

    def __init__(self, app: ASGIApp, *, keys: Keys | None) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its `Client`, or refuse it."""
        if scope["type"] == "http":
            client, refused = self._who(scope)
            scope.setdefault("state", {})["client"] = client
            if refused:
                await ProblemResponse(Problem("no-key", refused))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _who(self, scope: Scope) -> tuple[Client, str | None]:
        address = _address(scope)
        if self.keys is None:
            return Client(address, is_loopback(address)), None
        token = token_of(scope["headers"])
        key = None if token is None else self.keys.find(token)
        if key is not None:
            return Client(key.name, key.admin, by_key=True), None
        if needs_no_key(scope["path"]):
            return Client(address, admin=False), None
        wrong = "This API key is unknown: it was revoked, or mistyped." if token else "This needs an API key."
        return Client(address, admin=False), f"{wrong} Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


def _address(scope: Scope) -> str:
    """Where a request comes from; behind proxies that are trusted, as they say."""
    return str((scope.get("client") or ("unknown",))[0])


class Rate:
    """ASGI middleware: refuses who asks too often. Clients with a key are counted by key, others by address."""

    def __init__(self, app: ASGIApp, *, window: Window) -> None:
        self.app, self.window = app, window

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path not in FREE and not path.startswith(OPEN_BELOW):
            client: Client = scope["state"]["client"]
            wait = self.window.hit(f"key {client.name}" if client.by_key else network_of(client.name))
            if wait > 0:
                said = (
                    f"More than {self.window.amount:,} requests in {self.window.seconds:.0f} seconds. Try again later."
                )
                await ProblemResponse(Problem("too-many", said, retry_after=wait))(scope, receive, send)
                return
        await self.app(scope, receive, send)
