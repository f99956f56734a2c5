"""Measures the service under load: against the bare runtime, against LitServe, and at three times its capacity.

    python benchmarks/serving.py FOLDER -o OUT                               # OUT.json, OUT.png and a table
    python benchmarks/serving.py FOLDER -o OUT --peer-python VENV/bin/python # also LitServe, installed there

Everything runs on this machine: the server, and `load.py`, which sends photos from its own process and whose CPU time
is reported. The bare runtime is `Model.stream` over the same photos from memory. All sides run in turn, so that the
machine is in the same state for each. The answers of a server are compared with those of `Model.stream`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving_plot import serving_plot  # type: ignore[import-not-found]  # beside this file

HERE = Path(__file__).parent
PERCENTILES = (0.5, 0.95, 0.99)
LOADS = (0.5, 0.8)
"""Shares of what the closed loop reached, at which photos arrive in the open loop."""
OVERLOAD = 3.0
NORMAL = 4.0
"""An answer is normal again when it takes no longer than this many times the median at half load."""

Load = dict[str, Any]


def percentile(sample: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of a sample does not exceed: nearest rank, nothing interpolated."""
    return sorted(sample)[math.ceil(share * len(sample)) - 1] if sample else math.nan


def photos_of(folder: Path, number: int) -> list[Path]:
    """So many photos, evenly over the folder."""
    every = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not every:
        raise SystemExit(f"There are no JPEG photos in '{folder}'.")
    return [path.resolve() for path in every[:: max(1, len(every) // number)][:number]]


def bare(photos: Path, arguments: argparse.Namespace) -> None:
    """Decode and infer without a server: prints seconds a pass, and the answers."""
    import msgspec

    from nameplate.model.model import Model
    from nameplate.model.verification import prediction_json

    files = [Path(line).read_bytes() for line in photos.read_text("utf-8").splitlines()]
    model = Model.load(runtime=arguments.runtime, threads=arguments.threads)
    answers = [msgspec.to_builtins(prediction_json(prediction)) for prediction in model.stream(files)]  # warms up
    passes, start = 0, time.perf_counter()
    while time.perf_counter() - start < arguments.seconds:
        list(model.stream(files))
        passes += 1
    rate = passes * len(files) / (time.perf_counter() - start)
    print(json.dumps({"rate": rate, "answers": answers}))


@contextlib.contextmanager
def nameplate(arguments: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """Our server; its process id and address."""
    command = [sys.executable, "-m", "nameplate", "serve", "--port", "0", "--json", "--runtime", arguments.runtime]
    command += [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    command += getattr(arguments, "options", [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
            yield process.pid, said["url"].removeprefix("http://")
        finally:
            process.terminate()


@contextlib.contextmanager
def litserve(arguments: argparse.Namespace) -> Iterator[tuple[int, str]]:
    """LitServe with the same bundle; its process id and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [arguments.peer_python, HERE / "litserve_peer.py", "--port", str(port), "--runtime", arguments.runtime]
    command += ["--workers", str(arguments.peer_workers), "--threads", str(arguments.peer_threads)]
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(command, env=env, **options) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process)
            yield process.pid, f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers outlive it otherwise


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Until it answers with 200."""
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
            if answer.status == 200:
                return
        if process.poll() is not None:
            raise SystemExit(f"The peer ended with {process.returncode}; run its command by hand to see why.")
        time.sleep(0.1)
    raise SystemExit("The peer was not ready within a minute.")


def load(address: str, photos: Path, path: str, arguments: argparse.Namespace, *options: object) -> Load:
    """Run `load.py`; what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "load.json"
        fixed = ["-o", out, "--path", path, "--seconds", arguments.seconds, "--group", arguments.group]
        command = [sys.executable, HERE / "load.py", address, photos, *fixed, *options]
        subprocess.run([str(part) for part in command], check=True)
        done: Load = json.loads(out.read_text("utf-8"))
        return done


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory(pid: int) -> int:
    """Bytes that a process and all below it hold in memory, shared pages counted once (PSS)."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += 1024 * int(rollup.split("\nPss:", 1)[1].split()[0])
    return total


@contextlib.contextmanager
def memory_watch(pid: int) -> Iterator[list[tuple[float, int]]]:
    """A list that fills with seconds and bytes while the block runs."""
    seen: list[tuple[float, int]] = []
    over, start = threading.Event(), time.perf_counter()

    def watch() -> None:
        while not over.wait(0.5):
            seen.append((time.perf_counter() - start, memory(pid)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class Bench:
    """Our server after its warm-up, and what it can do."""

    pid: int
    address: str
    photos: Path
    """The file that lists the photos."""
    capacity: float
    """Photos a second that a closed loop gets."""
    arguments: argparse.Namespace

    def load(self, *options: object) -> Load:
        """Run `load.py` against it."""
        return load(self.address, self.photos, "/v1/identify", self.arguments, *options)


@contextlib.contextmanager
def bench(paths: list[Path], arguments: argparse.Namespace) -> Iterator[Bench]:
    """Start our server, and measure what it can do: capacity is what a closed loop of `arguments.clients` gets."""
    with tempfile.TemporaryDirectory() as folder, nameplate(arguments) as (pid, address):
        photos = Path(folder) / "photos"
        photos.write_text("".join(f"{path}\n" for path in paths), "utf-8")
        load(address, photos, "/v1/identify", arguments, "--seconds", min(3.0, arguments.seconds))  # warms up
        closed = load(address, photos, "/v1/identify", arguments, "--clients", arguments.clients)
        capacity = summary(closed, arguments.group)["photos_per_second"]
        print(
            f"capacity {capacity:.1f} photos/s ({arguments.clients} clients), {memory(pid) / 2**20:.0f} MiB", flush=True
        )
        yield Bench(pid, address, photos, capacity, arguments)


def accepted(done: Load) -> list[float]:
    """Latencies of what was answered with 200, seconds."""
    return [latency for latency, status in zip(done["latencies"], done["statuses"], strict=True) if status == 200]


def summary(done: Load, group: int) -> dict[str, Any]:
    """Figures of one load; latencies in seconds, of what was answered with 200."""
    good = accepted(done)
    figures = {f"p{round(100 * share)}": percentile(good, share) for share in PERCENTILES}
    return {
        "photos_per_second": group * len(good) / done["seconds"],
        **figures,
        "max": max(good, default=math.nan),
        "requests": len(done["statuses"]),
        "statuses": dict(Counter(map(str, done["statuses"]))),
        "load_generator_cpu": done["cpu_seconds"] / done["seconds"],
    }


def agreement(done: Load, expected: dict[str, dict[str, Any]]) -> dict[str, float]:
    """A server's answers against the bare runtime's: how many are the same, and how far confidences lie apart."""
    same, apart, number = 0, 0.0, 0
    for place, answer in done["answers"].items():
        for photo, row in zip(done["groups"][int(place)], json.loads(answer)["results"], strict=True):
            wanted = {key: value for key, value in expected[photo].items() if key != "photo"}
            same += all(row[key] == value for key, value in wanted.items())
            apart = max(apart, abs(row["confidence"] - wanted["confidence"]))
            number += 1
    return {"compared": number, "same": same, "largest_difference": apart}


def measured(
    serve: Callable[[argparse.Namespace], contextlib.AbstractContextManager[tuple[int, str]]],
    path: str,
    photos: Path,
    expected: dict[str, dict[str, Any]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """One server: closed loop, open loops, overload."""
    with serve(arguments) as (pid, address):
        load(address, photos, path, arguments, "--seconds", min(3.0, arguments.seconds))  # warms up
        closed = load(address, photos, path, arguments, "--clients", arguments.clients)
        capacity = len([s for s in closed["statuses"] if s == 200]) / closed["seconds"]
        found: dict[str, Any] = {
            "closed": summary(closed, arguments.group),
            "agreement": agreement(closed, expected),
            "open": {},
        }
        for share in LOADS:
            done = load(address, photos, path, arguments, "--rate", share * capacity)
            found["open"][str(share)] = summary(done, arguments.group) | {"latencies": sorted(accepted(done))}
        if serve is nameplate:
            normal = NORMAL * found["open"][str(LOADS[0])]["p50"]
            before = memory(pid)
            with memory_watch(pid) as seen:
                done = load(address, photos, path, arguments, "--rate", OVERLOAD * capacity, "--normal", normal)
            found["overload"] = summary(done, arguments.group) | {
                "normal_seconds": normal,
                "recovered_seconds": done["recovered_seconds"],
                "memory_before": before,
                "memory_highest": max((count for _, count in seen), default=0),
                "memory_after": memory(pid),
                "memory": seen,
                "points": [
                    list(point) for point in zip(done["ended"], done["latencies"], done["statuses"], strict=True)
                ],
            }
    return found


def median_rates(photos: Path, arguments: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Photos a second of the bare runtime and of the servers' closed loops, in turn; and the bare answers."""
    sides = {"bare": None, "nameplate": nameplate} | ({"litserve": litserve} if arguments.peer_python else {})
    rates: dict[str, list[float]] = {side: [] for side in sides}
    answers: dict[str, Any] = {}
    names = photos.read_text("utf-8").splitlines()
    for _ in range(arguments.rounds):
        for side, serve in sides.items():
            if serve is None:
                command = [sys.executable, __file__, str(photos), "--bare", "--runtime", arguments.runtime]
                command += ["--seconds", str(arguments.seconds)]
                command += [] if arguments.threads is None else ["--threads", str(arguments.threads)]
                said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rates[side].append(said["rate"])
                answers = dict(zip(names, said["answers"], strict=True))
                continue
            path = "/v1/identify" if serve is nameplate else "/predict"
            with serve(arguments) as (_, address):
                load(address, photos, path, arguments, "--seconds", min(3.0, arguments.seconds))
                done = load(address, photos, path, arguments, "--clients", arguments.clients)
            rates[side].append(summary(done, arguments.group)["photos_per_second"])
    return rates, answers


def table(found: dict[str, Any]) -> None:
    """To standard output."""
    middle = {side: statistics.median(rates) for side, rates in found["rates"].items()}
    for side, rates in found["rates"].items():
        rounds = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"{side:10} {middle[side]:7.1f} photos/s, {middle[side] / middle['bare']:.1%} of bare  (rounds {rounds})")
    for side in filter(found.get, ("nameplate", "litserve")):
        for name, done in found[side]["open"].items():
            print(f"{side:10} open loop at {float(name):.0%} of capacity: {line(done)}")
        told = found[side]["agreement"]
        print(f"{side:10} {told['same']} of {told['compared']} answers the same,", end=" ")
        print(f"confidences at most {told['largest_difference']:.2g} apart")
    over = found["nameplate"]["overload"]
    before, highest, after = (over[f"memory_{when}"] / 2**20 for when in ("before", "highest", "after"))
    print(f"overload   {line(over)}")
    print(f"overload   statuses {over['statuses']}; MiB: {before:.0f} before, {highest:.0f} highest, {after:.0f} after")
    print(f"overload   {over['recovered_seconds']} s from its end to an answer in {over['normal_seconds']:.3f} s")


def line(done: dict[str, Any]) -> str:
    """Rate, latencies, and what the load generator took."""
    ranks = ", ".join(f"p{round(100 * share)} {1000 * done[f'p{round(100 * share)}']:.1f} ms" for share in PERCENTILES)
    share = f"load generator {done['load_generator_cpu']:.0%} of a processor"
    return f"{done['photos_per_second']:.1f} photos/s, {ranks}, {share}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a folder of JPEG photos, at any depth")
    parser.add_argument("-o", "--output", type=Path, help="beginning of the names of what is written")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--group", type=int, default=1, help="photos a request (LitServe takes one)")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--peer-python", help="a Python that has litserve")
    parser.add_argument("--peer-workers", type=int, default=1)
    parser.add_argument("--peer-threads", type=int, default=2, help="of each worker")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(arguments.folder, arguments)
        return
    if arguments.output is None:
        parser.error("-o is needed")
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        photos.write_text("".join(f"{path}\n" for path in photos_of(arguments.folder, arguments.photos)), "utf-8")
        rates, expected = median_rates(photos, arguments)
        found: dict[str, Any] = {"rates": rates}
        found["nameplate"] = measured(nameplate, "/v1/identify", photos, expected, arguments)
        if arguments.peer_python:
            found["litserve"] = measured(litserve, "/predict", photos, expected, arguments)
    found["machine"] = {"cpus": os.cpu_count(), "python": platform.python_version(), "processor": platform.processor()}
    found["versions"] = {name: version(name) for name in ("nameplate", "onnxruntime", "uvicorn", "fastapi")}
    found["arguments"] = {key: str(value) for key, value in vars(arguments).items()}
    arguments.output.with_suffix(".json").write_text(json.dumps(found), "utf-8")
    arguments.output.with_suffix(".png").write_bytes(serving_plot(found))
    table(found)


if __name__ == "__main__":
    main()
