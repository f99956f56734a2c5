"""Reducing, cropping and resizing inside an ONNX graph, against Pillow and `images.transforms`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

if importlib.util.find_spec("onnx") is None:
    pytest.skip("needs onnx", allow_module_level=True)

from onnx import TensorProto

from nameplate.fit.onnx_graph import Graph, cropped, finished, model_input, squashed, tensor_info
from nameplate.images.transforms import crop, preprocess
from nameplate.runtime.ort import open_session
from nameplate.types import Fit, Interpolation, Preprocess

Pixels = NDArray[np.uint8]
SIDES = ((30, 45), (64, 96), (65, 200), (150, 160), (333, 100), (3, 301), (301, 1), (128, 192))
"""Heights and widths: enlarged, as they are, reduced, and far more along one axis than along the other."""


def runner(build: Callable[[Graph], str], given: list[str | int], made: list[str | int]) -> Callable[[Pixels], Pixels]:
    graph = Graph()
    graph.op("Identity", build(graph), name="made")
    entry, output = (tensor_info(name, TensorProto.UINT8, shape) for name, shape in (("photo", given), ("made", made)))
    session = open_session(finished(graph, "test", entry, [output], {}), 1, "graph")
    return lambda pixels: np.asarray(session.run(None, {"photo": pixels})[0])


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def test_the_detectors_input_is_pillows_to_the_last_bit() -> None:
    run = runner(lambda graph: squashed(graph, "photo", 32), ["N", "H", "W", 3], ["N", 32, 32, 3])
    for height, width in SIDES:
        pixels = noise(height, width)
        expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR, reducing_gap=1.0)
        assert (run(pixels[None])[0] == np.asarray(expected)).all(), (height, width)


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_model_input_is_that_of_preprocess_to_the_last_bit(fit: Fit, interpolation: Interpolation) -> None:
    size = Preprocess(64, 96, fit, interpolation)
    run = runner(lambda graph: model_input(graph, "photo", size), ["H", "W", 3], [1, 64, 96, 3])
    for height, width in SIDES:
        pixels = noise(height, width)
        assert np.array_equal(run(pixels)[0], preprocess(pixels, size)), (height, width)


def test_a_crop_is_that_of_crop() -> None:
    boxes = ((0.0, 0.0, 1.0, 1.0), (0.105, 0.2, 0.5, 0.905), (0.99, 0.999, 1.0, 1.0), (0.3, 0.5, 0.3001, 0.5001))
    for box in boxes:
        run = runner(lambda graph, box=box: cropped(graph, "photo", graph.double(box)), ["H", "W", 3], ["h", "w", 3])  # type: ignore[misc]
        for height, width in ((10, 20), (77, 31), (5, 1)):
            pixels = noise(height, width)
            assert np.array_equal(run(pixels), crop(pixels, box)), (box, height, width)
