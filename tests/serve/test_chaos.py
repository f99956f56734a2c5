"""The service among hostile photos, clients that hang up, workers that die and a model that is exchanged.

What must hold: each answer is what `Model.predict` says of these bytes, each refusal is one that is documented, nothing
is left behind, and at the end the service is ready, idle and obedient.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import msgspec
import pytest

from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.demo import photo
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.model.model import Model
from nameplate.model.verification import prediction_json
from nameplate.types import Limits
from tests.serve.broken import photo_pool
from tests.serve.running import Running, serving

pytest.importorskip("fastapi")

CLIENTS = 5
MOST = 12
"""Photos a request, and in the queue: one that is never given back is missed at the end."""
BUSY = {"full", "late", "not-ready"}
"""Refusals for want of room; all others are a photo's own fault, or the request's."""
KILLED = "damaged: the decoder died of it, twice"
"""What is said of a photo that was at work in two workers when each was killed."""
MOST_KILLED = 0.02
"""Share of photos that may be so unlucky."""
FILES, THREADS, MEMORY = 8, 8, 64 << 20
"""How many more file descriptors, threads and bytes the HTTP process may have afterwards."""


@dataclass
class Said:
    """What came back, to be judged when all is over."""

    rows: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    """Model's digest, photo, row; of a protocol's answer the digest's beginning and the nameplate alone."""
    refused: Counter[str] = field(default_factory=Counter)
    """Kinds of problem."""
    unexplained: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """What was done to it."""


