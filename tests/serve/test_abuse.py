"""What clients send that must not stop the others: the real server, each attack bounded to seconds."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import multiprocessing
import os
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx2 as httpx
import pytest
from benchmarks.attacks import (
    CLOSED,
    Flood,
    Target,
    asking,
    connect,
    endless_address,
    endless_headers,
    endless_trailer,
    endless_trailers,
    endless_value,
    flood,
    no_request,
    pipelined,
    upload,
    whole,
)
from PIL import Image

from nameplate.demo import photo
from nameplate.serve.connections import CONNECTIONS, HEAD_SECONDS, LINGER_BYTES, LINGER_SECONDS
from nameplate.serve.credit import FORGIVEN_SECONDS
from nameplate.serve.log_writer import LINES
from nameplate.serve.settings import ServeSettings
from tests.images.torture import many_scans
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving("--queue-seconds", "60") as running:  # the queue of a slow machine would be shorter
        yield running


@pytest.mark.parametrize("size", [(1, 1), (1000, 10), (300, 1), (2, 300), (1, 300), (3, 3)])
def test_a_heat_map_of_a_photo_of_odd_shape_costs_no_worker(server: Running, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(buffer, "PNG")
    before = server.workers
    answer = server.identify(buffer.getvalue(), "?heatmap=true")
    assert answer.status_code == 200
    [row] = answer.json()["results"]
    assert row["heatmap"]["png"]
    assert server.identify(PHOTO).status_code == 200
    assert server.workers == before


OTHER = "127.0.0.2"
"""The address of another client."""


def target(server: Running, source: str = "127.0.0.1") -> Target:
    address = httpx.URL(server.url)
    return Target(address.host, address.port or 80, source=source)


def resident(server: Running) -> int:
    """Bytes of memory of the process that holds the connections."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


MUCH = 64 * 2**20
ENDLESS = {endless_value: 431, endless_headers: 431, endless_address: 414, no_request: 400}


@pytest.mark.parametrize(("kind", "status"), ENDLESS.items())
def test_a_head_without_end_is_refused_soon(server: Running, kind: Callable[[Target], Flood], status: int) -> None:
    before = resident(server)
    sent, answer = flood(target(server), *kind(target(server)), MUCH)
    assert sent < MUCH
    assert answer.startswith(b"HTTP/1.1 %d " % status) or answer == b""  # the reset may overtake it
    assert resident(server) - before < 16 * 2**20
    assert server.identify(PHOTO).status_code == 200


def test_the_refusal_of_a_long_head_says_why(server: Running) -> None:
    answer = server.get("/health/live", headers={"X-Long": "a" * 100_000})
    assert answer.status_code == 431
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:nameplate:problem:large-head"
    assert server.get("/health/live", headers={"X-Long": "a" * 60_000}).status_code == 200


def test_trailers_without_end_are_refused_soon(server: Running) -> None:
    before = resident(server)
    for kind in (endless_trailers, endless_trailer):
        sent, _ = flood(target(server), *kind(target(server)), MUCH)
        assert sent < MUCH
    assert resident(server) - before < 16 * 2**20


def test_thousands_of_requests_in_advance_end_their_connection(server: Running) -> None:
    before = resident(server)
    sent, _ = flood(target(server), *pipelined(target(server)), MUCH)
    assert sent < MUCH
    assert resident(server) - before < 16 * 2**20
    assert server.get("/health/live").status_code == 200


def test_a_few_requests_in_advance_are_answered(server: Running) -> None:
    with connect(target(server)) as client:
        client.sendall((target(server).get + b"\r\n") * 3)
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 3:
            piece = client.recv(65536)
            assert piece
            answer += piece


def test_a_head_that_never_ends_is_given_up(server: Running) -> None:
    with connect(target(server)) as slow, connect(target(server)) as silent:
        slow.sendall(target(server).get)
        start = time.monotonic()
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert silent.recv(65536) == b""
        assert HEAD_SECONDS - 1 < time.monotonic() - start < HEAD_SECONDS + 10


@pytest.mark.parametrize(("path", "status"), [("/v1/nothing", 404), ("/v1/identify", 413)])
def test_a_refused_body_is_not_read_to_its_end(server: Running, path: str, status: int) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**11}\r\n\r\n".encode()
    start = time.monotonic()
    with connect(target(server)) as client:
        client.sendall(head)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in answer.lower()
        with pytest.raises(CLOSED):
            while True:
                client.sendall(b"a" * 65536)
    assert time.monotonic() - start < LINGER_SECONDS + 10


def test_who_cannot_stop_to_send_sees_the_refusal(server: Running) -> None:
    address = httpx.URL(server.url)
    client = HTTPConnection(address.host, address.port, timeout=20)
    client.request("POST", "/v1/nothing", bytes(LINGER_BYTES - 1000))  # and only then looks for an answer
    assert client.getresponse().status == 404
    client.close()


