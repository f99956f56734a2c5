"""Export: the exported network agrees with the trained one, for every network, and the check finds differences."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.demo import photos_folder
from nameplate.errors import NameplateError
from nameplate.images import decode, preprocess
from nameplate.model.bundle import BACKBONE, Bundle, File, Manifest
from nameplate.runtime.ort import OnnxRuntime
from nameplate.runtime.select import make_runtime
from nameplate.storage import sha256
from nameplate.types import Floats, Preprocess

pytestmark = pytest.mark.torch
for needed in ("torch", "timm", "onnx", "onnxscript"):
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)

import onnx  # noqa: E402
import torch  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402
from torch import nn  # noqa: E402

from nameplate.fit.half import SMALL  # noqa: E402
from nameplate.train.backbones import build, find_backbone  # noqa: E402
from nameplate.train.export import Embedder, Parity, check_parity, export_onnx, head_of, round_weights, whiten  # noqa: E402
from nameplate.train.network import Network, depthwise_in_float32, has_places  # noqa: E402

torch.set_num_threads(1)

TINY = ["test_efficientnet", "test_vit", "test_resnet", "test_convnext", "test_nfnet"]
SIZE, CLASSES = 160, 10


def make(name: str) -> Network:
    """As if trained: statistics of its own, and a classifier that tells photos apart."""
    backbone = find_backbone(name)
    torch.manual_seed(1)
    network = Network(build(backbone, CLASSES, dropout=0.1, drop_path=0.0), backbone.mean, backbone.std)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    depthwise_in_float32(network)
    network.to(memory_format=torch.channels_last)
    with torch.no_grad():
        embedding = network.eval().embed(torch.from_numpy(pictures()))
        weight = torch.randn(CLASSES, embedding.shape[1]) / (embedding.std(0).norm() + 1e-9)
        network.classifier.weight.copy_(2 * weight.view_as(network.classifier.weight))
        network.classifier.bias.copy_(-2 * weight @ embedding.mean(0))
        assert len(network(torch.from_numpy(pictures())).argmax(1).unique()) >= 4
    return network


@cache
def pictures() -> NDArray[np.uint8]:
    """20 real photos."""
    paths = sorted(photos_folder("train").glob("*/00[01].jpg"))
    assert len(paths) == 20
    return np.stack([preprocess(decode(path, at_least=(SIZE, SIZE)), Preprocess(SIZE, SIZE)) for path in paths])


def bundled(backbone: bytes, head: tuple[Floats, Floats]) -> Bundle:
    names = tuple(map(str, range(CLASSES)))
    files = {BACKBONE: File(sha256(backbone), len(backbone))}
    return Bundle(Manifest(1, "x", names, names, Preprocess(SIZE, SIZE), len(head[0]), 1.0, files), backbone, *head)


@cache
def rounded_and_exported(name: str) -> tuple[Network, bytes]:
    """A network of `make`, rounded, and its file. Exporting takes seconds, so tests share both and change neither."""
    rounded = round_weights(make(name))
    return rounded, export_onnx(Embedder(rounded), SIZE, SIZE)


@pytest.fixture(params=TINY)
def exported(request: pytest.FixtureRequest) -> tuple[Network, bytes]:
    return rounded_and_exported(request.param)


# --- what leaves --------------------------------------------------------------------------------------


def test_the_exported_backbone_is_the_network_for_any_batch(exported: tuple[Network, bytes]) -> None:
    network, backbone = exported
    photos = pictures()
    with torch.inference_mode():
        truth = network.embed(torch.from_numpy(photos)).numpy()
    runtime = make_runtime("onnxruntime", backbone, 1)
    assert truth.std(0).max() > 1e-3
    for sizes in ([8, 8, 4], [1, 3, 7, 2, 7]):
        batches = np.split(photos, np.cumsum(sizes)[:-1])
        found = list(runtime.embed(batches))
        assert [len(each) for each in found] == sizes
        assert found[0].dtype == np.float32
        np.testing.assert_allclose(np.concatenate(found), truth, rtol=1e-4, atol=1e-4)


def test_weights_are_kept_as_float16_inside_the_file(exported: tuple[Network, bytes]) -> None:
    network, backbone = exported
    model = onnx.load_from_string(backbone)
    assert all(t.data_location == TensorProto.DEFAULT and not t.external_data for t in model.graph.initializer)
    floats = [t for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    large = [t for t in floats if len(t.dims) > 1 and np.prod(t.dims) >= SMALL]
    assert len(large) >= 8
    computed = [numpy_helper.to_array(t) for t in large if t.data_type == TensorProto.FLOAT]  # while exporting
    assert not any(np.array_equal(values, values.astype(np.float16)) for values in computed)
    if any(type(module).__name__.startswith("ScaledStd") for module in network.modules()):
        assert computed  # standardised filters
        return
    assert sum(values.size for values in computed) < 1000
    parameters = [p for p in network.parameters() if p is not network.classifier.weight]
    half, whole = (sum(p.numel() for p in parameters if (p.ndim > 1) == large) for large in (True, False))
    assert len(backbone) < 2 * half + 4 * whole + 100_000  # what is left is the graph
    assert len(backbone) < 3.2 * (half + whole)


def test_the_file_says_nothing_of_this_machine(exported: tuple[Network, bytes]) -> None:
    _, backbone = exported
    root = Path(__file__).parents[2]
    for path in (str(root), str(Path.home()), sys.prefix, "site-packages", ".py", "Traceback"):
        assert path.encode() not in backbone, path
    model = onnx.load_from_string(backbone)
    assert not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not any(value.doc_string or value.metadata_props for value in model.graph.input)
    assert not model.metadata_props
    assert not model.graph.metadata_props
    assert [value.name for value in model.graph.input] == ["photos"]
    assert [value.name for value in model.graph.output] == ["embedding"]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_nfnet"])
@pytest.mark.parametrize("whitened", [False, True])
def test_the_map_is_the_second_output_and_its_mean_is_the_embedding(name: str, whitened: bool) -> None:
    network, plain = rounded_and_exported(name)
    assert has_places(network, SIZE, SIZE)
    photos = pictures()[:5]
    with torch.inference_mode():
        truth = network.embed(torch.from_numpy(photos)).numpy()
    white = whiten(truth, np.array([0, 0, 0, 1, 1])) if whitened else None
    expected = truth if white is None else (truth - white.mean) @ white.matrix
    backbone = export_onnx(Embedder(network, white, places=True), SIZE, SIZE)
    model = onnx.load_from_string(backbone)
    assert [value.name for value in model.graph.output] == ["embedding", "map"]
    for batch in (photos, photos[:1]):
        [(embedding, places)] = OnnxRuntime(backbone, 1, maps=True).maps([batch])
        assert places.shape == (len(batch), SIZE // 32, SIZE // 32, truth.shape[1])
        scale = np.abs(expected).max()
        np.testing.assert_allclose(embedding, expected[: len(batch)], atol=1e-4 * scale)
        np.testing.assert_allclose(places.mean((1, 2)), embedding, atol=1e-4 * scale)
        assert places.std((1, 2)).max() > 1e-2 * scale
    [alone] = OnnxRuntime(backbone, 1).embed([photos])
    np.testing.assert_allclose(alone, expected, atol=1e-4 * np.abs(expected).max())
    if white is not None:  # its matrix is stored once, though both outputs need it
        assert len(backbone) < len(plain) + white.matrix.nbytes + white.mean.nbytes + 20_000


def test_the_map_is_that_of_the_photo_and_not_turned() -> None:
    """A change in one corner changes the map most in that corner."""
    network, _ = rounded_and_exported("test_resnet")
    backbone = export_onnx(Embedder(network, places=True), SIZE, SIZE)
    one = pictures()[:1]
    two = one.copy()
    two[:, -24:, :24] = 255 - two[:, -24:, :24]
    [(_, before)] = OnnxRuntime(backbone, 1, maps=True).maps([one])
    [(_, after)] = OnnxRuntime(backbone, 1, maps=True).maps([two])
    change = np.abs(after - before)[0].sum(2)
    assert np.unravel_index(change.argmax(), change.shape) == (SIZE // 32 - 1, 0)


def test_a_transformer_has_no_map() -> None:
    network, backbone = rounded_and_exported("test_vit")
    assert not has_places(network, SIZE, SIZE)
    model = onnx.load_from_string(backbone)
    assert [value.name for value in model.graph.output] == ["embedding"]


@pytest.mark.parametrize("pool", ["max", "catavgmax"])
def test_a_head_that_uses_more_than_the_mean_has_no_map(pool: str) -> None:
    import timm

    body = timm.create_model("test_resnet", num_classes=CLASSES, global_pool=pool)
    assert not has_places(Network(body, (0.5,) * 3, (0.5,) * 3).eval(), SIZE, SIZE)


def test_rounding_is_done_once_and_leaves_the_original() -> None:
    network = make("test_efficientnet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    once = round_weights(network)
    twice = round_weights(once)
    assert network.training
    assert not once.training
    assert not any("forward" in module.__dict__ for module in once.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    changed = 0
    for name, parameter in once.named_parameters():
        assert torch.equal(parameter, twice.get_parameter(name))
        assert torch.allclose(parameter, before[name], rtol=2**-10, atol=2**-24)
        if parameter.ndim > 1 and parameter.numel() >= SMALL:
            assert torch.equal(parameter, parameter.half().float()), name
            changed += not torch.equal(parameter, before[name])
        else:
            assert torch.equal(parameter, before[name]), name
    assert changed >= 8


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 96), ("resnetv2_18", 512)])
def test_a_head_is_the_transposed_classifier(name: str, size: int) -> None:
    network = make(name)
    weight, bias = head_of(network)
    assert weight.shape == (size, CLASSES)
    assert bias.shape == (CLASSES,)
    assert weight.dtype == bias.dtype == np.float32
    assert weight.flags["C_CONTIGUOUS"]
    with torch.inference_mode():
        photos = torch.from_numpy(pictures()[:3])
        embedding, logits = network.embed(photos).numpy(), network(photos).numpy()
    np.testing.assert_allclose(embedding @ weight + bias, logits, rtol=1e-4, atol=1e-4)


# --- the gate -----------------------------------------------------------------------------------------


def runtimes() -> list[str]:
    return ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]


def test_the_same_network_passes(exported: tuple[Network, bytes]) -> None:
    network, backbone = exported
    results = check_parity(network, bundled(backbone, head_of(network)), pictures(), runtimes(), 1)
    assert [each.runtime for each in results] == runtimes()
    for each in results:
        assert each.photos == each.same == 20
        assert each.holds
        assert 0 <= each.gap < 1e-3


def changed(network: Network, how: str) -> Network:
    """Another network than the one that is judged."""
    other = round_weights(network)
    with torch.no_grad():
        if how == "one filter":
            first = next(m for m in other.modules() if isinstance(m, nn.Conv2d))
            first.weight[0] = -first.weight[0]
        elif how == "normalisation":
            other.scale.mul_(255)
        else:
            for module in other.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
    return other


@pytest.mark.parametrize("how", ["one filter", "normalisation", "statistics"])
def test_another_network_is_refused_with_figures(how: str) -> None:
    network, _ = rounded_and_exported("test_efficientnet")
    backbone = export_onnx(Embedder(changed(network, how)), SIZE, SIZE)
    figures = r"onnxruntime agrees with torch on \d+ of 20 photos .*gap .* [01][.\d]*\)"
    with pytest.raises(NameplateError, match=figures):
        check_parity(network, bundled(backbone, head_of(network)), pictures(), ["onnxruntime"], 1)


def test_another_head_is_refused() -> None:
    network, backbone = rounded_and_exported("test_resnet")
    weight, bias = head_of(network)
    with pytest.raises(NameplateError, match="No bundle is written"):
        check_parity(network, bundled(backbone, (-weight, bias)), pictures(), ["onnxruntime"], 1)


def test_a_network_of_no_numbers_is_refused() -> None:
    """Where every probability is NaN, both name the first nameplate."""
    network: Any = make("test_resnet")
    with torch.no_grad():
        network.body.conv1[0].weight.fill_(float("nan"))
    network = round_weights(network)
    backbone = export_onnx(Embedder(network), SIZE, SIZE)
    with pytest.raises(NameplateError, match="gap between probabilities nan"):
        check_parity(network, bundled(backbone, head_of(network)), pictures(), ["onnxruntime"], 1)


@pytest.mark.parametrize(("same", "holds"), [(2000, True), (1998, True), (1997, False)])
def test_one_photo_in_a_thousand_may_differ(same: int, holds: bool) -> None:
    assert Parity("onnxruntime", 2000, same, 0.01).holds is holds
