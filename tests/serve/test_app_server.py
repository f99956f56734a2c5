"""The server as its users see it: a separate process, reached over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nameplate.demo import photo
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.model.model import Model
from tests.cli.run import nameplate
from tests.images import torture
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()
STATUS = {"not a photo": 415, "too large": 413}
"""Statuses of what cannot be read; 422 for the rest."""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of every format that is read, and broken ones."""
    folder = tmp_path_factory.mktemp("files")
    for name, data in torture.sound().items():
        (folder / name).write_bytes(data)
    for name, (data, _) in torture.broken().items():
        (folder / name).write_bytes(data)
    shutil.copy(photo(), folder / "car.jpg")
    return folder


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def test_every_format_gets_the_answer_of_identify_to_the_last_digit(server: Running, files: Path) -> None:
    paths = [files / name for name in [*torture.sound(), "car.jpg"]]
    said = json.loads(nameplate("identify", "--json", "--runtime", "onnxruntime", *paths).stdout)
    assert len(said) == len(paths) > 30
    for path, expected in zip(paths, said, strict=True):
        alone = server.post("/v1/identify", files={"photos": (str(path), path.read_bytes())}).json()["results"]
        assert alone == [expected], path.name
        raw = server.identify(path.read_bytes()).json()["results"]
        assert raw == [expected | {"photo": "photo 1"}], path.name
    together = server.post("/v1/identify", files=[("photos", (str(p), p.read_bytes())) for p in paths[:20]]).json()
    assert together["results"] == said[:20]


def test_a_poor_photo_says_what_is_wrong_with_it_and_is_counted(server: Running) -> None:
    file = io.BytesIO()
    Image.open(photo()).convert("RGB").resize((48, 36)).save(file, "PNG")
    counted = 'nameplate_photos_total{model="cars196",verdict="poor photo"}'
    [row] = server.identify(file.getvalue()).json()["results"]
    assert (row["verdict"], row["candidates"]) == ("poor photo", [])
    assert row["flaws"][0] == "small"
    assert counted in server.get("/metrics").text
    [good] = server.identify(PHOTO).json()["results"]
    assert "flaws" not in good
    form = {"files": {"photos": ("a.png", file.getvalue())}, "data": {"claimed": "BMW M3"}}
    claim = server.post("/v1/verify", **form).json()
    assert (claim["verdict"], claim["code"], claim["score"]) == ("unsure", "poor photo", None)
    assert claim["photos"][0]["flaws"] == row["flaws"]
    forms = server.get("/openapi.json").json()["components"]["schemas"]["Row"]["properties"]
    assert "poor photo" in forms["verdict"]["enum"]
    assert set(forms["flaws"]["items"]["enum"]) == {"small", "dark", "blurred"}


def test_answers_of_real_photos_are_those_of_identify(server: Running, cars196: Path) -> None:
    paths = sorted(cars196.glob("*/*.jpg"))[::170]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: server.identify(path.read_bytes()).json()["results"][0], paths))
    said = json.loads(nameplate("identify", "--json", "--runtime", "onnxruntime", *paths).stdout)
    assert found == [row | {"photo": "photo 1"} for row in said]


def test_what_cannot_be_read_is_refused_with_the_reason_that_identify_gives(server: Running, files: Path) -> None:
    broken = torture.broken()
    said = json.loads(nameplate("identify", "--json", *(files / name for name in broken), check=1).stdout)
    for (name, (data, reason)), expected in zip(broken.items(), said, strict=True):
        answer = server.identify(data)
        if not data:  # a body of nothing holds no photo
            assert answer.status_code == 422
            continue
        problem = answer.json()
        assert (answer.status_code, problem["reason"]) == (STATUS.get(reason, 422), reason), name
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == answer.status_code
        assert problem["results"] == [expected | {"photo": "photo 1"}]


def test_one_broken_photo_does_not_stop_the_others(server: Running) -> None:
    answer = server.post("/v1/identify", files=[("photos", ("a.jpg", PHOTO)), ("photos", ("b.jpg", PHOTO[:1000]))])
    assert answer.status_code == 200
    first, second = answer.json()["results"]
    assert "error" not in first
    assert second["verdict"] == "unreadable"
    assert second["error"].startswith("truncated: ")