def test_uploads_that_stop_leave_room_for_others(server: Running) -> None:
    half = upload(target(server), 60 * 2**20, bytes(60 * 2**20 - 1000))
    with ExitStack() as held:
        uploads = [held.enter_context(connect(target(server, OTHER))) for _ in range(4)]
        for each in uploads:
            with suppress(*CLOSED):
                each.sendall(half)
        assert server.identify(PHOTO).status_code == 200
        refused = [each for each in uploads if _answered(each).startswith(b"HTTP/1.1 503 ")]
        assert len(refused) == 2, "a client fills half of the room"


def _answered(client: socket.socket) -> bytes:
    client.settimeout(1)
    with suppress(*CLOSED, TimeoutError):
        return client.recv(65536)
    return b""


def test_a_small_photo_waits_for_no_giants(server: Running) -> None:
    giant = many_scans(side=4096, planes=8)  # some seconds each
    request = whole(target(server), giant)
    with ExitStack() as held:
        # More than a worker takes at once.
        giants = [held.enter_context(connect(target(server, OTHER))) for _ in range(30)]
        for each in giants:
            each.sendall(request)
        while 'nameplate_queue_photos{model="cars196"} 30.0' not in server.get("/metrics").text:
            time.sleep(0.05)
        assert server.identify(PHOTO).status_code == 200
        answered, _, _ = select.select(giants, [], [], 0)
        assert len(answered) <= 3


def test_a_full_queue_refuses_before_a_body_is_read() -> None:
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with serving("--photos", "1", "--queue", "1") as server, ExitStack() as held:
        [worker] = server.workers
        os.kill(worker, signal.SIGSTOP)
        held.callback(os.kill, worker, signal.SIGCONT)  # also after a failure, or the service could not end
        waiting = held.enter_context(connect(target(server)))
        waiting.sendall(b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(PHOTO))
        waiting.sendall(PHOTO)
        for _ in range(200):
            if 'nameplate_queue_photos{model="cars196"} 1.0' in server.get("/metrics").text:
                break
            time.sleep(0.05)
        else:
            pytest.fail(server.get("/metrics").text)
        for path in (b"/v1/identify?model=cars196", b"/v1/verify", b"/v2/models/cars196/infer"):
            client = held.enter_context(connect(target(server)))
            client.sendall(head % path)  # and nothing of the body
            answer = client.makefile("rb").read()  # the service closes, since it reads no body
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"1 of 1 photos are under way" in answer
        unknown = held.enter_context(connect(target(server)))
        unknown.sendall(head % b"/v1/identify?model=none")
        assert unknown.recv(65536).startswith(b"HTTP/1.1 404 ")
        counted = server.get("/metrics").text
        for route in ("/v1/identify", "/v1/verify", "/v2/models/{name}/infer"):
            assert f'nameplate_http_requests_total{{method="POST",route="{route}",status="503"}} 1.0' in counted
        os.kill(worker, signal.SIGCONT)
        waiting.settimeout(30)
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_stops_delays_no_shutdown() -> None:
    head = b"POST /v1/identify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with serving() as server, connect(target(server)) as client:
        client.sendall(head + b"half")
        time.sleep(0.2)
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 15
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_nobody_waits_for_who_reads_the_log() -> None:
    with serving(unread=True) as server, httpx.Client(timeout=20) as client:
        assert server.process.stderr is not None
        room = fcntl.fcntl(server.process.stderr, fcntl.F_GETPIPE_SZ)
        for _ in range(LINES + room // 200 + 100):
            assert client.get(server.url + "/health/live").status_code == 200
        assert server.identify(PHOTO).status_code == 200
        [dropped] = re.findall(r"^nameplate_log_lines_dropped_total (.*)$", server.get("/metrics").text, re.MULTILINE)
        assert float(dropped) > 0
        assert server.stop() == 0


def test_a_long_claim_is_refused_before_it_is_compared(server: Running) -> None:
    for claimed in ("a b " * 4000, "x" * 201):
        answer = server.post("/v1/verify", data={"claimed": claimed}, files={"photos": ("a.jpg", PHOTO)})
        assert answer.status_code == 422
        assert "200 are the most" in answer.json()["detail"]


def test_idle_connections_beyond_the_cap_give_way(server: Running) -> None:
    idle = [connect(target(server)) for _ in range(CONNECTIONS + 100)]
    try:
        assert server.get("/health/live").status_code == 200
        assert server.identify(PHOTO).status_code == 200
        idle[0].settimeout(5)
        assert idle[0].recv(1) == b"", "the oldest are closed"
    finally:
        for each in idle:
            each.close()


HOSTILE, EAGER = "127.0.0.3", "127.0.0.4"
"""Addresses of further clients: what one has left unanswered is held against it for some seconds."""


def test_clients_that_hang_up_are_refused_before_their_requests_are_read(server: Running) -> None:
    begun, before, refused = time.monotonic(), _hung_up(server), _refused(server)
    arguments = (photo().read_bytes, 64, 0.0, target(server, HOSTILE), begun + 60)
    attack = multiprocessing.get_context("spawn").Process(target=asking, args=arguments)
    attack.start()
    assert attack.pid is not None
    os.setpriority(os.PRIO_PROCESS, attack.pid, 19)  # the attacker of a real service is elsewhere
    try:
        while attack.is_alive() and _refused(server) - refused < 100:
            time.sleep(0.1)
        assert attack.is_alive()
        assert server.identify(PHOTO).status_code == 200
        most = ServeSettings().connections_per_address
        bound = most + (time.monotonic() - begun) * most / FORGIVEN_SECONDS
        assert _hung_up(server) - before <= bound
    finally:
        attack.kill()
        attack.join()
    told = time.monotonic() + 90  # the log says it once a minute
    while not any('"connections refused"' in line and HOSTILE in line for line in server.said):
        assert time.monotonic() < told, server.said[-5:]
        time.sleep(0.1)


def _hung_up(server: Running) -> float:
    pattern = r'_requests_total{.*"/v1/identify",status="499"} (.*)$'
    return sum(map(float, re.findall(pattern, server.get("/metrics").text, re.MULTILINE)))


def _refused(server: Running) -> float:
    [count] = re.findall(r"^nameplate_connections_refused_total (.*)$", server.get("/metrics").text, re.MULTILINE)
    return float(count)


def test_a_client_that_takes_its_answers_may_connect_as_often_as_it_likes(server: Running) -> None:
    before, address = _refused(server), httpx.URL(server.url)
    for _ in range(3):
        with ExitStack() as held:
            clients = [HTTPConnection(address.host, address.port, source_address=(EAGER, 0)) for _ in range(200)]
            for each in clients:
                held.callback(each.close)
                each.request("GET", "/health/live")
            assert all(each.getresponse().read() for each in clients)
    assert _refused(server) == before


def test_a_worker_that_cannot_be_started_for_want_of_files_is_started_later() -> None:
    with serving() as server:
        pid, [worker] = server.process.pid, server.workers
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())) - 1, hard))
        os.kill(worker, signal.SIGKILL)
        end = time.monotonic() + 30
        while not any("OSError: [Errno 24]" in line for line in server.said):
            assert time.monotonic() < end
            time.sleep(0.05)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        while server.get("/health/ready").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert server.identify(PHOTO).status_code == 200


