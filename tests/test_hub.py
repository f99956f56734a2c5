"""Bundles on the hub, against a stand-in of its HTTP API: uploaded, fetched, pinned, offline, refused."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("huggingface_hub") is None:
    pytest.skip("needs huggingface_hub", allow_module_level=True)

from nameplate.data import read_dataset
from nameplate.demo import photo
from nameplate.errors import BundleError, DataError, UsageError
from nameplate.hub import HubName, fetch, hub_name
from nameplate.model.bundle import MAX_BYTES, load_bundle
from tests.cli.run import nameplate
from tests.data.test_dataset import JPEG
from tests.data.test_listings import shards
from tests.hub_stand_in import Hub, running

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


def test_a_data_set_is_read_like_a_folder(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    table = b"file_name,label\ntrain/1.jpg,BMW M3\ntrain/2.jpg,Audi A4\n"
    files = {
        "train/1.jpg": JPEG,
        "train/2.jpg": JPEG,
        "metadata.csv": table,
        "README.md": b"# Cars",
        "load.py": b"harm",
    }
    first = hub.commit("datasets/maria/photos", files)
    dataset = read_dataset("hf:datasets/maria/photos")
    assert [(photo.label, photo.split, photo.source) for photo in dataset.photos] == [
        ("BMW M3", "train", "photos"),
        ("Audi A4", "train", "photos"),
    ]
    assert dataset.kinds == ("hub: table with file_name and label",)
    assert not any("load.py" in request or "README" in request for request in hub.requests)
    hub.commit("datasets/maria/photos", {"metadata.csv": b"file_name,label\ntrain/1.jpg,Kia Rio\n"})
    assert read_dataset("hf:datasets/maria/photos").nameplates == ("Kia Rio",)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert read_dataset(f"hf:datasets/maria/photos@{first}").nameplates == ("Audi A4", "BMW M3")
    with pytest.raises(DataError, match="The hub cannot be reached"):
        read_dataset("hf:datasets/maria/others")


def test_shards_and_archives_of_the_hub(hub: Hub) -> None:
    hub.commit("datasets/maria/shards", {**shards(), "README.md": b"# Cars"})
    assert len(read_dataset("hf:datasets/maria/shards").photos) == 3
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("BMW M3/1.jpg", JPEG)
    hub.commit("datasets/maria/packed", {"cars.zip": packed.getvalue()})
    assert read_dataset("hf:datasets/maria/packed").nameplates == ("BMW M3",)


def test_data_sets_that_are_none_are_refused(hub: Hub) -> None:
    hub.commit("datasets/maria/text", {"README.md": b"# Words"})
    with pytest.raises(DataError, match=r"has neither photos nor tables: README\.md"):
        read_dataset("hf:datasets/maria/text")
    with pytest.raises(UsageError, match="does not name a data set on the hub, which is hf:datasets/USER/NAME"):
        read_dataset("hf:maria/cars")
    with pytest.raises(UsageError, match="does not name a bundle on the hub"):
        load_bundle("hf:datasets/maria/photos")
    hub.commit("datasets/maria/empty", {"metadata.csv": b"file_name,label\n"})
    done = nameplate("train", "hf:datasets/maria/empty", "-o", "x", check=1)
    assert "'hf:datasets/maria/empty" in done.stderr
    assert "cache" not in done.stderr
