"""Jobs on a real server: the answers of identify, whatever is killed meanwhile."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from nameplate.demo import photos_folder
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.serve.jobs.store import RECORD, RESULTS
from nameplate.serve.keys import add_key
from tests.serve.running import Running, serving

PHOTOS = {
    f"{path.parent.name}/{path.name}": path.read_bytes() for path in sorted(photos_folder("test").glob("*/*.jpg"))
}
FEW = dict(list(PHOTOS.items())[::40])


def zipped(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return written.getvalue()


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
    return found


class Client:
    """One key's view of a server."""

    def __init__(self, server: Running, key: str = "") -> None:
        self.server, self.headers = server, {"X-API-Key": key} if key else {}

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.server.url + path, headers=self.headers, timeout=60, **options)

    def submit(self, body: bytes, query: str = "") -> str:
        answer = self.ask("POST", f"/v1/jobs{query}", content=body)
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
        return str(answer.headers["Location"])

    def done(self, job: str) -> dict[str, Any]:
        def ended() -> Any:
            state = self.ask("GET", job).json()
            return state if state["finished"] else None

        return dict(until(ended))

    def rows(self, job: str) -> list[Any]:
        answer = self.ask("GET", f"{job}/results")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
        return [json.loads(line) for line in answer.text.splitlines()]

    def identified(self, files: dict[str, bytes], query: str = "") -> list[Any]:
        sent = [("photos", (name, data)) for name, data in files.items()]
        return list(self.ask("POST", f"/v1/identify{query}", files=sent).json()["results"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "jobs"


@pytest.fixture(scope="module")
def clients(folder: Path) -> Iterator[tuple[Client, Client]]:
    keys = folder.parent / "keys"
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")
    with serving("--threads", "1", "--jobs", folder, "--job-photos", "150", "--keys", keys) as server:
        yield Client(server, ann), Client(server, bob)
        assert server.stop() == 0


def test_a_zip_gets_the_rows_of_identify_and_one_for_whatever_cannot_be_read(
    clients: tuple[Client, Client], folder: Path
) -> None:
    ann, _ = clients
    bad = {"cut.jpg": FEW[next(iter(FEW))][:900], "notes/read me.txt": b"text", "inner.zip": zipped({})}
    job = ann.submit(zipped({**FEW, **bad, "__MACOSX/._a.jpg": b"junk"}), "?top=3")
    state = ann.done(job)
    assert (state["state"], state["photos"], state["done"], state["unreadable"]) == ("done", 8, 8, 3)
    assert state["results"] == f"{job}/results"
    rows = ann.rows(job)
    assert rows[: len(FEW)] == ann.identified(FEW, "?top=3")
    assert [row["photo"] for row in rows[len(FEW) :]] == list(bad)
    assert [row["error"].partition(":")[0] for row in rows[len(FEW) :]] == ["truncated", "not a photo", "not a photo"]
    kept = folder / state["id"]
    assert sorted(path.name for path in kept.iterdir()) == [RECORD, RESULTS]  # the photos are gone
    assert kept.stat().st_mode & 0o077 == 0
    assert ann.ask("DELETE", job).status_code == 204
    assert not kept.exists()
    assert ann.ask("GET", job).status_code == 404


def test_many_photos_of_a_form_are_a_job_which_is_its_keys_alone(clients: tuple[Client, Client]) -> None:
    ann, bob = clients
    answer = ann.ask("POST", "/v1/jobs?all=true", files=[("photos", (name, data)) for name, data in FEW.items()])
    job = answer.headers["Location"]
    assert ann.done(job)["photos"] == len(FEW)
    assert ann.rows(job) == ann.identified(FEW, "?all=true")
    for method, path in (("GET", job), ("GET", f"{job}/results"), ("DELETE", job)):
        assert bob.ask(method, path).status_code == 404
    assert ann.ask("GET", job).json()["state"] == "done"
    second = ann.submit(zipped(FEW))
    listed = ann.ask("GET", "/v1/jobs").json()["jobs"]
    assert [f"/v1/jobs/{each['id']}" for each in listed][:2] == [second, job]  # the newest first
    assert listed[1] == ann.ask("GET", job).json()
    assert bob.ask("GET", "/v1/jobs").json() == {"jobs": []}
    ann.ask("DELETE", second)
    assert second.rpartition("/")[2] not in ann.ask("GET", "/v1/jobs").text


def test_while_a_job_runs_others_are_answered_and_it_can_be_cancelled(clients: tuple[Client, Client]) -> None:
    ann, bob = clients
    job = ann.submit(zipped(dict(list(PHOTOS.items())[:150])))
    early = ann.ask("GET", f"{job}/results")
    assert (early.status_code, early.json()["type"]) == (409, "urn:nameplate:problem:not-done")
    assert early.headers["Retry-After"]
    other = bob.submit(FEW[next(iter(FEW))])  # one photo as the body
    assert [bob.ask("POST", "/v1/identify", content=photo).status_code for photo in FEW.values()] == [200] * len(FEW)
    assert bob.done(other)["done"] == 1
    assert bob.rows(other)[0]["photo"] == "photo 1"
    assert ann.ask("GET", job).json()["state"] in ("queued", "running")  # another key's turn came before its end
    assert ann.ask("DELETE", job).status_code == 204
    assert ann.ask("GET", job).status_code == 404
    assert "nameplate_job_photos 0.0" in ann.ask("GET", "/metrics").text


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "There are 0 photos"),
        (zipped({}), 422, "There are 0 photos"),
        (zipped(FEW)[:-30], 422, "the zip"),
        (zipped({f"{number}.jpg": b"" for number in range(151)}), 413, "There are 151 photos"),
        (zipped({f"{number}.jpg": b"" for number in range(301)}), 422, "301 entries"),
    ],
    ids=["nothing", "empty", "cut", "many", "bomb"],
)
def test_what_is_no_job_is_refused_and_leaves_nothing(
    body: bytes, status: int, said: str, clients: tuple[Client, Client], folder: Path
) -> None:
    before = set(folder.iterdir())
    answer = clients[0].ask("POST", "/v1/jobs", content=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert str(folder) not in answer.text
    assert set(folder.iterdir()) == before


def test_a_file_elsewhere_or_a_query_that_asks_for_too_much_is_refused(clients: tuple[Client, Client]) -> None:
    ann, _ = clients
    assert ann.ask("POST", "/v1/jobs", files=[("photo", ("a.jpg", b"x"))]).status_code == 422
    assert ann.ask("POST", "/v1/jobs?top=21", content=zipped(FEW)).status_code == 422
    assert ann.ask("POST", "/v1/jobs?model=none", content=zipped(FEW)).status_code == 404
    assert (
        ann.ask("POST", "/v1/jobs", data={"note": "x" * 20_000}, files={"photos": ("a.jpg", b"x")}).status_code == 413
    )


def test_a_job_goes_on_after_its_worker_and_after_the_service_was_killed(tmp_path: Path) -> None:
    files = dict(list(PHOTOS.items())[:100])
    options = ("--threads", "1", "--jobs", tmp_path)
    with serving(*options) as server:
        client = Client(server)
        job = client.submit(zipped(files))
        until(lambda: client.ask("GET", job).json()["done"] > 0)
        os.kill(server.workers[0], signal.SIGKILL)
        reached = client.ask("GET", job).json()["done"]
        until(lambda: client.ask("GET", job).json()["done"] > reached)
        server.process.kill()
    results = tmp_path / job.rpartition("/")[2] / RESULTS
    before = results.read_bytes()
    assert 0 < before.count(b"\n") < len(files)
    results.write_bytes(before + b'{"photo":"half a li')  # as one that was killed while it wrote
    (tmp_path / ".half.x.part").mkdir()  # was being received
    with serving(*options) as server:
        client = Client(server)
        state = client.done(job)
        rows = client.rows(job)
        assert (state["state"], state["done"], state["unreadable"]) == ("done", len(files), 0)
        assert [row["photo"] for row in rows] == list(files)
        assert results.read_bytes().startswith(before)  # nothing was done twice
        last = dict(list(files.items())[-5:])
        assert rows[-5:] == client.identified(last)
        assert not (tmp_path / ".half.x.part").exists()
        assert any(json.loads(line).get("event") == "jobs go on" for line in server.said)


@pytest.mark.slow
def test_all_rows_of_a_job_are_of_one_bundle(tmp_path: Path) -> None:
    """The bundle is exchanged in the middle: the job begins anew with the new one."""
    original = load_bundle("cars196")
    assert original.folder is not None
    shutil.copytree(original.folder, tmp_path / "bundle")
    files = dict(list(PHOTOS.items())[:100])
    with serving(tmp_path / "bundle", "--threads", "1", "--jobs", tmp_path / "jobs") as server:
        client = Client(server)
        job = client.submit(zipped(files))
        before = until(lambda: (state := client.ask("GET", job).json())["done"] and state)
        names = tuple(f"New {name}" for name in original.manifest.nameplates)
        manifest = replace(original.manifest, nameplates=names, golden=None)
        shutil.rmtree(tmp_path / "bundle")
        save_bundle(tmp_path / "bundle", replace(original, manifest=manifest))
        assert client.ask("POST", "/v1/models/cars196/reload").json()["changed"]
        assert client.ask("GET", job).json()["finished"] is None
        after = client.done(job)
        assert after["model"]["digest"] != before["model"]["digest"]
        rows = client.rows(job)
        assert [row["photo"] for row in rows] == list(files)
        assert all(row["nameplate"].startswith("New ") for row in rows)
