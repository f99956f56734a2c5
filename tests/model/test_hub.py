"""Bundles on the hub, against a stand-in of its HTTP API: uploaded, fetched, pinned, offline, refused."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("huggingface_hub") is None:
    pytest.skip("needs huggingface_hub", allow_module_level=True)

from nameplate.demo import photo
from nameplate.errors import BundleError, UsageError
from nameplate.model.bundle import MAX_BYTES, load_bundle
from nameplate.model.hub import HubName, fetch, hub_name
from tests.cli.run import nameplate
from tests.model.hub_stand_in import Hub, running

pytestmark = pytest.mark.whole


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", found.token)
        monkeypatch.setenv("NAMEPLATE_CACHE", str(tmp_path / "cache"))
        yield found


def shipped() -> dict[str, bytes]:
    folder = load_bundle("cars196").folder
    assert folder is not None
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in MAX_BYTES}


def test_push_and_identify(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(nameplate("push", "cars196", "hf:maria/cars", "--json").stdout)
    [files] = hub.repos["maria/cars"].values()
    assert {name: data for name, data in files.items() if name in MAX_BYTES} == shipped()
    card = files["README.md"].decode()
    matter = dict(line.split(": ", 1) for line in re.split(r"^---$", card, flags=re.MULTILINE)[1].strip().splitlines())
    assert json.loads(matter["license"]) == "other"
    assert json.loads(matter["base_model"]) == "timm/tf_efficientnet_lite0.in1k"
    assert "hf:maria/cars" in card
    assert said["commit"].startswith(hub.url)
    expected = nameplate("identify", photo(), "--json").stdout
    assert nameplate("identify", "--model", "hf:maria/cars", photo(), "--json").stdout == expected
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert nameplate("identify", "--model", "hf:maria/cars", photo(), "--json").stdout == expected
    done = nameplate("identify", "--model", "hf:maria/other", photo(), check=1)
    assert "The hub cannot be reached" in done.stderr


def test_a_revision_is_that_commit(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub.commit("maria/cars", shipped())
    hub.commit("maria/cars", {"bundle.json": b"{}"})
    assert load_bundle(f"hf:maria/cars@{first}").manifest.name == "cars196"
    with pytest.raises(BundleError, match="damaged"):
        load_bundle("hf:maria/cars")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert load_bundle(f"hf:maria/cars@{first}").manifest.name == "cars196"


def test_only_a_bundles_files_are_fetched_and_none_that_is_too_large(hub: Hub) -> None:
    hub.commit("maria/cars", {**shipped(), "weights.pickle": b"harm", "setup.py": b"harm"})
    folder = fetch(HubName("maria/cars"), MAX_BYTES)
    assert {path.name for path in folder.iterdir()} == set(shipped())
    hub.commit("maria/large", {"bundle.json": b"x" * 1001})
    with pytest.raises(BundleError, match="1,001 bytes, at most 1,000"):
        fetch(HubName("maria/large"), {"bundle.json": 1000})
    assert not any("large/resolve" in request for request in hub.requests)


def test_what_the_hub_does_not_have_or_refuses(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="The hub has no 'hf:maria/none'"):
        load_bundle("hf:maria/none")
    hub.commit("maria/cars", shipped())
    with pytest.raises(BundleError, match="The hub has no 'hf:maria/cars@v9'"):
        load_bundle("hf:maria/cars@v9")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    done = nameplate("push", "cars196", "hf:maria/cars", check=1)
    assert "The hub refuses 'hf:maria/cars'" in done.stderr


@pytest.mark.parametrize("text", ["hf:", "hf:cars", "hf:a/b/c", "hf:a/b@", "hf:a/..", "hf:a/b@../c"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no name on the hub"):
        hub_name(text)