class Client:
    """One of those that make trouble, each with a chance of its own."""

    def __init__(self, server: Running, pool: list[bytes], said: Said, seed: int) -> None:
        self.url, self.pool, self.said, self.draw = server.url, pool, said, random.Random(seed)
        self.host, port = server.url.removeprefix("http://").split(":")
        self.port = int(port)
        self.http = httpx.Client(base_url=server.url, timeout=60)

    def run(self, until: float) -> None:
        """Make trouble."""
        acts: list[Callable[[], None]] = [self.identify] * 6 + [self.protocol] * 2
        acts += [self.leave_before_the_end, self.leave_before_the_answer, self.nonsense]
        with self.http:
            while time.monotonic() < until:
                act = self.draw.choice(acts)
                try:
                    act()
                except Exception as error:
                    self.said.unexplained.append(f"{act.__name__}: {error!r}")
                self.said.done[act.__name__] += 1

    def identify(self) -> None:
        photos = self.draw.choices(self.pool, k=self.draw.choice((1, 1, 1, 2, 5)))
        answer = self.http.post("/v1/identify", files=[("photos", (f"{n}", data)) for n, data in enumerate(photos)])
        told = self.json(answer)
        if answer.status_code == 200:
            digest, rows = told["model"]["digest"], told["results"]
        elif "results" in told and answer.status_code in (413, 415, 422):
            digest, rows = "", told["results"]
        else:
            self.refusal(answer.status_code, told.get("type", "").rpartition(":")[2], answer.text)
            return
        for data, row in zip(photos, rows, strict=True):
            self.said.rows.append((digest, data, row))

    def json(self, answer: httpx.Response) -> dict[str, Any]:
        """What it says, in whatever form."""
        assert "json" in answer.headers.get("Content-Type", ""), f"{answer.status_code}: {answer.text[:300]!r}"
        told: dict[str, Any] = answer.json()
        return told

    def protocol(self) -> None:
        data = self.draw.choice(self.pool)
        tail = struct.pack("<I", len(data)) + data
        given = {"name": "photo", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
        head = json.dumps({"inputs": [given], "outputs": [{"name": "nameplate"}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = self.http.post(f"/v2/models/{DEFAULT_BUNDLE}/infer", content=head + tail, headers=headers)
        told = self.json(answer)
        if answer.status_code == 200:
            row = {"nameplate": told["outputs"][0]["data"][0]}
        elif answer.status_code in (413, 415, 422) and told["error"].startswith("photo 1 of 1: "):
            row = {"error": told["error"].removeprefix("photo 1 of 1: ").removesuffix(".")}
        else:
            self.refusal(answer.status_code, "full" if answer.status_code == 503 else "", answer.text)
            return
        self.said.rows.append((told.get("model_version", ""), data, row))

    def refusal(self, status: int, kind: str, text: str) -> None:
        self.said.refused[kind] += 1
        if (status, kind) not in {(503, busy) for busy in BUSY}:
            self.said.unexplained.append(f"{status} {kind}: {text[:300]}")

    def leave_before_the_end(self) -> None:
        self.leave(self.draw.uniform(0, 1))

    def leave_before_the_answer(self) -> None:
        self.leave(1.0)

    def leave(self, share: float) -> None:
        """Send so much of a request, wait a moment, and hang up, perhaps with a reset."""
        data = self.draw.choice(self.pool)
        sent = f"POST /v1/identify HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            if self.draw.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                connection.sendall(sent[: round(share * len(sent))])
                time.sleep(self.draw.choice((0.0, 0.005, 0.05)))

    def nonsense(self) -> None:
        path = self.draw.choice(["/v1/identify", "/v1/verify", f"/v2/models/{DEFAULT_BUNDLE}/infer", "/v1/nothing"])
        kind = self.draw.choice(["multipart/form-data; boundary=x", "multipart/form-data", "image/jpeg", "text/plain"])
        body = self.draw.choice([b"--x\r\n", b"{", b""]) + self.draw.randbytes(self.draw.randint(0, 200))
        answer = self.http.post(path, content=body, headers={"Content-Type": kind})
        if not 400 <= answer.status_code < 500 and answer.status_code != 503:
            self.said.unexplained.append(f"nonsense got {answer.status_code}: {answer.text[:300]}")


@dataclass(frozen=True)
class Use:
    """What the HTTP process holds."""

    files: int
    threads: int
    memory: int

    @classmethod
    def of(cls, server: Running) -> Use:
        here = Path(f"/proc/{server.process.pid}")
        status = dict(line.split(":", 1) for line in (here / "status").read_text().splitlines())
        files = len(list((here / "fd").iterdir()))
        return cls(files, int(status["Threads"]), 1024 * int(status["VmRSS"].split()[0]))


def renamed(source: Path, target: Path) -> None:
    """The same model, which calls each nameplate by another name."""
    bundle = load_bundle(source)
    names = tuple(f"New {name}" for name in bundle.manifest.nameplates)
    manifest = replace(bundle.manifest, nameplates=names, golden=None)
    save_bundle(target, replace(bundle, manifest=manifest))


def kill_workers(server: Running, said: Said, draw: random.Random, over: threading.Event, calm: threading.Lock) -> None:
    """Every now and then, as the kernel does that has no memory left; not while `calm` is held."""
    while not over.wait(draw.uniform(4, 12)):
        for pid in server.workers[:1]:
            with calm, contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                said.done["kill"] += 1


def wrong(said: Said, models: dict[str, Model]) -> list[str]:
    """Rows that are not what the models say of the bytes."""
    found, killed = [], 0
    truth = {
        digest: {data: _plain(prediction_json(p)) for data, p in zip(pool, model.predict(pool), strict=True)}
        for digest, model in models.items()
        for pool in [list({data for _, data, _ in said.rows})]
    }
    for digest, data, row in said.rows:
        if row.get("error", "") == KILLED:
            killed += 1
            continue
        named = [y_true[data] for full, y_true in truth.items() if full.startswith(digest)]
        if not any(all(expected.get(key) == value for key, value in _plain(row).items()) for expected in named):
            found.append(f"{digest[:12]}: {row}, not {named}")
    if killed > MOST_KILLED * len(said.rows):
        found.append(f"{killed} of {len(said.rows)} photos were given up because their workers died")
    return found


def _plain(row: object) -> dict[str, Any]:
    """A row as JSON has it, without what the photo is called."""
    return {key: value for key, value in msgspec.json.decode(msgspec.json.encode(row)).items() if key != "photo"}


@pytest.mark.parametrize("seconds", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_no_answer_is_wrong_or_lost_and_nothing_is_left_behind(seconds: int, tmp_path: Path) -> None:
    original = load_bundle(DEFAULT_BUNDLE).folder
    assert original is not None
    bundle, other, temporary = tmp_path / "bundle", tmp_path / "other", tmp_path / "temporary"
    shutil.copytree(original, bundle)
    renamed(original, other)
    temporary.mkdir()
    draw, said, over = random.Random(seconds), Said(), threading.Event()
    calm = threading.Lock()
    pool = photo_pool(draw, 120)
    digests: dict[str, Model] = {}

    def serve(model: Path) -> None:
        """From now on this model, if the service takes it."""
        limits = Limits(bytes=20 << 20)
        digests[server.get("/v1/models").json()["models"][0]["digest"]] = Model.load(
            model, runtime="onnxruntime", limits=limits
        )

    with serving(bundle, "--photos", str(MOST), "--queue", str(MOST), environment={"TMPDIR": str(temporary)}) as server:
        serve(original)
        Client(server, pool, said, 0).run(time.monotonic() + 3)  # what is opened once is open then
        before = Use.of(server)
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS + 1) as threads:
            troubling = [threads.submit(Client(server, pool, said, seed).run, end) for seed in range(1, CLIENTS + 1)]
            killing = threads.submit(kill_workers, server, said, draw, over, calm)
            time.sleep(seconds / 2)
            shutil.rmtree(bundle)
            shutil.copytree(other, bundle)
            with calm:  # a new worker that is killed before it is warm is a reason to keep the old model
                exchanged = server.post(f"/v1/models/{DEFAULT_BUNDLE}/reload")
            if exchanged.status_code != 200:
                said.unexplained.append(f"reload: {exchanged.text}")
            serve(other)
            for each in troubling:
                each.result()
            over.set()
            killing.result()
        ready_by = time.monotonic() + 30
        while server.get("/health/ready").status_code != 200 or len(server.workers) != 1:
            assert time.monotonic() < ready_by
            time.sleep(0.1)
        full = server.post("/v1/identify", files=[("photos", (str(n), photo().read_bytes())) for n in range(MOST)])
        after = Use.of(server)
        code, errors = server.stop(), "".join(server.said)
    print(dict(said.done), dict(said.refused), f"{len(said.rows)} rows", before, after)
    assert said.unexplained == [], (said.unexplained, errors)
    assert full.status_code == 200, full.text
    assert wrong(said, digests) == []
    assert len(digests) == 2
    assert (after.files <= before.files + FILES, after.threads <= before.threads + THREADS) == (True, True)
    assert after.memory <= before.memory + MEMORY
    assert "Traceback" not in errors, errors
    assert code == 0
    assert list(temporary.iterdir()) == []
