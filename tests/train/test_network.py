"""The network that is trained: its input, its last layer, which layers are trained and at which rate."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import numpy as np
import pytest

from nameplate.demo import photo
from nameplate.errors import UsageError
from nameplate.images import decode, preprocess
from nameplate.types import Preprocess

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "torchvision"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import timm  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torchvision.transforms import Normalize  # noqa: E402

from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.network import (  # noqa: E402
    Network,
    classifier_matrix,
    depthwise_in_float32,
    freeze,
    layer_numbers,
    parameter_groups,
    plain_forward,
    train_mode,
)

torch.set_num_threads(1)

TINY = ["test_efficientnet", "test_vit", "test_resnet", "test_convnext"]
"""timm's own networks for tests, at most 0.4 million parameters."""
SIZE = 160


def make(name: str, classes: int = 3, drop: float = 0.0) -> Network:
    backbone = find_backbone(name)
    torch.manual_seed(1)
    network = Network(build(backbone, classes, dropout=drop, drop_path=drop), backbone.mean, backbone.std)
    for module in network.modules():  # as if trained: statistics that tell normalised from not
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    network.eval()
    return network


def noise(count: int = 4, side: int = SIZE) -> Any:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))


def snapshot(network: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def step(network: Network) -> None:
    """One step of plain gradient descent."""
    learning = [p for p in network.parameters() if p.requires_grad]
    loss = nn.functional.cross_entropy(network(noise()), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    torch.optim.SGD(learning, lr=0.1).step()


# --- pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_normalisation_is_torchvisions(name: str) -> None:
    network, backbone = make(name), find_backbone(name)
    pixels = preprocess(decode(photo()), Preprocess(96, 128))[None]
    ours = network.normalise(torch.from_numpy(pixels.copy()))
    theirs = Normalize(backbone.mean, backbone.std)(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255)
    assert ours.dtype == torch.float32
    assert ours.shape == (1, 3, 96, 128)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.normalise(torch.from_numpy(pixels.astype(np.float32))), ours)


@pytest.mark.parametrize("name", [*TINY, "resnetv2_18"])
def test_embedding_and_classifier_are_the_whole_network(name: str) -> None:
    network = make(name)
    weight, bias = classifier_matrix(network)
    with torch.no_grad():
        embedding, logits = network.embed(noise(2)), network(noise(2))
        assert weight.shape == (3, embedding.shape[1])
        torch.testing.assert_close(embedding @ weight.T + bias, logits, rtol=1e-4, atol=1e-4)
    assert logits.std(0).max() > 1e-4  # two photos, two answers


# --- the last layer -----------------------------------------------------------------------------------


def test_a_convolution_of_one_pixel_is_a_matrix() -> None:
    network = make("resnetv2_18", classes=5)
    assert isinstance(network.classifier, nn.Conv2d)
    weight, bias = classifier_matrix(network)
    assert weight.shape == (5, 512)
    assert bias.shape == (5,)
    weight.data[2] = 7  # it is the layer's own, not a copy
    assert network.classifier.weight[2].eq(7).all()


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 3, bias=False), nn.Conv2d(4, 3, 3), nn.Identity(), (nn.Linear(4, 3), nn.Linear(4, 3))]
)
def test_another_last_layer_is_refused(layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make("test_resnet")
    monkeypatch.setattr(network.body, "get_classifier", lambda: layer)
    with pytest.raises(UsageError, match=f"classifier is a {type(layer).__name__}, .* nameplate backbones"):
        classifier_matrix(network)


def test_a_real_backbone_with_two_classifiers_is_refused() -> None:
    with torch.device("meta"):
        body = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)
    network = Network(body, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UsageError, match="is a tuple"):
        freeze(network, "all")


def test_a_backbone_whose_layers_timm_does_not_number_is_refused() -> None:
    with torch.device("meta"):
        body = timm.create_model("poolformer_s12", num_classes=3)
    with pytest.raises(UsageError, match="layers of MetaFormer .* nameplate backbones"):
        layer_numbers(Network(body, (0.5,) * 3, (0.5,) * 3))


# --- what learns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_freeze_trains_exactly_the_named_part(name: str) -> None:
    network = make(name)
    last = next(path for path, module in network.named_modules() if module is network.classifier)
    head = {f"{last}.weight", f"{last}.bias"}
    numbers = {f"body.{n}": number for n, number in layer_numbers(network).items()}
    groups = sorted({number for n, number in numbers.items() if n not in head})
    for train, free in (("head", []), ("2", groups[-2:]), ("all", groups), ("999", groups), ("head", [])):
        freeze(network, train)
        learning = {n for n, p in network.named_parameters() if p.requires_grad}
        assert learning == head | {n for n, number in numbers.items() if number in free}, train


