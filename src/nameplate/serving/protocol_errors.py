"""Refusals below /v2, in the form that the Open Inference Protocol has for them: `{"error": "…"}`."""

from __future__ import annotations

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nameplate.serving.problems import MEDIA_TYPE

BELOW = "/v2"
"""Where the protocol is spoken."""


class ProtocolErrors:
    """ASGI middleware: turns problems into the protocol's errors, whoever refuses.

    Logs and metrics stand below it and see the problems themselves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and (scope["path"] == BELOW or scope["path"].startswith(BELOW + "/")):
            await self.app(scope, receive, _translated(send))
        else:
            await self.app(scope, receive, send)


def _translated(send: Send) -> Send:
    """Sends an answer on, a problem once it is whole."""
    held: list[Message] = []

    async def translated(message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            held.append(message)
        elif not held:
            await send(message)
        else:
            held.append(message)
            if not message.get("more_body", False):
                start, *rest = held
                body = _error(b"".join(part.get("body", b"") for part in rest))
                headers = MutableHeaders(raw=start["headers"])
                headers["content-type"], headers["content-length"] = "application/json", str(len(body))
                await send(start)
                await send({"type": "http.response.body", "body": body})

    return translated


def _is_problem(start: Message) -> bool:
    return MutableHeaders(raw=start["headers"]).get("content-type") == MEDIA_TYPE


def _error(problem: bytes) -> bytes:
    return msgspec.json.encode({"error": msgspec.json.decode(problem)["detail"]}) if problem else b""