def test_a_service_that_is_open_to_all_says_so() -> None:
    with serving("--host", "0.0.0.0") as server:
        server.stop()
    assert any('"no keys"' in line and '"warning"' in line for line in server.said)
    with serving() as server:
        server.stop()
    assert not any('"no keys"' in line for line in server.said)


def test_a_database_that_is_deleted_is_noticed(tmp_path: Path) -> None:
    database = tmp_path / "corrections.db"
    with serving("--feedback", database) as server:

        def correct(name: str) -> httpx.Response:
            return server.post("/v1/feedback", data={"nameplate": name}, files={"photo": ("a.jpg", PHOTO)})

        assert correct("Corvane Lark").status_code == 201
        for each in tmp_path.glob("corrections.db*"):
            each.unlink()
        for _ in range(3):  # an open connection, and new ones
            assert correct("Halden Pine").status_code == 503
        assert not database.exists()
        assert server.stop() == 0
    lost = [line for line in server.said if '"correction lost"' in line]
    assert len(lost) == 3
    assert "is gone" in lost[0]


def test_what_is_no_photo_is_named_for_what_it_is(server: Running) -> None:
    form = server.post("/v1/identify", data={"photos": "a.jpg"})
    assert form.status_code == 415
    assert "curl --data-binary" in form.json()["detail"]
    sent = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl --data-binary sends it
    assert server.post("/v1/identify", content=PHOTO, headers=sent).status_code == 200
    for path in ("/v1/identify", "/v1/verify"):
        packed = server.post(path, content=gzip.compress(PHOTO), headers={"Content-Encoding": "gzip"})
        assert packed.status_code == 415
        assert "'gzip'" in packed.json()["detail"]


def test_head_is_answered_as_get_without_a_body(server: Running) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v1/service"):
        answer = httpx.head(server.url + path, timeout=20)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 0
    assert 'method="HEAD",route="/v1/service",status="200"' in server.get("/metrics").text


def test_no_answer_sends_anybody_where_the_host_header_says(server: Running) -> None:
    for path in ("/v1/models/", "/health/live/", "/v2/models/cars196/"):
        answer = server.get(path, follow_redirects=False)
        assert answer.status_code == 404
        assert "location" not in answer.headers
    assert server.get("/v2/", follow_redirects=False).json()["name"] == "nameplate"


def test_a_request_that_is_no_http_is_refused_in_the_usual_form(server: Running) -> None:
    with connect(target(server)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


def test_the_service_states_the_limit_of_each_format(server: Running) -> None:
    limits = server.get("/v1/service").json()["limits"]
    assert limits["pixels_of"]["JPEG"] == limits["pixels"]
    most = limits["pixels_of"]["PNG"]
    for height, status in ((most // 10_000, 200), (most // 10_000 + 1, 413)):
        buffer = io.BytesIO()
        Image.new("1", (10_000, height)).save(buffer, "PNG")
        assert server.identify(buffer.getvalue()).status_code == status
