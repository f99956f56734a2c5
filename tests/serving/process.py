"""Runs the service as an operator does: a process of its own, on a port that is free."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120.0
"""Seconds for a start, an answer, and an end."""


@dataclass(frozen=True)
class Server:
    """A service that is ready."""

    process: subprocess.Popen[str]
    host: str
    port: int
    said: Path
    """Its standard error."""

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Status, body and headers of an answer."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def serving(*arguments: str | Path, temporary: Path | None = None) -> Iterator[Server]:
    """`nameplate serve …`, ended by SIGTERM with exit code 0 unless the block ended it.

    Args:
        arguments: of the command.
        temporary: its folder for temporary files; None: the usual one.
    """
    command = [sys.executable, "-m", "nameplate", "serve", *map(str, arguments), "--port", "0", "--json"]
    env = {**os.environ, "PYTHONUTF8": "1", **({} if temporary is None else {"TMPDIR": str(temporary)})}
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "stderr"
        with said.open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        with process:
            try:
                assert process.stdout is not None
                told = "".join(iter(process.stdout.readline, "}\n"))
                assert told, said.read_text("utf-8")
                host, _, port = json.loads(told + "}")["url"].removeprefix("http://").rpartition(":")
                server = Server(process, host, int(port), said)
                yield server
                if process.poll() is None:
                    assert server.stop() == 0, said.read_text("utf-8")
            finally:
                process.kill()
