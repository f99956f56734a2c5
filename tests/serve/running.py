"""A real server in a separate process, and photos to send to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx

START_SECONDS = 60


@dataclass
class Running:
    """A server that answers."""

    process: subprocess.Popen[str]
    url: str
    said: list[str] = field(default_factory=list)
    """Lines that it wrote to stderr."""

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, path: str, **options: object) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def identify(self, photo: bytes, query: str = "") -> httpx.Response:
        return self.post(f"/v1/identify{query}", content=photo)

    @property
    def workers(self) -> list[int]:
        """Process ids of its workers."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == self.process.pid and b"nameplate.serve.worker" in command:
                found.append(int(entry.name))
        return sorted(found)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(
    *arguments: str | Path, environment: dict[str, str] | None = None, unread: bool = False
) -> Iterator[Running]:
    """`nameplate serve … --port 0`, ready; ended when the block does. `unread`: nobody reads its stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nameplate", "serve", "--port", "0", "--json", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUTF8": "1", **(environment or {})},
    )
    running = Running(process, "")
    assert process.stdout is not None
    assert process.stderr is not None
    errors = process.stderr
    listening = threading.Thread(target=lambda: running.said.extend(errors), daemon=True)
    if not unread:
        listening.start()
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    try:
        first = ""
        for line in process.stdout:  # JSON over several lines
            first += line
            if line.startswith("}"):
                break
        killer.cancel()
        if not first:
            if not unread:
                listening.join(5)
            raise AssertionError(f"The server did not start: {''.join(running.said)}")
        running.url = json.loads(first)["url"]
        yield running
    finally:
        killer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(30)
        if not unread:
            listening.join(5)
        process.stdout.close()
        errors.close()
