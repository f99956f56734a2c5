"""All guards of the real service together, in a separate process: keys, rate, hosts, logs and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from nameplate.demo import photos_folder
from nameplate.serve.keys import add_key, remove_key
from nameplate.serve.middleware import HEADERS
from tests.serve.running import Running, serving

PHOTO = sorted(photos_folder("test").glob("*/*.jpg"))[0]
SECONDS = 60.0


@dataclass
class Guarded:
    """A running service with keys, and those keys."""

    running: Running
    keys: Path
    key: str
    admin: str
    client: httpx.Client

    def ask(self, method: str, path: str, key: str | None = None, **headers: str) -> httpx.Response:
        sent = headers | ({} if key is None else {"Authorization": f"Bearer {key}"})
        body = PHOTO.read_bytes() if method == "POST" and "identify" in path else None
        return self.client.request(method, self.running.url + path, headers=sent, content=body)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.running.said]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    keys = tmp_path_factory.mktemp("guards") / "keys"
    key, admin = add_key(keys, "shop"), add_key(keys, "boss", admin=True)
    with (
        serving("--threads", "1", "--keys", keys, "--rate", "100/minute") as running,
        httpx.Client(timeout=SECONDS) as client,
    ):
        yield Guarded(running, keys, key, admin, client)
        assert running.stop() == 0


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_photo_with_a_key_is_answered_and_logged(guarded: Guarded) -> None:
    answer = guarded.ask("POST", "/v1/identify?top=1", guarded.key, **{"X-Request-ID": "one-photo"})
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "server" not in answer.headers
    _until(lambda: any("one-photo" in line for line in guarded.running.said))
    (line,) = [line for line in guarded.lines() if line.get("request") == "one-photo"]
    assert (line["client"], line["model"], line["photos"]) == ("shop", "cars196", 1)
    assert (line["path"], line["received"]) == ("/v1/identify", PHOTO.stat().st_size)


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/none"])
def test_without_a_key_nothing_is_revealed(guarded: Guarded, path: str) -> None:
    assert guarded.ask("GET", path).status_code == 401
    assert guarded.ask("GET", path, "np_wrong").status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/service", "/openapi.json"])
def test_open_paths_need_no_key(guarded: Guarded, path: str) -> None:
    assert guarded.ask("GET", path).status_code == 200


def test_prometheus_sends_a_key(guarded: Guarded) -> None:
    guarded.ask("POST", "/v1/identify", guarded.key)
    text = guarded.ask("GET", "/metrics", guarded.key).text
    assert 'nameplate_http_requests_total{method="POST",route="/v1/identify",status="200"}' in text
    assert 'nameplate_photos_total{model="cars196",verdict=' in text
    assert 'nameplate_stage_seconds_count{model="cars196",stage="decode"}' in text
    assert 'nameplate_workers_ready{model="cars196"} 1.0' in text
    assert 'nameplate_worker_resident_memory_bytes{model="cars196",worker="0"}' in text


def test_only_admins_exchange_bundles(guarded: Guarded) -> None:
    assert guarded.ask("POST", "/v1/models/cars196/reload", guarded.key).status_code == 403
    answer = guarded.ask("POST", "/v1/models/cars196/reload", guarded.admin)
    assert answer.json()["changed"] is False
    assert (
        'nameplate_reloads_total{model="cars196",outcome="unchanged"} 1.0'
        in guarded.ask("GET", "/metrics", guarded.admin).text
    )


def test_keys_come_and_go_without_a_restart(guarded: Guarded) -> None:
    late = add_key(guarded.keys, "late")
    _until(lambda: guarded.ask("GET", "/v1/models", late).status_code == 200)
    remove_key(guarded.keys, "late")
    _until(lambda: guarded.ask("GET", "/v1/models", late).status_code == 401)


def test_a_damaged_file_of_keys_locks_nobody_out(guarded: Guarded) -> None:
    def noticed() -> bool:
        assert guarded.ask("GET", "/v1/models", guarded.key).status_code == 200
        return any("keys not read" in line for line in guarded.running.said)

    whole = guarded.keys.read_bytes()
    guarded.keys.write_bytes(whole + b"{")
    try:
        _until(noticed)
    finally:
        guarded.keys.write_bytes(whole)


def test_a_rebound_name_and_a_foreign_page_are_refused(guarded: Guarded) -> None:
    assert guarded.ask("GET", "/v1/service", Host="evil.example").status_code == 403
    assert guarded.ask("POST", "/v1/identify", guarded.key, Origin="https://evil.example").status_code == 403


def test_a_proxy_on_this_machine_names_the_client(guarded: Guarded) -> None:
    guarded.ask("GET", "/v1/service", **{"X-Forwarded-For": "198.51.100.9, 203.0.113.5"})
    _until(lambda: any(line.get("client") == "203.0.113.5" for line in guarded.lines()))


def test_a_client_above_its_rate_waits(guarded: Guarded) -> None:
    greedy = add_key(guarded.keys, "greedy")
    _until(lambda: guarded.ask("GET", "/v1/models", greedy).status_code == 200)
    statuses = [guarded.ask("GET", "/v1/models", greedy).status_code for _ in range(101)]
    assert statuses[-1] == 429
    assert guarded.ask("GET", "/v1/models", guarded.admin).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["--rate", "fast"], "'fast' is no rate"), (["--keys", "nowhere"], "Cannot read the keys")],
)
def test_wrong_settings_stop_it_at_the_start(arguments: list[str], problem: str, tmp_path: Path) -> None:
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
