"""Measures what a job costs those who wait: latencies with and without one under way, and how fast it gets on.

    python benchmarks/jobs.py FOLDER                  # a table

Capacity is what a closed loop of 32 clients gets. Then requests arrive by a Poisson process at shares of it, in turn
without and with a job of many photos; at last the job is alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from serving import Bench, bench, photos_of, summary  # type: ignore[import-not-found]  # beside this file

JOB_PHOTOS = 5000
"""More than are answered while one load lasts."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a folder of JPEG photos, at any depth")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5], help="of the capacity")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    arguments.group = 1
    paths = photos_of(arguments.folder, arguments.photos)
    with tempfile.TemporaryDirectory() as jobs:
        arguments.options = ["--jobs", jobs]
        with bench(paths, arguments) as server:
            measure(server, zipped(paths), arguments)


def measure(server: Bench, job: bytes, arguments: argparse.Namespace) -> None:
    """Print what a job costs others, and how fast it gets on."""
    for share in arguments.shares:
        for _ in range(arguments.rounds):
            rate = ("--rate", share * server.capacity)
            show(f"{share:.0%} of it", summary(server.load(*rate), 1))
            with running(server.address, job) as speed:
                found = summary(server.load(*rate), 1)
                show(f"{share:.0%}, with a job", found, speed())
    with running(server.address, job) as speed:
        time.sleep(arguments.seconds)
        print(f"the job alone: {speed():.1f} photos/s")


def show(what: str, found: dict[str, float], job: float | None = None) -> None:
    """Print a row."""
    waits = ", ".join(f"{name} {1000 * found[name]:.0f} ms" for name in ("p50", "p95", "p99"))
    gets_on = "" if job is None else f"; the job {job:.1f} photos/s"
    print(f"{what:16} {found['photos_per_second']:.1f} photos/s, {waits}, {found['statuses']}{gets_on}", flush=True)


def zipped(paths: list[Path]) -> bytes:
    """A zip of `JOB_PHOTOS` photos, these again and again."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for number in range(JOB_PHOTOS):
            archive.write(paths[number % len(paths)], f"{number}.jpg")
    return written.getvalue()


@contextlib.contextmanager
def running(address: str, body: bytes) -> Iterator[Callable[[], float]]:
    """A job that is under way; yields a function that says how many of its photos are answered a second."""

    def ask(method: str, path: str, data: bytes | None = None) -> dict[str, int | str]:
        request = urllib.request.Request(f"http://{address}{path}", data, method=method)
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return dict(json.loads(answer.read() or b"{}"))

    path = f"/v1/jobs/{ask('POST', '/v1/jobs', body)['id']}"
    while not ask("GET", path)["done"]:
        time.sleep(0.05)
    began, first = time.perf_counter(), int(ask("GET", path)["done"])
    yield lambda: (int(ask("GET", path)["done"]) - first) / (time.perf_counter() - began)
    ask("DELETE", path)


if __name__ == "__main__":
    main()
