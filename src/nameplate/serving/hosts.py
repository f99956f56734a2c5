"""Whether a request may come from the page that sent it: against DNS rebinding and cross-site requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from nameplate.serving.problems import Problem, ProblemResponse

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
