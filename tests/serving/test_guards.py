"""The guards of the real service, as a process of its own: keys, rate, hosts, logs and metrics, all at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from nameplate.demo import photos_folder
from nameplate.serving.headers import HEADERS
from nameplate.serving.keys import add_key, remove_key

PHOTO = sorted(photos_folder("test").glob("*/*.jpg"))[0]
SECONDS = 60.0


@dataclass
class Running:
    url: str
    keys: Path
    key: str
    admin: str
    log: Path
    client: httpx.Client

    def ask(self, method: str, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        sent = headers | ({} if key is None else {"Authorization": f"Bearer {key}"})
        body = PHOTO.read_bytes() if method == "POST" and "identify" in path else None
        return self.client.request(method, self.url + path, headers=sent, content=body)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guards")
    keys, log = folder / "keys", folder / "log"
    key, admin = add_key(keys, "shop"), add_key(keys, "boss", admin=True)
    command = [sys.executable, "-m", "nameplate", "serve", "--port", "0", "--threads", "1", "--json"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--keys", keys, "--rate", "100/minute"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        try:
            assert process.stdout is not None
            said = b"".join(iter(process.stdout.readline, b"}\n")) + b"}"
            with httpx.Client(timeout=SECONDS) as client:
                yield Running(json.loads(said)["url"], keys, key, admin, log, client)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
            assert json.loads(log.read_text("utf-8").splitlines()[-1])["event"] == "stopping"
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_photo_with_a_key_is_answered_and_logged(running: Running) -> None:
    answer = running.ask("POST", "/v1/identify?top=1", running.key, **{"X-Request-ID": "one-photo"})
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "server" not in answer.headers
    (line,) = [line for line in running.lines() if line.get("request") == "one-photo"]
    assert (line["client"], line["model"], line["photos"]) == ("shop", "cars196", 1)
    assert (line["path"], line["received"]) == ("/v1/identify", PHOTO.stat().st_size)


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/none"])
def test_without_a_key_nothing_is_told(running: Running, path: str) -> None:
    assert running.ask("GET", path).status_code == 401
    assert running.ask("GET", path, "np_wrong").status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/service", "/openapi.json"])
def test_what_is_open_is_open(running: Running, path: str) -> None:
    assert running.ask("GET", path).status_code == 200


def test_prometheus_sends_a_key(running: Running) -> None:
    running.ask("POST", "/v1/identify", running.key)
    text = running.ask("GET", "/metrics", running.key).text
    assert 'nameplate_http_requests_total{method="POST",route="/v1/identify",status="200"}' in text
    assert 'nameplate_photos_total{model="cars196",verdict=' in text
    assert 'nameplate_stage_seconds_count{model="cars196",stage="decode"}' in text
    assert 'nameplate_workers_ready{model="cars196"} 1.0' in text
    assert 'nameplate_worker_resident_memory_bytes{model="cars196",worker="0"}' in text


def test_only_admins_exchange_bundles(running: Running) -> None:
    assert running.ask("POST", "/v1/models/cars196/reload", running.key).status_code == 403
    answer = running.ask("POST", "/v1/models/cars196/reload", running.admin)
    assert answer.json()["changed"] is False
    assert (
        'nameplate_reloads_total{model="cars196",outcome="unchanged"} 1.0'
        in running.ask("GET", "/metrics", running.admin).text
    )


def test_keys_come_and_go_without_a_restart(running: Running) -> None:
    late = add_key(running.keys, "late")
    _until(lambda: running.ask("GET", "/v1/models", late).status_code == 200)
    remove_key(running.keys, "late")
    _until(lambda: running.ask("GET", "/v1/models", late).status_code == 401)


def test_a_damaged_file_of_keys_locks_nobody_out(running: Running) -> None:
    whole = running.keys.read_bytes()
    running.keys.write_bytes(whole + b"{")
    try:
        _until(
            lambda: bool(running.ask("GET", "/v1/models", running.key)) and "keys not read" in running.log.read_text()
        )
        assert running.ask("GET", "/v1/models", running.key).status_code == 200
    finally:
        running.keys.write_bytes(whole)


def test_a_rebound_name_and_a_foreign_page_are_refused(running: Running) -> None:
    assert running.ask("GET", "/v1/service", Host="evil.example").status_code == 403
    assert running.ask("POST", "/v1/identify", running.key, Origin="https://evil.example").status_code == 403


def test_who_asks_too_often_waits(running: Running) -> None:
    greedy = add_key(running.keys, "greedy")
    _until(lambda: running.ask("GET", "/v1/models", greedy).status_code == 200)
    statuses = [running.ask("GET", "/v1/models", greedy).status_code for _ in range(101)]
    assert statuses[-1] == 429
    assert running.ask("GET", "/v1/models", running.admin).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["--rate", "fast"], "'fast' is no rate"), (["--keys", "nowhere"], "Cannot read the keys")],
)
def test_wrong_settings_end_it_at_the_start(arguments: list[str], problem: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nameplate", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=SECONDS,
        check=False,
    )
    assert problem in " ".join(done.stderr.split())
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
