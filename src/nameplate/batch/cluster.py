"""Ray: started on this machine for as long as the work lasts, or a cluster that is joined.

Only this module and `on_ray.py` import Ray, and only inside functions, because the import takes seconds.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nameplate.errors import NameplateError, RuntimeUnavailableError, UsageError

LOCAL = "local"
"""The address that stands for a Ray that is started on this machine and ends with the work."""
THREADS = 4
"""The most processors of one worker if the user gives no number."""
FILLED = 0.9
"""The share of all processors that workers should fill if the user gives no number of workers."""
STORE = 80 << 20
"""Bytes of a local Ray's object store. Only numbers of shards and their records pass through it."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # avoids a warning about a later version
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
LOG = "driver.log"
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
CONNECT_SECONDS = 10
STARTS = 3
"""Attempts to start a local Ray. Its agents must be up within 15 seconds, which may be too few on a busy machine."""
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on these, listen on 127.0.0.1 only; on Linux it would on all
}
"""Further environment variables of a local Ray."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray that this process is connected to."""

    address: str
    nodes: tuple[int, ...]
    """The number of processors of each node that workers may take."""
    logs: Path
    """The folder of this process's log, which has Ray's warnings; a local Ray's own logs are there too."""

    @property
    def cpus(self) -> int:
        """Number of processors of all nodes."""
        return sum(self.nodes)


@dataclass(frozen=True, slots=True)
class Pool:
    """The number of workers, and the processors of each."""

    workers: int
    threads: int


def is_address(text: str) -> bool:
    """Whether a text is an address: `local`, `auto`, `ray://host:port` or `host:port`."""
    return text in (LOCAL, "auto") or re.fullmatch(r"(ray://)?[\w.\-\[\]:]+:\d{1,5}", text) is not None


def pool(cluster: Cluster, workers: int | None, threads: int | None, most: int) -> Pool:
    """Choose the number of workers, and of processors per worker.

    Workers that do not fit into the nodes would wait for ever, so they are refused.

    Args:
        cluster: the cluster to work on.
        workers: the number of workers; None fills the nodes.
        threads: processors per worker; None takes `THREADS`, or fewer if the nodes are small or the workers many.
        most: the most workers that would have something to do.

    Raises:
        UsageError: the workers do not fit into the nodes.
    """
    if threads is None:
        # Few workers with many threads need less memory than many with one, because each worker loads the model.
        usual = range(min(THREADS, max(cluster.nodes)), 1, -1)
        threads = next((t for t in usual if _fits(cluster.nodes, workers, t)), 1)
    slots = _slots(cluster.nodes, threads)
    if slots < (workers or 1):
        raise UsageError(
            f"{workers or 1} workers of {threads} processors do not fit: the nodes have "
            f"{', '.join(map(str, cluster.nodes))}. Ask for fewer with --workers or --threads."
        )
    return Pool(max(1, min(workers or slots, most)), threads)


def _fits(nodes: Sequence[int], workers: int | None, threads: int) -> bool:
    """Whether the workers fit; without a number of workers, whether few processors would be idle."""
    slots = _slots(nodes, threads)
    return slots >= workers if workers else slots * threads >= FILLED * sum(nodes)


