"""Access control: host and origin checks, API keys and rate limits, each as an ASGI middleware.

`Hosts` refuses foreign Host headers and cross-site requests, `Authentication` finds the client that sent a request,
and `Rate` limits how often a client may send one. `middleware.protect` puts them in order.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from nameplate.serve.errors import Problem, ProblemResponse
from nameplate.serve.keys import Keys
from nameplate.serve.rates import Window, parse_rate
from nameplate.serve.schema import problems

# Hosts and origins: protection against DNS rebinding and cross-site requests.

THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")
"""A Host header: name or address, and port (RFC 9110, section 7.2)."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing here, and whose answers pages of other origins cannot read."""
PROBES = ("/health/", "/v2/health/")
"""Paths that any Host header may ask for: an orchestrator's probes use bare addresses, and nothing here is secret."""


@lru_cache(1024)
def is_loopback(host: str) -> bool:
    """Whether an address or host name is this machine's loopback. It is asked of each request."""
    found = address_of(host)
    return host == "localhost" if found is None else found.is_loopback


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; None if the text is none. IPv4-mapped IPv6 (`::ffff:192.0.2.1`) becomes plain IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def host_name(header: str) -> str | None:
    """Return the host of a Host header without the port, in lower case; None if the header is malformed."""
    found = HOST.fullmatch(header)
    return found.group(1).lower().rstrip(".") if found else None


def names_allowed(listens_on: str, allowed: Sequence[str]) -> frozenset[str] | None:
    """Return the host names that requests may be for; None allows any.

    Args:
        listens_on: the address that the service listens on.
        allowed: the names that the operator allows; `*` allows any.
    """
    named = frozenset(name.lower() for name in allowed)
    # A service on a public address cannot know its names unless the operator gives them.
    if "*" in named or not (named or is_loopback(listens_on)):
        return None
    return named | THIS_MACHINE if is_loopback(listens_on) else named


class Hosts:
    """ASGI middleware: refuses foreign Host headers and cross-site requests.

    A hostile site can let its name resolve to 127.0.0.1 (DNS rebinding); its page then reads a local service's answers
    as if they were its own. Only the Host header reveals that. Its page can also send POSTs that browsers allow without
    a CORS preflight (plain forms). The Origin and Sec-Fetch-Site headers reveal these (OWASP, "Cross-Site Request
    Forgery Prevention", standard headers).
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str] | None, origins: Sequence[str] = ()) -> None:
        self.app, self.names, self.origins = app, names, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        # Header names arrive in lower case (ASGI). latin-1 decodes any bytes.
        if scope["type"] == "http" and not scope["path"].startswith(PROBES):
            headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in _READ}
            refused = self._host(scope, headers) or self._origin(scope["method"], headers)
            if refused:
                await ProblemResponse(Problem("not-allowed", refused))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _host(self, scope: Scope, headers: dict[bytes, str]) -> str | None:
        """Why the Host header is refused; None if it is allowed."""
        if self.names is None:
            return None
        # With two Host headers, a proxy and this check might each look at another one.
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            return "The request has several Host headers."
        name = host_name(headers.get(b"host", ""))
        if name in self.names:
            return None
        return (
            f"This service does not answer for the host {headers.get(b'host', '')[:100]!r}. "
            "If it should, its operator starts it with --allowed-host NAME."
        )

    def _origin(self, method: str, headers: dict[bytes, str]) -> str | None:
        """Why the request's origin is refused; None if it is allowed."""
        if method in SAFE or "*" in self.origins:
            return None
        origin = headers.get(b"origin")
        if origin is None:  # browsers send one of the two headers; a client that sends neither is no browser
            crosses = headers.get(b"sec-fetch-site") in ("cross-site", "same-site")
        else:
            host = headers.get(b"host", "").lower()
            crosses = origin not in self.origins and origin.partition("://")[2].lower() != host
        if not crosses:
            return None
        return (
            f"A page of another origin ({(origin or 'not named')[:100]!r}) may not send this. "
            "If it should, this service's operator starts it with --cors ORIGIN."
        )


_READ = frozenset({b"host", b"origin", b"sec-fetch-site"})


OPEN = frozenset({"/", "/page", "/docs", "/v1/service", "/openapi.json"})
"""Paths that need no key, besides those below `OPEN_BELOW`."""
OPEN_BELOW = ("/health/", "/v2/health/", "/page/", "/docs/")
FREE = frozenset({"/", "/page", "/docs"})
"""Paths without a rate limit, besides those below `OPEN_BELOW`."""
NETWORK_BITS = 64
"""Leading bits of an IPv6 address that identify a client: one site owns all addresses that share them (RFC 6177)."""


