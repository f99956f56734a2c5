"""Networks prepared for browsers: the same numbers, in the same size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

import onnxruntime

from nameplate.errors import BundleError
from nameplate.fit.web_graph import SCALE, _factors, graph_and_weights, optimised_graph
from nameplate.model.bundle import load_bundle
from nameplate.model.detector import detector_network, input_size
from nameplate.model.reference import reference_inputs
from nameplate.runtime.onnx_file import first_output_alone
from nameplate.runtime.ort import OnnxRuntime, open_session
from nameplate.types import Floats


def unpacked(weights: bytes) -> dict[str, Floats]:
    """The float32 tensors that a page makes of the file."""
    stored = {name: values.astype(np.float32) for name, values in load(weights).items()}
    plain = {name: values for name, values in stored.items() if not name.endswith(SCALE)}
    for name, values in plain.items():
        if (factors := stored.get(name + SCALE)) is not None:
            plain[name] = values * factors.reshape(-1, *[1] * (values.ndim - 1))
    return plain


def test_the_network_that_ships_gives_the_same_embeddings_and_does_not_grow(tmp_path: Path) -> None:
    bundle = load_bundle("cars196")
    graph, weights = graph_and_weights(first_output_alone(bundle.backbone))
    assert len(graph) + len(weights) < len(bundle.backbone)
    (tmp_path / "graph.onnx").write_bytes(graph)
    for name, values in unpacked(weights).items():
        (tmp_path / name).write_bytes(values.tobytes())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "graph.onnx", options, providers=["CPUExecutionProvider"])
    inputs = reference_inputs(bundle.manifest.preprocess)[:2]
    [found] = session.run(None, {session.get_inputs()[0].name: inputs})
    expected = OnnxRuntime(bundle.backbone, 1).run(inputs)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_detector_gives_the_same_boxes() -> None:
    view = np.random.default_rng(0).integers(0, 256, (1, input_size(), input_size(), 3), np.uint8)
    networks = (detector_network(), optimised_graph(detector_network()))
    plain, made = (open_session(network, 1, "detector").run(None, {"input": view}) for network in networks)
    assert all(np.abs(one - other).max() < 1e-5 for one, other in zip(plain, made, strict=True))


def test_factors_are_exact_or_none() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(0, 1, (8, 100)).astype(np.float16).astype(np.float32)
    factors = random.uniform(0.01, 100, 8).astype(np.float32)
    found = _factors(weights * factors[:, None], weights)
    assert found is not None
    assert (weights * found[:, None] == weights * factors[:, None]).all()
    other = weights * factors[:, None]
    other[3, 50] = np.nextafter(other[3, 50], np.float32(0))
    assert _factors(other, weights) is None
    weights[2] = 0
    silent = _factors(weights * factors[:, None], weights)
    assert silent is not None
    assert silent[2] == 0


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(BundleError, match="cannot optimise"):
        optimised_graph(b"no network")