def test_the_heat_map_is_a_picture_of_the_photo(server: Running) -> None:
    [row] = server.identify(PHOTO, "?heatmap=true&top=2").json()["results"]
    heat = row["heatmap"]
    assert len(row["top"]) == 2
    assert heat["nameplate"] == row["nameplate"]
    with Image.open(io.BytesIO(base64.b64decode(heat["png"]))) as drawn, Image.open(io.BytesIO(PHOTO)) as original:
        assert max(drawn.size) == 640
        assert (heat["width"], heat["height"]) == original.size
    assert len({len(line) for line in heat["evidence"]}) == 1


def test_verify_says_what_the_command_says(server: Running, files: Path) -> None:
    paths = [files / "car.jpg", files / "baseline.jpg", files / "empty.jpg"]
    said = json.loads(nameplate("verify", "--claimed", "jeep", "--json", "--false-accepts", "0.05", *paths).stdout)
    answer = server.post(
        "/v1/verify?false_accepts=0.05",
        data={"claimed": "jeep"},
        files=[("photos", (str(path), path.read_bytes())) for path in paths],
    ).json()
    model = answer.pop("model")
    assert said.pop("left_out") == []  # a server lists no folders
    assert answer == said
    assert model["name"] == "cars196"


@pytest.mark.parametrize(
    ("path", "options", "status", "says"),
    [
        ("/v1/identify", {}, 422, "There is no photo"),
        ("/v1/identify?model=cars", {"content": PHOTO}, 404, "Did you mean 'cars196'"),
        ("/v1/identify?top=0", {"content": PHOTO}, 422, "top"),
        ("/v1/identify", {"files": {"picture": PHOTO}}, 422, "field 'photos'"),
        ("/v1/identify", {"files": [("photos", PHOTO)] * 21}, 413, "brings 21 photos; at most 20 are allowed"),
        ("/v1/identify", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
        ("/v1/verify", {"files": {"photos": PHOTO}}, 422, "claimed"),
        ("/v1/verify", {"files": {"photos": PHOTO}, "data": {"claimed": "Jeep Libertie"}}, 422, "Did you mean 'Jeep"),
        ("/v1/verify?false_accepts=0.9", {"files": {"photos": PHOTO}, "data": {"claimed": "Jeep"}}, 422, "0.2"),
        ("/v1/nothing", {}, 404, "Not Found"),
        ("/health/live", {}, 405, "Method"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    server: Running, path: str, options: dict[str, Any], status: int, says: str
) -> None:
    answer = server.post(path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert answer.json().get("code") == ("unknown claim" if says.startswith("Did you mean 'Jeep") else None)


def test_verify_uses_the_thresholds_of_the_given_kind_of_false_claims(server: Running) -> None:
    def asked(lies: str) -> dict[str, Any]:
        path = f"/v1/verify?false_accepts=0.05&false_accepts_of={lies}"
        found: dict[str, Any] = server.post(path, data={"claimed": "Jeep Liberty"}, files={"photos": PHOTO}).json()
        return found

    cuts = [asked(lies)["accept_above"] for lies in ("random", "same-make", "alike")]
    assert cuts == sorted(cuts)
    assert asked("alike")["false_accepts"]["alike"] <= 0.05
    assert asked("odd")["status"] == 422


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_photo_that_is_too_large_is_refused(server: Running) -> None:
    answer = server.identify(PHOTO + bytes(21 << 20))
    assert answer.status_code == 413
    assert "20,971,520" in answer.json()["detail"]


def test_clients_that_disconnect_leave_nothing_behind(server: Running) -> None:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    for sent in (100, len(PHOTO) // 2, len(PHOTO)):
        for _ in range(5):
            with socket.create_connection(address) as connection:
                head = f"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(PHOTO)}\r\n\r\n"
                connection.sendall(head.encode() + PHOTO[:sent])
    assert server.identify(PHOTO).status_code == 200


def test_the_service_describes_its_models_and_limits(server: Running) -> None:
    [served] = server.get("/v1/models").json()["models"]
    assert (served["name"], served["default"], served["runtime"], served["ready"]) == (
        "cars196",
        True,
        "onnxruntime",
        True,
    )
    assert len(served["nameplates"]) == len(served["makes"]) == 206
    about = server.get("/v1/service").json()
    assert (about["feedback"], about["keys"], about["limits"]["photos"]) == (False, False, 20)
    assert server.get("/health/ready").json() == {"ready": True, "models": {"cars196": True}}
    document = server.get("/openapi.json").json()
    assert {"/v1/identify", "/v1/verify", "/v1/models", "/health/ready"} <= set(document["paths"])


def test_a_killed_worker_comes_back_and_meanwhile_it_is_not_ready(server: Running) -> None:
    [pid] = server.workers
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.get("/health/ready").status_code == 503)
    assert server.get("/health/live").status_code == 200
    assert server.identify(PHOTO).status_code == 200  # it waits for the new one
    assert server.get("/health/ready").status_code == 200
    assert server.workers != [pid]


def test_test_time_augmentation_answers_as_identify_does(files: Path) -> None:
    [said] = json.loads(nameplate("identify", "--tta", "full", "--json", files / "car.jpg").stdout)
    with serving("--tta", "full") as running:
        assert running.identify(PHOTO).json()["results"] == [said | {"photo": "photo 1"}]


def test_sigterm_answers_what_is_under_way_and_ends_with_0() -> None:
    with serving() as running, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(running.identify, PHOTO) for _ in range(8)]
        until(lambda: any(each.done() for each in asked))
        running.process.send_signal(signal.SIGTERM)
        statuses = [each.result().status_code for each in asked if not each.exception()]
        assert running.process.wait(20) == 0
        assert statuses.count(200) == len(statuses) >= 1
        assert not running.workers


def test_before_it_stops_it_is_not_ready_for_the_given_time() -> None:
    with serving("--stop-delay", "2") as running:
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.get("/health/ready").status_code == 503)
        assert "stopping" in running.get("/health/ready").json()["detail"]
        assert running.get("/health/live").status_code == 200
        assert running.identify(PHOTO).status_code == 200
        assert running.process.wait(20) == 0


def test_a_bundle_is_exchanged_with_no_failed_request(tmp_path: Path) -> None:
    """While requests go on: first a damaged bundle, which is refused, then one with other nameplates."""
    bundle = tmp_path / "bundle"
    original = load_bundle("cars196").folder
    assert original is not None
    shutil.copytree(original, bundle)
    statuses: list[int] = []
    with serving(bundle) as running, ThreadPoolExecutor(4) as pool:
        going = True

        def ask() -> None:
            while going:
                statuses.append(running.identify(PHOTO).status_code)

        asking = [pool.submit(ask) for _ in range(3)]
        try:
            assert running.post("/v1/models/cars196/reload").json()["changed"] is False
            (bundle / "head.safetensors").write_bytes(b"damaged")
            refused = running.post("/v1/models/cars196/reload")
            assert refused.status_code == 409
            assert "head.safetensors" in refused.json()["detail"]
            _renamed(bundle, original)
            assert running.post("/v1/models/cars196/reload").json()["changed"] is True
            assert running.identify(PHOTO).json()["results"][0]["nameplate"].startswith("New ")
            until(lambda: len(running.workers) == 1)
        finally:
            going = False
        for each in asking:
            each.result()
        assert set(statuses) == {200}
        assert running.stop() == 0


def test_a_bundle_that_changes_is_exchanged_by_itself_where_that_is_asked_for(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    original = load_bundle("cars196").folder
    assert original is not None
    shutil.copytree(original, bundle)
    with serving(bundle, "--reload-on-change") as running:
        _renamed(bundle, original)
        until(lambda: running.identify(PHOTO).json()["results"][0]["nameplate"].startswith("New "))


def _renamed(target: Path, original: Path) -> None:
    """A bundle like the one that ships, each nameplate with another name."""
    from dataclasses import replace

    bundle = load_bundle(original)
    manifest = replace(
        bundle.manifest, nameplates=tuple(f"New {name}" for name in bundle.manifest.nameplates), golden=None
    )
    shutil.rmtree(target)
    save_bundle(target, replace(bundle, manifest=manifest))
    assert Model.load(target).nameplates[0].startswith("New ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no-such-bundle"], 1, "is no bundle"),
        (["cars196", "cars196"], 2, "Two bundles are called"),
        (["--queue", "5"], 2, "The queue takes 5 photos"),
        (["--runtime", "tensorrt"], 2, "Unknown runtime"),
        (["--tta", "upside-down"], 2, "upside-down"),
        (["--host", "256.1.1.1"], 1, "Cannot listen on 256.1.1.1"),
    ],
)
def test_a_bundle_that_cannot_be_served_is_reported_at_once(arguments: list[str], code: int, says: str) -> None:
    done = nameplate("serve", "--port", "0", *arguments, check=code)
    assert says in done.stderr


def test_a_port_that_is_taken_is_named(server: Running) -> None:
    port = server.url.rpartition(":")[2]
    assert f"127.0.0.1:{port}" in nameplate("serve", "--port", port, check=1).stderr
