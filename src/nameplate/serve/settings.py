"""`ServeSettings`: all that an operator may choose of the service, with every default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA
from nameplate.types import Limits

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the service runs. `nameplate serve --help` says the same."""

    bundles: tuple[str, ...] = (DEFAULT_BUNDLE,)
    """What is served; the first answers where a request names none."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8000
    """0 takes any that is free."""
    workers: int = 1
    """Worker processes for each bundle."""
    threads: int | None = None
    """Processors for the workers of a bundle together; None takes those that this process may use."""
    runtime: str = "auto"
    """What runs the backbone; `auto` is ONNX Runtime here, as in `nameplate identify`."""
    tta: str = NO_TTA
    """Test-time augmentation."""
    limits: Limits = field(default_factory=lambda: Limits(bytes=20 * MEBIBYTE))
    """What one photo may cost."""
    photos: int = 20
    """Photos that one request may bring."""
    body_bytes: int = 64 * MEBIBYTE
    """Size of one request's body."""
    queue_photos: int = 128
    """Photos of one bundle that may be under way, waiting ones included; beyond, requests are refused."""
    queue_bytes: int = 256 * MEBIBYTE
    """Bytes of all requests' bodies that may be in memory; beyond, requests are refused."""
    batch_wait: float = 0.004
    """Seconds that a picture may wait for others to fill its batch."""
    request_seconds: float = 30.0
    """A request that takes longer is given up."""
    body_seconds: float = 30.0
    """A body that takes longer to arrive is given up."""
    stop_delay: float = 0.0
    """Seconds after SIGTERM in which it says that it is not ready, and still answers, so that a proxy sees it."""
    drain_seconds: float = 30.0
    """Then requests under way have so long to end."""
    keys: Path | None = None
    """File of hashed API keys (`nameplate keys`); None asks for none."""
    rate: str | None = None
    """Requests that one key, or one address where there are no keys, may send, such as `600/minute`."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the API."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that requests may be for, besides those of this machine where it listens there alone."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses of proxies whose X-Forwarded-For is believed."""
    feedback: str | None = None
    """Database for users' corrections: a SQLAlchemy URL, or the path of a SQLite file; None keeps none."""
    feedback_bytes: int = 10 * 1024 * MEBIBYTE
    """What that database may hold; beyond, corrections are refused."""
    reload_on_change: bool = False
    """Whether a bundle that changes on disk is exchanged for the new one."""
    page: bool = True
    """Whether the page is served at `/`."""
