"""Keys, rates, hosts and origins: which requests are allowed, how many and from where."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from nameplate.errors import UsageError
from nameplate.serve import rates
from nameplate.serve.access import host_name, is_loopback, names_allowed, network_of
from nameplate.serve.keys import Keys, add_key
from nameplate.serve.middleware import protect
from nameplate.serve.rates import Window, parse_rate
from nameplate.serve.settings import ServeSettings
from tests.serve.guarded import Service, client_of, small_app

WHO = "/v1/who/x"


@pytest.fixture
def locked(tmp_path: Path) -> tuple[Service, str, str]:
    """A service with keys: it, a key, and an admin's."""
    file = tmp_path / "keys"
    ordinary, admin = add_key(file, "shop"), add_key(file, "boss", admin=True)
    return Service(keys=Keys(file)), ordinary, admin


def test_a_key_in_either_header_identifies_the_client(locked: tuple[Service, str, str]) -> None:
    service, ordinary, admin = locked
    client = client_of(service)
    assert client.get(WHO, headers={"Authorization": f"Bearer {ordinary}"}).json() == {"name": "shop", "admin": False}
    assert client.get(WHO, headers={"authorization": f"bearer  {admin} "}).json() == {"name": "boss", "admin": True}
    assert client.get(WHO, headers={"X-API-Key": admin}).json()["admin"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer np_wrong"},
        {"Authorization": "Basic bmFtZTpwYXNz"},
        {"X-API-Key": "np_wrong"},
        {"X-API-Key": ""},
    ],
)
def test_no_key_or_a_wrong_one_is_refused(locked: tuple[Service, str, str], headers: dict[str, str]) -> None:
    answer = client_of(locked[0]).get(WHO, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:nameplate:problem:no-key"


@pytest.mark.parametrize("path", ["/", "/health/live", "/page/app.js", "/v1/service", "/openapi.json"])
def test_what_needs_no_key(locked: tuple[Service, str, str], path: str) -> None:
    assert client_of(locked[0]).get(path).text == "open"


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/v1/service/", "/healthy", "/v2", "/none"])
def test_everything_else_needs_a_key(locked: tuple[Service, str, str], path: str) -> None:
    assert client_of(locked[0]).get(path).status_code == 401


def test_without_keys_this_machine_is_its_own_admin() -> None:
    open_to_all = Service(ServeSettings(host="0.0.0.0"))
    assert client_of(open_to_all, "127.0.0.1").get(WHO).json() == {"name": "127.0.0.1", "admin": True}
    assert client_of(open_to_all, "::ffff:127.0.0.1").get(WHO).json()["admin"]
    assert client_of(open_to_all, "192.0.2.7").get(WHO).json() == {"name": "192.0.2.7", "admin": False}


def test_with_keys_this_machine_needs_a_key_too(locked: tuple[Service, str, str]) -> None:
    assert client_of(locked[0], "127.0.0.1").get(WHO).status_code == 401


def test_a_client_above_its_rate_is_told_when_to_retry() -> None:
    service = Service(ServeSettings(rate="2/minute"))
    client = client_of(service, "192.0.2.1")
    assert [client.get(WHO).status_code for _ in range(3)] == [200, 200, 429]
    answer = client.get(WHO)
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.json()["type"] == "urn:nameplate:problem:too-many"
    assert {client.get(path).status_code for path in ("/", "/health/live", "/page/app.js")} == {200}


def test_clients_are_counted_separately(locked: tuple[Service, str, str]) -> None:
    service, ordinary, admin = locked
    service.settings = ServeSettings(rate="1/minute")
    client = client_of(service, "192.0.2.1")
    for key in (ordinary, admin):
        statuses = [client.get(WHO, headers={"X-API-Key": key}).status_code for _ in range(2)]
        assert statuses == [200, 429]


def test_the_window_moves() -> None:
    window = Window(2, 10)
    assert [window.hit("a", now) for now in (0, 6, 8)] == [0, 0, 2]
    assert window.hit("b", 8) == 0
    assert window.hit("a", 10) == 0  # the first is ten seconds ago
    assert window.hit("a", 11) == 5


def test_a_limited_number_of_addresses_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "CLIENTS", 10)
    monkeypatch.setattr(rates, "REQUESTS", 25)
    window = Window(20, 3600)
    for number in range(1000):
        window.hit(f"client {number}", float(number))
        assert len(window.clients) <= 10
    for number in range(100):
        window.hit(f"often {number % 3}", 2000.0 + number)
        assert sum(map(len, window.clients.values())) == window.held <= 25