@dataclass(frozen=True, slots=True)
class Client:
    """The client that sent a request; kept in `scope["state"]["client"]`."""

    name: str
    """The name of its API key, or its address if it sent none."""
    admin: bool
    """Whether it may change the service: its key is an admin's, or there are no keys and it is on this machine."""
    by_key: bool = False
    """Whether `name` is the name of a key."""
    rate: str = ""
    """The rate of its key, in place of the service's; empty where the key has none."""

    @property
    def share(self) -> str:
        """The name under which its requests, bytes and photos are counted. The prefix keeps a key apart from an address
        of the same name.
        """
        return f"key {self.name}" if self.by_key else network_of(self.name)


def only_admin(client: Client) -> None:
    """Refuse clients that are no admins.

    Raises:
        Problem: the client is no admin (`not-allowed`).
    """
    if not client.admin:
        raise Problem(
            "not-allowed",
            "This is for admins: send a key made with 'nameplate keys add FILE NAME --admin'. A service without keys "
            "takes it from its own machine.",
        )


def token_of(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """Return a request's API key: `Authorization: Bearer KEY` (RFC 6750, section 2.1), or `X-API-Key: KEY`."""
    values = dict(headers)
    # A dict keeps the last of several equal headers; only one of them is checked and used.
    scheme, _, token = values.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return values.get(b"x-api-key", b"").strip() or None


def needs_no_key(path: str) -> bool:
    """Whether a path is open to everybody."""
    return path in OPEN or path.startswith(OPEN_BELOW)


def network_of(address: str) -> str:
    """Return the name under which an address's requests are counted: an IPv6 address's network, else the address."""
    if ":" not in address:
        return address
    found = address_of(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ip_network((int(found), NETWORK_BITS), strict=False))


def describe_access(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document which operations need a key (if the service has keys), and how they refuse."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in document["paths"].items():
        refusals = {} if path.startswith(OPEN_BELOW) else problems(403, 429)
        for operation in operations.values():
            if not needs_no_key(path):
                operation["security"] = [{}, {"bearer": []}, {"header": []}]
                refusals |= problems(401)
            for status, refusal in refusals.items():
                operation["responses"].setdefault(str(status), refusal)


class Authentication:
    """ASGI middleware: finds the client that sent a request, and refuses it if it has no key where one is needed."""

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
        """The client, and why it is refused; None if it may pass."""
        address = _address(scope)
        if self.keys is None:
            return Client(address, is_loopback(address)), None
        token = token_of(scope["headers"])
        key = None if token is None else self.keys.find(token)
        if key is not None and not key.expired:
            return Client(key.name, key.admin, by_key=True, rate=key.rate), None
        # After the key: a client that sends one is known by it on open paths too.
        if needs_no_key(scope["path"]):
            return Client(address, admin=False), None
        wrong = (
            f"This API key was valid until {key.expires}: ask for another one."
            if key is not None
            else "This API key is unknown: it was revoked, or mistyped."
            if token
            else "This needs an API key."
        )
        return Client(address, admin=False), f"{wrong} Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


def _address(scope: Scope) -> str:
    """The address that a request comes from. uvicorn has replaced it by what a trusted proxy says."""
    return str((scope.get("client") or ("unknown",))[0])


class Rate:
    """ASGI middleware: refuses clients that ask too often. They are counted by key, or else by address."""

    def __init__(self, app: ASGIApp, *, window: Window | None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            window: for clients whose key has no rate of its own; None sets them no limit.
        """
        self.app, self.window = app, window
        self._own: dict[str, tuple[str, Window]] = {}  # name of a key → its rate, and the window of that rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path not in FREE and not path.startswith(OPEN_BELOW):
            client: Client = scope["state"]["client"]
            window = self._window(client)
            wait = 0.0 if window is None else window.hit(client.share)
            if window is not None and wait > 0:
                said = f"More than {window.amount:,} requests in {window.seconds:.0f} seconds. Try again later."
                await ProblemResponse(Problem("too-many", said, retry_after=wait))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _window(self, client: Client) -> Window | None:
        if not client.rate:
            return self.window
        rate, window = self._own.get(client.name, ("", self.window))
        if rate != client.rate or window is None:  # a new key, or the same name with another rate
            window = Window(*parse_rate(client.rate))
            self._own[client.name] = (client.rate, window)
        return window