def _slots(nodes: Sequence[int], threads: int) -> int:
    """How many workers fit. A worker cannot be spread over nodes, so each node is counted by itself."""
    return sum(cpus // threads for cpus in nodes)


class _NotConnectedError(Exception):
    """Ray could not be started or reached."""


@contextmanager
def connected(address: str, cpus: int) -> Iterator[Cluster]:
    """Connect to Ray until the block ends. A local Ray ends with the block, and leaves only logs of a failure.

    A local Ray listens on 127.0.0.1 only, and requires a random token. It gets one processor more than workers may
    take, on which Ray's own small tasks run even when every worker is busy (ray#44687). What Ray writes to stderr goes
    to a file.

    Args:
        address: the cluster; see `is_address`.
        cpus: the number of processors that workers on a local Ray may take.

    Raises:
        UsageError: the address is malformed.
        RuntimeUnavailableError: Ray is not installed.
        NameplateError: Ray cannot be started or reached, or failed in the block; the text says where its logs are.
    """
    if not is_address(address):
        raise UsageError(f"'{address}' is no address of a Ray cluster: give auto, ray://HOST:PORT or HOST:PORT.")
    folder = Path(tempfile.mkdtemp(prefix="nameplate-ray-"))
    kept = False
    try:
        with _noise_in(folder / LOG) as hidden:
            with hidden():
                _connect(_import_ray(address), address, cpus, folder)
            try:
                yield _cluster(address, cpus, folder)
            finally:
                with hidden():
                    _import_ray(address).shutdown()
    except Exception as error:
        if not _is_from_ray(error):  # the block's own errors pass as they are
            raise
        kept = True
        (folder / "failure.txt").write_text("".join(traceback.format_exception(error)), "utf-8")
        there = "" if address == LOCAL else " Those of the workers are on their nodes, /tmp/ray/session_latest/logs."
        raise NameplateError(
            f"Ray at '{address}' failed: {_first_line(error)} Its logs are in '{folder}'.{there}"
        ) from None
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _is_from_ray(error: BaseException) -> bool:
    """Whether Ray has raised an error, by its class: Ray must not be imported just to find out."""
    kinds = type(error).__mro__
    return _NotConnectedError in kinds or any(kind.__module__.split(".")[0] == "ray" for kind in kinds)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:") + "."


def _import_ray(address: str) -> Any:
    os.environ.update(SETTINGS)  # Ray reads them at import time, and its processes inherit them
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address == LOCAL and "ray" not in sys.modules:
        os.environ.update(ALONE | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"--ray needs Ray ('{error.name}' is missing): pip install 'nameplate[ray]'."
        ) from None
    return ray


def _connect(ray: Any, address: str, cpus: int, folder: Path) -> None:
    try:
        if address == LOCAL:
            _start(ray, cpus, folder)
            return
        if address != "auto":
            _knock(address)
        ray.init(address, **QUIET)
    except Exception as error:  # Ray raises exceptions of many kinds
        raise _NotConnectedError(_first_line(error)) from error


def _start(ray: Any, cpus: int, folder: Path) -> None:
    """Start a local Ray, with further attempts if its processes time out on a busy machine."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(
                LOCAL,
                num_cpus=cpus + 1,
                num_gpus=0,
                object_store_memory=STORE,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                **QUIET,
            )
            if ray.util.get_node_ip_address() != "127.0.0.1":  # SETTINGS came too late
                raise RuntimeError("it would listen to other machines, since Ray was imported before Nameplate")
            return
        except Exception:
            ray.shutdown()
            # The last attempt's error is the one that is reported.
            if not left:
                raise


def _knock(address: str) -> None:
    """Check that somebody listens at an address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
        pass


def _cluster(address: str, cpus: int, folder: Path) -> Cluster:
    if address == LOCAL:
        return Cluster(address, (cpus,), folder)
    known = _import_ray(address).nodes()
    nodes = [int(node["Resources"].get("CPU", 0)) for node in known if node["Alive"]]
    if sum(nodes) < 2:
        raise NameplateError(
            f"The Ray cluster at '{address}' has {sum(nodes)} processors: a worker needs one beside Ray."
        )
    largest = nodes.index(max(nodes))
    nodes[largest] -= 1  # one stays free for Ray's own tasks
    return Cluster(address, tuple(n for n in nodes if n), folder)


class _Sink(io.TextIOBase):
    """Stands in for stderr while Ray is imported. Ray's loggers keep it for ever; it writes to the current log."""

    file: TextIO | None = None

    def write(self, text: str) -> int:
        """Write to the log, if there is one."""
        return len(text) if self.file is None else self.file.write(text)

    def flush(self) -> None:
        """Flush the log."""
        if self.file is not None:
            self.file.flush()


_SINK = _Sink()


def _handle(stream: TextIO) -> int | None:
    """Return the file descriptor that a stream writes to; None if it has none."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


@contextmanager
def _noise_in(path: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Redirect to a file what native code writes to stderr, and everything on stdout, where Ray reports dead workers.

    Python's own stderr still reaches the terminal, so progress bars do. The context manager that this one yields
    redirects Python's stderr too.
    """
    python = sys.stderr
    python.flush()
    before = os.dup(2)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        shown = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)

        @contextmanager
        def hidden() -> Iterator[None]:
            visible, sys.stderr = sys.stderr, _SINK
            try:
                yield
            finally:
                sys.stderr = visible

        # Native code writes to descriptor 2 itself, so replacing `sys.stderr` would not catch it.
        os.dup2(file.fileno(), 2)
        _SINK.file = file
        if _handle(python) == 2:  # otherwise something, such as pytest, has redirected it already
            sys.stderr = shown
        try:
            with redirect_stdout(file):
                yield hidden
        finally:
            _SINK.file = None
            shown.flush()
            sys.stderr = python
            os.dup2(before, 2)
            os.close(before)
            shown.close()