@pytest.mark.parametrize(
    ("text", "rate"), [("600/minute", (600, 60)), ("10 per 5 seconds", (10, 5)), ("1/day", (1, 86400))]
)
def test_rates_are_parsed_in_the_usual_forms(text: str, rate: tuple[int, float]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "600", "0/minute", "-1/minute", "1/minute;2/hour", "99999999/day"])
def test_a_wrong_rate_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(UsageError, match="rate"):
        protect(small_app(Service()), Service(ServeSettings(rate=text)))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        (":", ":"),
    ],
)
def test_a_network_of_ipv6_is_one_client(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST", "localhost.", "cars.example"])
def test_allowed_hosts_are_served(host: str) -> None:
    service = Service(ServeSettings(allowed_hosts=("Cars.example",)))
    assert client_of(service).get(WHO, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost:x", "a@localhost"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(host: str) -> None:
    answer = client_of(Service()).get(WHO, headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:nameplate:problem:not-allowed"
    assert client_of(Service()).get("/health/live", headers={"Host": host}).status_code == 200


def test_hosts_of_a_service_on_a_public_address() -> None:
    assert names_allowed("0.0.0.0", ()) is None
    assert names_allowed("0.0.0.0", ("Cars.example",)) == frozenset({"cars.example"})
    assert names_allowed("127.0.0.1", ("*",)) is None
    assert "localhost" in (names_allowed("::1", ()) or ())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Origin": "http://127.0.0.1:8000"}, 200),  # the page itself
        ({"Origin": "https://127.0.0.1:8000"}, 200),  # the page behind a proxy that ends TLS
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),  # another service of this machine
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_what_other_sites_make_a_browser_send_is_refused(headers: dict[str, str], status: int) -> None:
    client = client_of(Service(ServeSettings(cors=("https://friend.example",))))
    assert client.post(WHO, headers=headers).status_code == status
    assert client.get(WHO, headers=headers).status_code == 200


def test_cors_is_off_unless_asked_for() -> None:
    asks = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client_of(Service()).options(WHO, headers=asks).headers


def test_a_preflight_needs_no_key(locked: tuple[Service, str, str]) -> None:
    service, ordinary, _ = locked
    service.settings = ServeSettings(cors=("https://friend.example",))
    client = client_of(service)
    asks = {
        "Origin": "https://friend.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    answer = client.options(WHO, headers=asks)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
    assert client.options(WHO, headers=asks | {"Origin": "https://evil.example"}).status_code == 400
    refused = client.post(WHO, headers={"Origin": "https://friend.example"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://friend.example"  # the page may read why
    answer = client.post(WHO, headers={"Origin": "https://friend.example", "Authorization": f"Bearer {ordinary}"})
    assert answer.json()["name"] == "shop"


def test_a_websocket_is_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def connect() -> None:
        await small_app(Service())({"type": "websocket", "path": WHO, "headers": []}, receive, send)

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


NAMES = st.sampled_from(
    b"host origin sec-fetch-site authorization x-api-key x-request-id content-type accept "
    b"access-control-request-method access-control-request-headers".split()
)
VALUES = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"Bearer ", b"bearer \xff", b"[::1", b"localhost:99999999", b"http://", b"null", b"cross-site"]),
)


@settings(max_examples=300, deadline=None)
@given(
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=6),
    method=st.sampled_from(["GET", "POST", "OPTIONS", "BREW"]),
    path=st.one_of(st.just(WHO), st.text(max_size=30).map(lambda text: "/" + text)),
    address=st.one_of(st.none(), st.tuples(st.text(max_size=20), st.integers(0, 65535))),
)
def test_no_bytes_in_a_request_break_the_guards(
    headers: list[tuple[bytes, bytes]],
    method: str,
    path: str,
    address: tuple[str, int] | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    status = asyncio.run(_ask(_fuzzed(tmp_path_factory), headers, method, path, address))
    assert status < 500


_APPS: dict[str, object] = {}


def _fuzzed(folder: pytest.TempPathFactory) -> object:
    if not _APPS:
        file = folder.mktemp("keys") / "keys"
        add_key(file, "shop")
        settings = ServeSettings(rate="3/minute", cors=("https://friend.example",))
        _APPS["app"] = small_app(Service(settings, Keys(file)))
    return _APPS["app"]


async def _ask(
    app: object, headers: list[tuple[bytes, bytes]], method: str, path: str, address: tuple[str, int] | None
) -> int:
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "headers": headers,
        "client": address,
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "server": ("127.0.0.1", 8000),
    }
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)  # type: ignore[operator]
    (status,) = statuses
    return status


@given(st.text(max_size=60))
def test_any_host_header_is_a_name_or_none(text: str) -> None:
    name = host_name(text)
    assert name is None or name == name.lower()
    is_loopback(text)
    network_of(text)


def test_a_key_has_a_rate_and_an_end_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    slow, fast = add_key(file, "slow", rate="2/hour"), add_key(file, "fast")
    late = add_key(file, "late", days=1 / 86_400)
    client = client_of(Service(ServeSettings(rate="4/hour"), Keys(file)))

    def statuses(token: str, number: int) -> list[int]:
        sent = {"X-API-Key": token}
        return [client.get("/v1/who/me", headers=sent).status_code for _ in range(number)]

    assert statuses(slow, 3) == [200, 200, 429]
    assert statuses(fast, 5) == [200, 200, 200, 200, 429]
    time.sleep(1.1)
    answer = client.get("/v1/who/me", headers={"X-API-Key": late})
    assert answer.status_code == 401
    assert "valid until" in answer.json()["detail"]
