"""What every answer tells browsers not to do."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
PERMISSIONS_POLICY = ", ".join(
    ["camera=(self)"]
    + [f"{name}=()" for name in ("microphone", "geolocation", "display-capture", "payment", "usb", "serial", "midi")]
)
PRIVATE = ("/v1/", "/v2/")
"""Answers below these are kept by no cache: they are about somebody's photo, or asked for with somebody's key."""

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": PERMISSIONS_POLICY,
    "x-frame-options": "DENY",
}
"""After OWASP's "HTTP Security Response Headers Cheat Sheet". Strict-Transport-Security is for who ends TLS."""


class SecurityHeaders:
    """ASGI middleware: puts `HEADERS` on every answer, in place of any that the application gave."""

    def __init__(self, app: ASGIApp, *, cross_origin: bool = False) -> None:
        self.app = app
        chosen = HEADERS | ({"cross-origin-resource-policy": "cross-origin"} if cross_origin else {})
        self.open = [(name.encode(), value.encode()) for name, value in chosen.items()]
        self.private = [*self.open, (b"cache-control", b"no-store")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and mend its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        ours = self.private if scope["path"].startswith(PRIVATE) else self.open
        names = {name for name, _ in ours}

        async def mend(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message.get("headers", ()) if header[0].lower() not in names]
                message = {**message, "headers": kept + ours}
            await send(message)

        await self.app(scope, receive, mend)
