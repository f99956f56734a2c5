"""`ServeSettings`: everything that an operator may choose, with every default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nameplate.defaults import DEFAULT_BUNDLE, NO_TTA
from nameplate.types import Cars, Limits

MEBIBYTE = 1024 * 1024


GIBIBYTE = 1024 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What jobs may cost."""

    photos: int = 10_000
    """The most photos of one job."""
    bytes: int = 2 * GIBIBYTE
    """The most bytes of one job's upload."""
    bytes_in_all: int = 10 * GIBIBYTE
    """The most bytes of all jobs on disk; a client may fill as many as it leaves free, so one alone half of them."""
    of_client: int = 20
    """The most jobs of one client, those that are done and kept among them."""
    in_all: int = 200
    """The most jobs of all clients."""
    kept_seconds: float = 24 * 3600.0
    """Seconds for which a job is kept after its end."""
    body_seconds: float = 3600.0
    """Seconds after which an upload that is still arriving is given up."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How the service runs. `nameplate serve --help` says the same."""

    bundles: tuple[str, ...] = (DEFAULT_BUNDLE,)
    """The bundles to serve, each perhaps as `NAME=BUNDLE`. The first one answers requests that name no model, unless
    there is an alias `default`."""
    aliases: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Alias → model → weight: names that stand for several models."""
    aliases_file: Path | None = None
    """The file that keeps aliases which are changed while the service runs, and takes the place of `aliases` as soon as
    it exists; None keeps none."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8000
    """The port to listen on; 0 takes any free one."""
    workers: int = 1
    """Worker processes for each bundle."""
    threads: int | None = None
    """Processors for all workers of one bundle together; None takes those that this process may use."""
    threads_of: Mapping[str, int] = field(default_factory=dict)
    """Model → processors for its workers together, in place of `threads`."""
    runtime: str = "auto"
    """The runtime that runs the backbone; `auto` is ONNX Runtime here, as in `nameplate identify`."""
    tta: str = NO_TTA
    """The kind of test-time augmentation."""
    cars: Cars = "main"
    """Which cars of a photo are named, unless a request asks for all."""
    limits: Limits = field(default_factory=lambda: Limits(bytes=20 * MEBIBYTE))
    """Limits on the bytes, pixels and decoding time of one photo."""
    photos: int = 20
    """The most photos of one request."""
    body_bytes: int = 64 * MEBIBYTE
    """The most bytes of one request's body."""
    queue_photos: int = 128
    """The most photos of one bundle that may be in the queue or with workers; beyond, requests are refused."""
    queue_seconds: float = 1.0
    """The most seconds that a photo may be expected to wait for those ahead of it; beyond, requests are refused."""
    queue_bytes: int = 256 * MEBIBYTE
    """The most bytes of request bodies that may be in memory at once; beyond, requests are refused."""
    batch_wait: float = 0.004
    """The most seconds that a prepared photo may wait for others to fill its batch."""
    request_seconds: float = 30.0
    """Seconds after which a request is given up."""
    body_seconds: float = 30.0
    """Seconds after which a body that is still arriving is given up."""
    stop_delay: float = 0.0
    """Seconds after SIGTERM in which the service reports not ready but still answers, so that a proxy can notice."""
    drain_seconds: float = 30.0
    """Seconds after that in which requests under way may end."""
    keys: Path | None = None
    """The file of hashed API keys (`nameplate keys`); None requires no keys."""
    rate: str | None = None
    """How many requests one key (or one address, without keys) may send, such as `600/minute`; None sets no limit."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call the API."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that requests may be for. A service that listens on loopback only also allows this machine's own."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses of proxies whose X-Forwarded-For header is trusted."""
    connections_per_address: int = 256
    """How many connections of one address may await an answer, those that ended without one in the last seconds
    included (`credit.Credit`); beyond, new ones are closed. 0 sets no limit; proxies that are trusted have none."""
    feedback: str | None = None
    """The database for users' corrections: a SQLAlchemy URL or the path of a SQLite file; None takes no corrections."""
    feedback_bytes: int = 10 * 1024 * MEBIBYTE
    """The most bytes that this database may hold; beyond, corrections are refused."""
    keep_metadata: bool = False
    """Whether corrections' photos are stored with place, time and camera, if they say them."""
    reload_on_change: bool = False
    """Whether a bundle that changes on disk is exchanged for the new one."""
    jobs: Path | None = None
    """The folder that keeps jobs; None takes no jobs."""
    job_limits: JobLimits = field(default_factory=JobLimits)
    traces: bool | None = None
    """Whether OpenTelemetry's spans are sent; None: if its variables say where (OTEL_EXPORTER_OTLP_ENDPOINT)."""
    page: bool = True
    """Whether the page is served at `/`."""
    docs: bool = False
    """Whether Swagger UI is served at `/docs`."""
