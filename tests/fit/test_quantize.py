"""A backbone in int8: close to float32, complete, and accepted by every runtime."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate.types import Floats

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

import onnx

from nameplate.demo import photos_folder
from nameplate.errors import BundleError
from nameplate.fit.quantize import by_sensitivity, convolutions, folded, quantize
from nameplate.model.pipeline import Settings, prepare_photo
from nameplate.runtime.base import BATCH
from nameplate.runtime.onnx_file import refuse_external_data
from nameplate.runtime.ort import OnnxRuntime
from nameplate.runtime.select import make_runtime
from tests.fit.tiny_backbone import SIZE, tiny_backbone
from tests.outcomes import prepared

RUNTIMES = ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    found = []
    for path in sorted(photos_folder("train").glob("*/00[0-3].jpg")):
        found.append(prepared(prepare_photo(path, SIZE, Settings())).inputs[0])
    return np.stack(found)


def embed(backbone: bytes, pictures: NDArray[np.uint8], runtime: str = "onnxruntime") -> Floats:
    batches = (pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH))
    return np.concatenate(list(make_runtime(runtime, backbone, 1).embed(batches)))


def least_cosine(a: Floats, b: Floats) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize(("runtime", "bits"), [("onnxruntime", 8), *((runtime, 7) for runtime in RUNTIMES)])
def test_int8_embeds_as_float32_does_on_every_processor(pictures: NDArray[np.uint8], runtime: str, bits: int) -> None:
    plain = tiny_backbone()
    exact, rounded = embed(plain, pictures), embed(quantize(plain, pictures, bits=bits), pictures, runtime)
    assert rounded.dtype == np.float32
    assert rounded.shape == exact.shape
    assert 0.998 < least_cosine(exact, rounded) < 1
    assert np.abs(exact - rounded).max() > 1e-5  # it does round


def test_the_file_is_whole_smaller_and_keeps_inputs_outputs_and_opset(pictures: NDArray[np.uint8]) -> None:
    plain = tiny_backbone()
    made = quantize(plain, pictures)
    refuse_external_data(made, "made")
    assert b"DequantizeLinear" in made
    assert len(made) < 0.6 * len(plain)
    before, after = onnx.load_from_string(plain), onnx.load_from_string(made)
    assert after.opset_import == before.opset_import
    kinds = {tensor.name: tensor.data_type for tensor in after.graph.initializer}
    assert kinds["matrix.half"] == onnx.TensorProto.FLOAT16  # what stays in float is exactly what it was
    assert after.graph.input == before.graph.input
    assert [each.name for each in after.graph.output] == ["embedding", "map"]
    [(embedding, places)] = OnnxRuntime(made, 1, maps=True).maps([pictures[:BATCH]])
    assert places.shape == (BATCH, 4, 6, 48)
    assert np.allclose(places.mean((1, 2)), embedding, atol=1e-3)


def test_the_same_photos_give_the_same_bytes(pictures: NDArray[np.uint8]) -> None:
    assert quantize(tiny_backbone(), pictures) == quantize(tiny_backbone(), pictures)


def test_excluded_convolutions_stay_in_float(pictures: NDArray[np.uint8]) -> None:
    plain = tiny_backbone()
    names = convolutions(folded(plain))
    assert len(names) == 3
    exact = embed(plain, pictures)
    errors = [
        np.abs(embed(quantize(plain, pictures, in_float), pictures) - exact).mean() for in_float in ((), names[:2])
    ]
    assert errors[1] < errors[0]
    weights = {
        tensor.name: tensor.data_type
        for tensor in onnx.load_from_string(quantize(plain, pictures, names[:2])).graph.initializer
    }
    assert sum(kind == onnx.TensorProto.INT8 for name, kind in weights.items() if "w" in name and "quant" in name) == 1


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 64)])
def test_filters_use_the_given_number_of_bits(pictures: NDArray[np.uint8], bits: int, most: int) -> None:
    made = onnx.load_from_string(quantize(tiny_backbone(), pictures, bits=bits))
    filters = [onnx.numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(each.astype(int)).max()) for each in filters) == most


def test_the_most_sensitive_convolution_comes_first(pictures: NDArray[np.uint8]) -> None:
    plain = tiny_backbone()
    exact, order = embed(plain, pictures), by_sensitivity(plain, pictures)
    assert sorted(order) == convolutions(folded(plain))
    first, last = (
        np.square(embed(quantize(plain, pictures, [name for name in order if name != one]), pictures) - exact).mean()
        for one in (order[0], order[-1])
    )
    assert first > last


def test_a_backbone_without_convolutions_is_refused(pictures: NDArray[np.uint8]) -> None:
    plain = tiny_backbone()
    for backbone, in_float in ((quantize(plain, pictures), ()), (plain, convolutions(folded(plain)))):
        with pytest.raises(BundleError, match="nothing to quantise"):
            quantize(backbone, pictures, in_float)
    with pytest.raises(BundleError, match="cannot load"):
        quantize(b"no onnx", pictures)