def test_an_unknown_part_is_refused() -> None:
    network = make("test_resnet")
    for train in ("some", "-1", "", "1.5"):
        with pytest.raises(UsageError, match=f"not '{train}'"):
            freeze(network, train)


@pytest.mark.parametrize("train", ["head", "2", "all"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_a_step_changes_trained_parameters_and_nothing_else(name: str, train: str) -> None:
    network = make(name)
    freeze(network, train)
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    before = snapshot(network)
    train_mode(network)
    step(network)
    moved = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    norms = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        statistics = {f"{norm}.{each}" for each in ("running_mean", "running_var", "num_batches_tracked")}
        assert statistics & moved == (statistics if f"{norm}.weight" in learning else set()), norm
    assert {n for n in moved if not n.endswith(("running_mean", "running_var", "tracked"))} <= learning
    assert f"{norms[0]}.weight" in moved or train != "all"


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_dropout_is_active_only_in_trained_modules(name: str) -> None:
    """A ViT's own parameters (its position embedding) may be frozen while its last blocks are not."""
    network = make(name, drop=0.3)
    freeze(network, "2")
    train_mode(network)
    for path, module in network.named_modules():
        below = [p.requires_grad for p in module.parameters()]
        if below:
            assert module.training == any(below), path
    assert network.body.training
    drops = [m for n, m in network.named_modules() if isinstance(m, nn.Dropout) and "head" in n and m.p == 0.3]
    assert drops
    assert all(m.training for m in drops)
    frozen = network.body.blocks[0] if name == "test_vit" else network.body.stages[0]
    assert not any(m.training for m in frozen.modules())


# --- how fast -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_parameter_groups_cover_each_parameter_once_at_its_rate(name: str) -> None:
    network = make(name)
    groups: list[dict[str, Any]] = parameter_groups(network, 0.05, 0.5, 10.0)
    seen = [id(p) for group in groups for p in group["params"]]
    assert len(seen) == len(set(seen))
    assert set(seen) == {id(p) for p in network.parameters()}
    of = {id(p): group for group in groups for p in group["params"]}
    numbers, head = layer_numbers(network), {id(p) for p in network.classifier.parameters()}
    last = max(number for n, number in numbers.items() if id(network.body.get_parameter(n)) not in head)
    for n, parameter in network.body.named_parameters():
        group = of[id(parameter)]
        assert group["scale"] == (10.0 if id(parameter) in head else 0.5 ** (last - numbers[n])), n
        assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), n
    scales = {group["scale"] for group in groups}
    assert {10.0, 1.0, 0.5, 0.25} <= scales  # the last layer group at the full rate, each below at half
    first = of[id(next(network.body.parameters()))]
    assert first["scale"] == min(scales)


# --- depthwise convolutions ---------------------------------------------------------------------------


def grouped(network: nn.Module) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]


def test_a_copy_in_depthwise_form_has_its_own_weights() -> None:
    network = make("test_efficientnet")
    depthwise_in_float32(network)
    twin = copy.deepcopy(network)
    with torch.inference_mode():
        before = twin(noise(2))
    with torch.no_grad():
        for convolution in grouped(network):
            convolution.weight.zero_()
    with torch.inference_mode():
        assert torch.equal(twin(noise(2)), before)
        assert not torch.allclose(network(noise(2)), before)
    with torch.no_grad():
        for convolution in grouped(twin):
            convolution.weight.zero_()
    with torch.inference_mode():
        assert not torch.allclose(twin(noise(2)), before)


def test_the_depthwise_form_computes_the_same_and_is_undone() -> None:
    network = make("test_efficientnet")
    with torch.inference_mode():
        plain = network(noise(2))
        depthwise_in_float32(network)
        assert all("forward" in convolution.__dict__ for convolution in grouped(network))
        assert torch.equal(network(noise(2)), plain)
        with torch.autocast("cpu", torch.bfloat16):
            inside = network(noise(2))
    gap = float((inside.float() - plain).abs().max() / plain.abs().max())
    assert 0 < gap < 0.05
    plain_forward(network)
    assert not any("forward" in module.__dict__ for module in network.modules())
    with torch.inference_mode():
        assert torch.equal(network(noise(2)), plain)


def test_depthwise_convolutions_are_computed_in_float32() -> None:
    network = make("test_efficientnet")
    convolution = grouped(network)[0]
    x = torch.randn(1, convolution.in_channels, 16, 16)
    with torch.inference_mode():
        exact = convolution(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert convolution(x).dtype == torch.bfloat16
            depthwise_in_float32(network)
            assert torch.equal(convolution(x), exact)
            assert convolution(x.bfloat16()).dtype == torch.bfloat16  # float32 within, what came in goes out
