"""Every refusal of the service, as JSON that says why: RFC 9457, "Problem Details for HTTP APIs"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from nameplate.errors import Reason

MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "no-key": (401, "An API key is needed"),
    "not-allowed": (403, "This key, host or origin may not do that"),
    "not-found": (404, "There is nothing of that name"),
    "method-not-allowed": (405, "This address takes other methods"),
    "slow-body": (408, "The body took too long to arrive"),
    "conflict": (409, "The bundle was not exchanged"),
    "too-large": (413, "Too large"),
    "not-a-photo": (415, "Not a photo"),
    "encoded": (415, "The body is compressed"),
    "unreadable": (422, "The photo cannot be read"),
    "unprocessable": (422, "The request asks for what cannot be had"),
    "too-many": (429, "Too many requests"),
    "internal": (500, "The service failed"),
    "full": (503, "There is no room"),
    "late": (503, "The answer took too long"),
    "not-ready": (503, "The service is not ready"),
}
"""Kind → status and title. A problem's `type` is `urn:nameplate:problem:` and its kind."""

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
"""Why a photo cannot be read → the kind of problem that it is."""


def kind_of(reason: Reason) -> str:
    """The kind of problem that a photo is which cannot be read."""
    return OF_REASON.get(reason, "unreadable")


@dataclass
class Problem(Exception):  # noqa: N818 - the RFC's word
    """A request is refused: raised anywhere in a route, answered as JSON."""

    kind: str
    """One of `KINDS`."""
    detail: str
    """What failed, with which value, and what to do."""
    retry_after: float | None = None
    """Seconds after which it may be tried again; a header says so too."""
    extra: Mapping[str, object] | None = None
    """Further members of the JSON."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that is refused."""
    status, title = KINDS[problem.kind]
    said: dict[str, object] = {
        "type": f"urn:nameplate:problem:{problem.kind}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        **(problem.extra or {}),
    }
    sent = dict(headers or {})
    if problem.retry_after is not None:
        said["retry_after"] = seconds = max(1, round(problem.retry_after + 0.5))
        sent["Retry-After"] = str(seconds)
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(said), status, sent, MEDIA_TYPE)


async def on_problem(_: Request, problem: Exception) -> Response:
    """For FastAPI's `exception_handlers`."""
    assert isinstance(problem, Problem)
    return problem_response(problem)
