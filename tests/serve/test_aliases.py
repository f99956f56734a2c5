"""Names that stand for several models by weight: the choice, the file that keeps them, and the real server."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest

from nameplate.cli.serve import _threads_of
from nameplate.demo import photo
from nameplate.errors import DataError, UsageError
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.serve.aliases import check_alias, choose, parse_alias, read_aliases, write_aliases
from nameplate.serve.keys import add_key
from nameplate.serve.observability import Metrics
from nameplate.serve.served import Engines
from nameplate.serve.service import EngineObserver
from nameplate.serve.settings import ServeSettings
from tests.serve.running import Running, serving

PHOTO = photo().read_bytes()
KEYS = [f"client-{number}" for number in range(20_000)]


@pytest.mark.parametrize("weights", [{"a": 95, "b": 5}, {"a": 1, "b": 1, "c": 2}, {"a": 0.25, "b": 0, "c": 0.5}])
def test_models_are_chosen_by_their_weight_within_binomial_bounds(weights: dict[str, float]) -> None:
    chosen = [choose(weights, key) for key in KEYS]
    for model, weight in weights.items():
        share = weight / sum(weights.values())
        deviation = math.sqrt(len(KEYS) * share * (1 - share))
        assert abs(chosen.count(model) - len(KEYS) * share) <= 4 * deviation, model


def test_a_client_keeps_its_model_and_moves_to_the_one_that_gains_weight_alone() -> None:
    few, many = ({"stable": 100 - percent, "next": percent} for percent in (5, 20))
    before = [choose(few, key) for key in KEYS]
    after = [choose(many, key) for key in KEYS]
    assert before == [choose(dict(reversed(few.items())), key) for key in KEYS]
    moved = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {("stable", "next")}


def test_aliases_are_read_as_they_are_written(tmp_path: Path) -> None:
    assert parse_alias("cars=stable:95, next:5") == ("cars", {"stable": 95, "next": 5})
    assert parse_alias("cars=one") == ("cars", {"one": 1})
    for wrong in ("cars", "cars=", "cars=a:b", "cars=a:1,a:2", "cars=a,,b", "cars=:3"):
        with pytest.raises(UsageError, match="is no alias. Write NAME=MODEL:WEIGHT"):
            parse_alias(wrong)
    file = tmp_path / "aliases.json"
    write_aliases(file, {"cars": {"stable": 95, "next": 5.5}})
    assert read_aliases(file) == {"cars": {"stable": 95, "next": 5.5}}
    for damaged in ("", "[]", '{"aliases": {"cars": ["stable"]}}'):
        file.write_text(damaged)
        with pytest.raises(DataError, match="holds no aliases"):
            read_aliases(file)


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("stable", {"stable": 1}, "A model is called 'stable'"),
        ("a/b", {"stable": 1}, "cannot name an alias"),
        ("cars", {"stabel": 1}, "'stabel', which is not served. Did you mean 'stable'"),
        ("cars", {}, "none is above 0"),
        ("cars", {"stable": 0}, "none is above 0"),
        ("cars", {"stable": -1, "next": 2}, "one is -1"),
        ("cars", {"stable": math.nan}, "one is nan"),
        ("cars", {"stable": math.inf}, "one is inf"),
        ("cars", {"stable": 1e308, "next": 1e308}, "numbers"),
    ],
)
def test_what_can_be_no_alias_is_refused_with_the_reason(name: str, weights: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        check_alias(name, weights, ["stable", "next"])


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that ships, each nameplate with another name: its answers can be told from the original's."""
    bundle = load_bundle("cars196")
    names = tuple(f"New {name}" for name in bundle.manifest.nameplates)
    folder = tmp_path_factory.mktemp("bundles") / "renamed"
    save_bundle(folder, replace(bundle, manifest=replace(bundle.manifest, nameplates=names, golden=None)))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aliases") / "aliases.json"


WEIGHTS = {"stable": 1, "next": 1}


@pytest.fixture(scope="module")
def server(renamed: Path, kept: Path) -> Iterator[Running]:
    given = ("--alias", "default=stable,next", "--aliases", kept, "--threads", "2", "--threads-of", "next=1")
    with serving("stable=cars196", f"next={renamed}", *given) as running:
        yield running


def put(server: Running, name: str, weights: object, **options: object) -> httpx.Response:
    return httpx.put(f"{server.url}/v1/aliases/{name}", json={"weights": weights}, timeout=60, **options)  # type: ignore[arg-type]


def asked(server: Running, client: str | None = None, query: str = "") -> str:
    """The model that answers, by header, name in the answer and nameplate."""
    headers = {} if client is None else {"X-Client-ID": client}
    answer = server.post(f"/v1/identify{query}", content=PHOTO, headers=headers)
    assert answer.status_code == 200
    said = answer.json()
    assert answer.headers["x-model"] == said["model"]["name"]
    assert answer.headers["x-model-digest"] == said["model"]["digest"]
    assert said["results"][0]["nameplate"].startswith("New ") == (said["model"]["name"] == "next")
    return str(said["model"]["name"])


