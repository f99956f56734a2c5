"""Who asks, whether they may, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from nameplate.serving.hosts import address_of, is_loopback
from nameplate.serving.keys import Keys
from nameplate.serving.problems import Problem, ProblemResponse
from nameplate.serving.rates import Window
from nameplate.serving.schema import problems

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
