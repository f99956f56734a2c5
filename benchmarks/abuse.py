"""Which servers survive hostile clients: `nameplate serve`, plain uvicorn with FastAPI, and LitServe, with one model.

    python benchmarks/abuse.py                                # our server alone; a table in Markdown
    python benchmarks/abuse.py --option=--connections-per-address=0  # without the limit on an address's connections
    python benchmarks/abuse.py --peer-python VENV/bin/python  # and the others, installed there: see plain_peer.py

Each attack of `attacks.py` goes on for some seconds against a server that was just started, from 127.0.0.2, while an
honest client on 127.0.0.1 sends one photo after the other. Server, attacker and client share this machine, so even an
attack that the server bears well takes processor time. A cell says how many photos a second the honest client had
answered, in per cent of those in the seconds before the attack; its longest wait, where that was over a second; by how
much the memory of all the server's processes grew; and whether a photo was answered within a minute afterwards.

Servers get a soft limit of 1,024 open files, as Linux and systemd give it to a process by default; they may raise it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import resource
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import Attack, Target, attacks, bomb, giant  # type: ignore[import-not-found]  # beside this file
from nameplate.demo import photo
from nameplate.model.bundle import load_bundle
from serving import memory, nameplate, wait_for  # type: ignore[import-not-found]

HERE = Path(__file__).parent
ATTACKER = "127.0.0.2"
PATIENCE = 10.0
"""Seconds that the honest client waits for an answer."""
AFTERWARDS = 60.0
"""Seconds within which a server must answer after an attack."""
MOST_MEMORY = 4 * 2**30
"""An attack is ended when a server holds so many bytes: this machine must survive too."""
MEBIBYTE = 2**20
OPEN_FILES = 1024
"""The soft limit of every server."""

Server = Callable[[argparse.Namespace], AbstractContextManager[tuple[int, Target]]]
"""Starts a server: its process id, and where it is."""


@contextlib.contextmanager
def ours(arguments: argparse.Namespace) -> Iterator[tuple[int, Target]]:
    """`nameplate serve`; it names whole photos, as the others do."""
    with nameplate(arguments) as (pid, address):
        yield pid, Target("127.0.0.1", int(address.rpartition(":")[2]), photos="/v1/identify?whole=true")


@contextlib.contextmanager
def peer(kind: str, arguments: argparse.Namespace) -> Iterator[tuple[int, Target]]:
    """Another server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bundle = load_bundle("cars196").folder
    command = [arguments.peer_python, HERE / "plain_peer.py", kind, bundle, "--port", port]
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen([str(part) for part in command], **options) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process)
            yield process.pid, Target("127.0.0.1", port, "/health", "/predict")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers outlive it otherwise


class Honest:
    """A client that sends one photo after the other, as long as it is told to."""

    def __init__(self, target: Target, photo: bytes) -> None:
        self.target, self.photo = target, photo
        self.waits: list[float] = []
        """Seconds to each answer."""

    def once(self, patience: float = PATIENCE) -> bool:
        """Send the photo, on a connection of its own; whether it was answered."""
        start = time.monotonic()
        connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=patience)
        head = b'--honest\r\nContent-Disposition: form-data; name="photos"; filename="car.jpg"\r\n\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=honest"}
        try:
            connection.request("POST", self.target.photos, head + self.photo + b"\r\n--honest--\r\n", kind)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
            self.waits.append(time.monotonic() - start)
        return answer.status == 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack did to a server."""

    alone: float
    """Photos of the honest client that were answered in a second before the attack."""
    rate: float
    """The same during the attack."""
    longest: float
    """Its longest wait, answered or not, in seconds."""
    growth: int
    """Bytes by which the server's memory grew at most."""
    ended: bool
    """Whether the attack was ended because the server took all memory that it may."""
    alive: bool
    """Whether it answered a photo afterwards."""


def suffered(server: Server, attack: str, photo: bytes, arguments: argparse.Namespace) -> Outcome:
    """Start a server and attack it."""
    with server(arguments) as (pid, target):
        honest = Honest(target, photo)
        for _ in range(10):  # warms up
            honest.once(60)
        start, answered = time.monotonic(), 0
        while time.monotonic() - start < arguments.seconds / 2:
            answered += honest.once()
        alone = answered / (time.monotonic() - start)
        before = most = memory(pid)
        honest.waits.clear()
        hostile = Target(target.host, target.port, target.alive, target.photos, ATTACKER)
        attacking = multiprocessing.get_context("fork").Process(
            target=_attack, args=(attack, hostile, photo, arguments.seconds)
        )
        attacking.start()
        start, answered, next_look = time.monotonic(), 0, 0.0
        while (passed := time.monotonic() - start) < arguments.seconds:
            answered += honest.once()
            if passed > next_look:
                most, next_look = max(most, memory(pid)), passed + 0.5
                if most > MOST_MEMORY:
                    break
        rate, longest, ended = answered / (time.monotonic() - start), max(honest.waits), most > MOST_MEMORY
        most = max(most, memory(pid))
        attacking.kill()
        attacking.join()
        end = time.monotonic() + AFTERWARDS
        alive = False
        while not alive and (left := end - time.monotonic()) > 0:
            alive = honest.once(left)
            time.sleep(0.2)
        return Outcome(alone, rate, longest, most - before, ended, alive)


def _attack(name: str, target: Target, photo: bytes, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    attack: Attack = attacks(target, photo)[name]
    attack(target, time.monotonic() + seconds)


def cell(found: Outcome) -> str:
    """What is shown of an outcome."""
    parts = [f"{found.rate / found.alone:.0%}"]
    if found.longest > 1:
        parts.append(f"≤ {found.longest:.1f} s")
    parts.append(f"{'over ' if found.ended else ''}{found.growth / MEBIBYTE:+,.0f} MiB")
    return ", ".join([*parts, "alive" if found.alive else "**dead**"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=8, help="of each attack")
    parser.add_argument("--attack", action="append", help="only these; repeatable")
    parser.add_argument(
        "--option", action="append", default=[], dest="options", help="of our server: --option=--rate=9/second"
    )
    parser.add_argument("--peer-python", help="a Python that has the other servers")
    arguments = parser.parse_args()
    arguments.runtime, arguments.threads = "onnxruntime", None
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    small = photo().read_bytes()
    servers: dict[str, Server] = {"nameplate serve": ours}
    if arguments.peer_python:
        servers |= {
            "uvicorn and FastAPI": lambda arguments: peer("uvicorn", arguments),
            "LitServe": lambda arguments: peer("litserve", arguments),
        }
    print("| attack | " + " | ".join(servers) + " |\n| --- |" + " --- |" * len(servers), flush=True)
    giant(), bomb()  # made once, before any attack begins: it takes seconds
    alone: dict[str, list[float]] = {name: [] for name in servers}
    for attack in arguments.attack or attacks(Target("", 0), small):
        found = {name: suffered(server, attack, small, arguments) for name, server in servers.items()}
        print(f"| {attack} | " + " | ".join(map(cell, found.values())) + " |", flush=True)
        for name, outcome in found.items():
            alone[name].append(outcome.alone)
    rates = (f"{statistics.median(each):.1f} ({min(each):.1f}–{max(each):.1f})" for each in alone.values())
    print("| photos a second before the attacks: median, range | " + " | ".join(rates) + " |")


if __name__ == "__main__":
    main()