def test_a_client_is_answered_by_the_model_that_its_id_chooses(server: Running) -> None:
    clients = KEYS[:6]
    wanted = [choose(WEIGHTS, client) for client in clients]
    assert set(wanted) == {"stable", "next"}
    for _ in range(2):
        assert [asked(server, client) for client in clients] == wanted
    for client, model in zip(clients, wanted, strict=True):  # a page asks for the model of its visit
        models = server.get("/v1/models", headers={"X-Client-ID": client}).json()["models"]
        assert [each["name"] for each in models if each["default"]] == [model]
    assert asked(server, clients[0], "?model=next") == "next"
    assert {asked(server) for _ in range(20)} == {"stable", "next"}  # without an id, each request by itself
    counted = server.get("/metrics").text
    assert 'nameplate_alias_share{alias="default",model="next"} 0.5' in counted
    found = re.findall(r'^nameplate_alias_requests_total\{alias="default",model="(\w+)"\} (.*)$', counted, re.MULTILINE)
    assert sum(float(number) for _, number in found) == 2 * len(clients) + 20
    assert any('"alias":"default"' in line and '"model":"next"' in line for line in server.said)


def test_verify_and_the_open_protocol_take_an_alias_too(server: Running) -> None:
    client = next(key for key in KEYS if choose(WEIGHTS, key) == "next")
    sent = {"headers": {"X-Client-ID": client}, "files": {"photos": PHOTO}, "data": {"claimed": "New Jeep Liberty"}}
    assert server.post("/v1/verify?model=default", **sent).json()["model"]["name"] == "next"
    digests = {each["name"]: each["digest"] for each in server.get("/v1/models").json()["models"]}
    assert server.get("/v2/models/default").json()["versions"] == [digests[name][:12] for name in WEIGHTS]
    assert server.get("/v2/models/default/ready").json() == {"name": "default", "ready": True}
    form = {"inputs": [{"name": "picture", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [0, 0, 0]}]}
    for name, digest in digests.items():
        path = f"/v2/models/default/versions/{digest[:12]}"
        assert server.get(path).json()["name"] == name
        assert server.post(f"{path}/infer", json=form).status_code == 400  # found, and its size is another
    assert server.get("/v2/models/default/versions/none").status_code == 404


def test_each_model_has_its_threads(server: Running) -> None:
    models = server.get("/v1/models").json()["models"]
    assert {each["name"]: each["threads"] for each in models} == {"stable": 2, "next": 1}


@pytest.mark.parametrize(
    ("name", "weights", "status", "says"),
    [
        ("cars", {"stable": 1, "nxt": 1}, 422, "Did you mean 'next'"),
        ("next", {"stable": 1}, 422, "A model is called 'next'"),
        ("cars", {"stable": 0}, 422, "none is above 0"),
        ("cars", {"stable": "much"}, 422, "Expected `float`"),
        ("cars", [1], 422, "Send"),
    ],
)
def test_a_wrong_switch_is_refused_and_changes_nothing(
    server: Running, name: str, weights: object, status: int, says: str
) -> None:
    before = server.get("/v1/aliases").json()
    answer = put(server, name, weights)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert httpx.put(f"{server.url}/v1/aliases/cars", content=b"{", timeout=60).status_code == 400
    assert httpx.delete(f"{server.url}/v1/aliases/none", timeout=60).status_code == 404
    assert server.post("/v1/models/default/reload").status_code == 404
    assert server.get("/v1/aliases/default").headers["allow"] == "DELETE, PUT"
    assert server.post("/v1/aliases").headers["allow"] == "GET"
    assert server.get("/v1/aliases").json() == before


def test_a_switch_under_load_is_at_once_and_loses_nothing(server: Running, kept: Path, renamed: Path) -> None:
    """Also: what was switched last holds after a restart, and only an admin may switch."""
    with ThreadPoolExecutor(3) as pool:
        going = True

        def ask() -> int:
            count = 0
            while going:
                asked(server, query="?model=cars")  # raises unless it is answered well
                count += 1
            return count

        assert put(server, "cars", WEIGHTS).json()["aliases"]["cars"] == WEIGHTS
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            for model in ("next", "stable", "next"):
                assert put(server, "cars", {model: 1}).status_code == 200
                assert {asked(server, client, "?model=cars") for client in KEYS[:4]} == {model}
        finally:
            going = False
        assert all(each.result() > 0 for each in asking)
    last = {"default": WEIGHTS, "cars": {"next": 1.0}}
    assert server.get("/v1/aliases").json() == {"aliases": last, "kept": True}
    keys = kept.with_name("keys.jsonl")
    admin, other = add_key(keys, "operator", admin=True), add_key(keys, "site")
    given = ("--aliases", kept, "--alias", "cars=stable", "--keys", keys)
    with serving("stable=cars196", f"next={renamed}", *given) as again:
        allowed, refused = ({"headers": {"X-API-Key": key}} for key in (admin, other))
        assert again.get("/v1/aliases", **refused).json() == {"aliases": last, "kept": True}
        assert put(again, "cars", {"stable": 1}, **refused).status_code == 403
        assert put(again, "cars", {"stable": 1}, **allowed).status_code == 200
        gone = httpx.delete(f"{again.url}/v1/aliases/cars", timeout=60, **allowed)  # type: ignore[arg-type]
        assert gone.json()["aliases"] == {"default": WEIGHTS}
    assert json.loads(kept.read_text()) == {"aliases": {"default": WEIGHTS}}


def test_settings_that_name_what_is_not_served_are_refused() -> None:
    for wrong in (ServeSettings(threads_of={"cars1969": 2}), ServeSettings(aliases={"cars": {"cars1969": 1}})):
        with pytest.raises(UsageError, match="Did you mean 'cars196'"):
            Engines(wrong, EngineObserver(Metrics())).load()
    with pytest.raises(UsageError, match="Write MODEL=N"):
        _threads_of(["cars196"])
