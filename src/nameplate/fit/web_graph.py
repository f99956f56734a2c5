"""Prepares networks for ONNX Runtime Web: graphs that are optimised already, and weights that stay small.

A browser that loads a plain file optimises its graph at every first visit, by WebAssembly that is compiled meanwhile:
more than half of the time to the first answer. Here ONNX Runtime does it once, at the export, and the browser loads the
result with its optimisations off.

Optimising folds batch norms into convolutions, and float16 weights W become float32 weights W·s, with a factor s for
each filter: twice the size, and nothing that compresses. So W and s are stored, where their product is the folded
weight to the last bit, and the page multiplies them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from safetensors.numpy import save

from nameplate.errors import BundleError
from nameplate.fit.half import SMALL
from nameplate.runtime.ort import import_onnxruntime
from nameplate.types import Floats

OTHER_LAYOUT = "NchwcTransformer"
"""The only optimisation of ONNX Runtime whose operators WebAssembly lacks: blocks of channels for wide registers."""
SCALE = ".scale"
"""How the name of a tensor's factors ends."""


def optimised_graph(network: bytes) -> bytes:
    """A network, an ONNX file, as ONNX Runtime's optimisations leave it.

    Raises:
        BundleError: ONNX Runtime cannot load it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(file)
        providers, disabled = ["CPUExecutionProvider"], [OTHER_LAYOUT]
        try:
            onnxruntime.InferenceSession(network, options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:  # onnxruntime's errors have no common base but Exception
            raise BundleError(f"ONNX Runtime cannot optimise the network: {error}") from None
        return file.read_bytes()


def graph_and_weights(network: bytes) -> tuple[bytes, bytes]:
    """An optimised network in two files.

    Args:
        network: an ONNX file; its weights may be stored as float16 with a Cast after each.

    Returns:
        The graph, an ONNX file whose large float32 tensors are external data at "0", "1", …; and these tensors, a
        safetensors file. Tensor "0" is float32, or float16 where that is exact; where "0.scale" exists too, float32
        with an entry for each row of "0", it is their product, computed in float32.

    Raises:
        BundleError: ONNX Runtime cannot load the network.
    """
    model = onnx.load_from_string(optimised_graph(network))
    halves = _halves(onnx.load_from_string(network))
    stored: dict[str, NDArray[np.generic]] = {}
    large = [each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT and _large(each)]
    for number, tensor in enumerate(large):
        name = str(number)
        stored[name], factors = _factored(numpy_helper.to_array(tensor), _source(tensor.name, halves))
        if factors is not None:
            stored[name + SCALE] = factors
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
    return model.SerializeToString(), save(stored)


def _large(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) >= 2 and int(np.prod(tensor.dims)) >= SMALL


def _halves(model: onnx.ModelProto) -> dict[str, NDArray[np.float16]]:
    """The tensors that are stored as float16, by their names in float32."""
    found = {each.name: each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT16}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in found]
    return {node.output[0]: numpy_helper.to_array(found[node.input[0]]) for node in casts}


def _source(name: str, halves: dict[str, NDArray[np.float16]]) -> NDArray[np.float16] | None:
    """The stored tensor that a folded one was made from: ONNX Runtime puts words before its name."""
    names = [each for each in halves if name.endswith(each)]
    return halves[max(names, key=len)] if names else None


def _factored(values: Floats, half: NDArray[np.float16] | None) -> tuple[NDArray[np.generic], Floats | None]:
    """What to store for a tensor, with its factors; the tensor itself where neither form is exact."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if np.array_equal(rounded, values):
        return rounded, None
    if half is not None and half.shape == values.shape:
        factors = _factors(values.reshape(len(values), -1), half.astype(np.float32).reshape(len(values), -1))
        if factors is not None:
            return half, factors
    return values, None


def _factors(product: Floats, weights: Floats) -> Floats | None:
    """The float32 factor of each row with which `weights` are `product` to the last bit; None where one has none."""
    rows = np.arange(len(weights))
    largest = np.abs(weights).argmax(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.nan_to_num(product[rows, largest] / weights[rows, largest])
    found = np.full(len(near), np.nan, np.float32)
    for factor in (near, *_neighbours(near, np.inf), *_neighbours(near, -np.inf)):  # the quotient is rounded
        exact = (weights * factor[:, None] == product).all(axis=1)
        found = np.where(np.isnan(found) & exact, factor, found)
    return None if np.isnan(found).any() else found


def _neighbours(numbers: Floats, towards: float) -> tuple[Floats, Floats]:
    one = np.nextafter(numbers, np.float32(towards))
    return one, np.nextafter(one, np.float32(towards))
