"""Every refusal of the service, as JSON that gives the reason (RFC 9457, "Problem Details for HTTP APIs").

Below /v2 the same refusals take the form of the Open Inference Protocol: `{"error": "..."}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nameplate.errors import Reason

MEDIA_TYPE = "application/problem+json"
PROTOCOL = "/v2"
"""The path below which requests follow the Open Inference Protocol."""

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "no-key": (401, "An API key is needed"),
    "not-allowed": (403, "This key, host or origin may not do that"),
    "not-found": (404, "There is nothing of that name"),
    "method-not-allowed": (405, "This address takes other methods"),
    "slow-body": (408, "The body took too long to arrive"),
    "slow-head": (408, "The request's head took too long to arrive"),
    "conflict": (409, "The bundle was not exchanged"),
    "not-done": (409, "The job is not done yet"),
    "too-large": (413, "Too large"),
    "long-address": (414, "The address is too long"),
    "not-a-photo": (415, "Not a photo"),
    "encoded": (415, "The body is compressed"),
    "unreadable": (422, "The photo cannot be read"),
    "unprocessable": (422, "The request asks for what cannot be had"),
    "too-many": (429, "Too many requests"),
    "large-head": (431, "The request's headers are too large"),
    "internal": (500, "The service failed"),
    "full": (503, "There is no room"),
    "late": (503, "The answer took too long"),
    "not-ready": (503, "The service is not ready"),
    "not-kept": (503, "What was asked for cannot be stored"),
}
"""Kind of problem → HTTP status and title. A problem's `type` is `urn:nameplate:problem:` and its kind."""

OF_REASON: dict[Reason, str] = {
    "missing": "unreadable",
    "empty": "unreadable",
    "not a photo": "not-a-photo",
    "truncated": "unreadable",
    "damaged": "unreadable",
    "too large": "too-large",
    "too slow": "unreadable",
    "not computed": "unreadable",
}
"""Reason why a photo cannot be read → kind of problem."""


def kind_of(reason: Reason) -> str:
    """Return the kind of problem for a photo that cannot be read."""
    return OF_REASON.get(reason, "unreadable")


@dataclass
class Problem(Exception):  # noqa: N818 - the RFC's word
    """The refusal of a request. It may be raised anywhere in a route and is answered as JSON."""

    kind: str
    """One of `KINDS`."""
    detail: str
    """What failed, with which value, and what to do."""
    retry_after: float | None = None
    """Seconds after which the client may try again; also sent as the Retry-After header."""
    extra: Mapping[str, object] | None = None
    """Further members of the JSON object."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]

    @property
    def wait(self) -> int | None:
        """`retry_after` in whole seconds, 1 or more, rounded up."""
        return None if self.retry_after is None else max(1, round(self.retry_after + 0.5))


class ProblemResponse(Response):
    """The response to a request that is refused.

    Its form depends on the path, which is known only when it is sent, so it is rendered then. It leaves the kind of
    problem in `scope["state"]["problem"]`, where metrics and logs find it.
    """

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        self.problem = problem
        sent = dict(headers or {})
        if problem.wait is not None:
            sent["Retry-After"] = str(problem.wait)
        if problem.status == 401:  # RFC 9110, section 11.6.1 requires the header
            sent["WWW-Authenticate"] = "Bearer"
        super().__init__(msgspec.json.encode(details(problem)), problem.status, sent, MEDIA_TYPE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response in the form that the path requires."""
        scope.setdefault("state", {})["problem"] = self.problem.kind
        # The added slash makes /v2 itself match, but not /v2x.
        if f"{scope['path']}/".startswith(f"{PROTOCOL}/"):
            self.body = msgspec.json.encode({"error": self.problem.detail})
            self.headers["Content-Type"], self.headers["Content-Length"] = "application/json", str(len(self.body))
        await super().__call__(scope, receive, send)


def details(problem: Problem) -> dict[str, object]:
    """The members of a problem's JSON object."""
    status, title = KINDS[problem.kind]
    named = {"type": f"urn:nameplate:problem:{problem.kind}", "title": title, "status": status}
    waits = {} if problem.wait is None else {"retry_after": problem.wait}
    return {**named, "detail": problem.detail, **(problem.extra or {}), **waits}


async def on_problem(_: Request, problem: Exception) -> Response:
    """Answer with a problem; for FastAPI's `exception_handlers`."""
    assert isinstance(problem, Problem)
    return ProblemResponse(problem)
