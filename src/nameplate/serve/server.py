"""What every HTTP server of this package shares: a socket to listen on, and uvicorn without its signal handlers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from nameplate.errors import NameplateError


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process by the signal instead of with exit code 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the caller."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0 chooses a free one.

    Raises:
        NameplateError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise NameplateError(f"Cannot listen on {host}:{port}: {error}. Choose another --port or --host.") from None
    return listener
