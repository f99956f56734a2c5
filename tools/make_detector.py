"""Make an ONNX car detector from the TFLite file inside the npm package `@mediapipe/objectron`.

    npm pack @mediapipe/objectron@0.4.1675468480 && tar xzf mediapipe-objectron-*.tgz
    pip install tflite
    mv package/objectron_solution_packed_assets.data assets
    python tools/make_detector.py assets detector.onnx --calibrate CARS196 --photos PHOTOS

The network is an SSD MobileNetV2 trained on Open Images (Apache-2.0, by Google's MediaPipe). It is convolutional, so it
runs at other sizes than its own 300×300 pixels; anchors then keep their size in pixels. The ONNX file takes uint8
N×size×size×3 and gives `boxes`, float32 N×A×4 (top, left, bottom, right as shares of the input, within 0–1), and
`scores`, float32 N×A, the greater of the probabilities of Vehicle and Car. Boxes are not suppressed.

With --calibrate all convolutions but those that predict boxes and scores are quantised to int8, with 7-bit weights,
which processors without VNNI compute like all others. With --photos the conversion is checked against OpenVINO's own
reading of the TFLite file, at 300 pixels and in float32.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nameplate.data import list_photos
from nameplate.defaults import DEFAULT_BUNDLE
from nameplate.fit.half import store_as_half
from nameplate.fit.quantize import quantize
from nameplate.images.decode import decode
from nameplate.images.transforms import PAD_GREY, preprocess
from nameplate.model.bundle import load_bundle
from nameplate.storage import sha256
from nameplate.types import Preprocess

FILE = slice(184, 9987912)
"""Where the TFLite file lies among the package's assets; the names of its 24 classes are in the bytes before it."""
STRIDE = 16
"""Pixels of the input for each cell of the finest feature map; each map has half the cells of the one before."""
OWN_SIZE = 300
"""Height and width that the network was trained at, in pixels."""
VEHICLE, CAR, CLASSES = 18, 23, 24
SIZE, MAPS = 172, 3
"""What ships: height and width of the input in pixels, and how many of the six feature maps predict boxes, the finest
ones. The others are for boxes that are larger than the input (docs/detector.md)."""
ALL_MAPS = 6
FITTED = ((9.73, 15.41, 1.007), (19.25, 26.98, 1.050), (31.31, 54.80, 1.069))
"""Of each feature map at `SIZE`: the centre of the first anchor and the distance to the next, in pixels on both axes,
and how many times too large its boxes are. Fitted on training photos, because padding has another weight in a smaller
input than in training (docs/detector.md). At other sizes anchors are in the middle of their cells."""
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Sides of the square anchors of each feature map, and one more, as shares of `OWN_SIZE`."""
CENTRES, SIDES = 10, 5
"""What encoded centres and encoded logarithms of sides are divided by."""
LARGEST_SIDE = 20.0
"""Greatest encoded logarithm of a side that is decoded, so that nothing overflows: e^(20 / 5) times the anchor."""
CALIBRATION, BITS = 300, 7
"""How many photos calibrate, and how many bits the weights have."""
SHARES = (1.0, 0.5, 1 / 3, 0.2)
"""The shares of the frame that photos to calibrate on take, in turn."""
GAP = 1e-3
"""The largest difference from the TFLite file that is allowed, of logits and of encoded boxes; 3e-5 was measured."""
RELU6 = 3
"""TFLite's number of the activation function ReLU6; 0 is none, and the file has no other."""


OUTPUTS = ("encoded", "logits")
"""Names of the network's own outputs: boxes relative to their anchors, and a logit of each class."""


@dataclass
class Graph:
    """The ONNX graph while it is built; names and shapes are kept by the number of the TFLite tensor."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Append a node with one output; return the output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """Append a constant; return its name."""
        self.tensors.append(numpy_helper.from_array(values, name))
        return name


def convert(data: bytes, size: int, classes: list[int], maps: int = ALL_MAPS) -> onnx.ModelProto:
    """Convert the TFLite file to ONNX, operator by operator; the outputs are still relative to anchors.

    Args:
        data: the TFLite file.
        size: height and width of the input, in pixels.
        classes: the classes whose scores are computed.
        maps: how many of the feature maps predict boxes, finest first.

    Raises:
        ValueError: the file has an operator or an activation function that it did not have when this was written.
    """
    model = tflite.Model.GetRootAsModel(data, 0)
    subgraph, graph = model.Subgraphs(0), Graph()
    constants = _constants(model)
    _begin(graph, subgraph.Inputs(0), size)
    steps = list(_operators(model))
    rows = {output: inputs[0] for kind, _, inputs, output in steps if kind == "RESHAPE"}
    class_heads = {entry for output, entry in rows.items() if _columns(subgraph, output) == CLASSES}
    for number, (kind, operator, inputs, output) in enumerate(steps):
        name = f"n{number}"
        if kind == "DEQUANTIZE":
            constants[output] = constants[inputs[0]].astype(np.float32)
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            weights = [constants[place] for place in inputs[1:]]
            if output in class_heads:
                weights = [_of_classes(values, classes) for values in weights]
            _convolution(graph, operator, kind, [inputs[0], output], weights, name)
        elif kind == "ADD":
            graph.names[output] = graph.node("Add", [graph.names[place] for place in inputs], name)
            graph.sizes[output] = graph.sizes[inputs[0]]
        elif kind == "RESHAPE":
            columns = _columns(subgraph, output)
            graph.names[output] = _rows(graph, inputs[0], len(classes) if columns == CLASSES else columns, name)
        elif kind == "CONCATENATION":
            graph.names[output] = graph.node("Concat", [graph.names[place] for place in inputs[:maps]], name, axis=1)
        else:
            raise ValueError(f"The TFLite file has an operator {kind}, which this tool does not convert.")
    return _end(graph, [graph.names[subgraph.Outputs(place)] for place in range(2)], size, classes)


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """TFLite's SAME: the output's length, and how many zeros stand before and behind the input.

    >>> same_padding(300, 3, 2)
    (150, 0, 1)
    """
    out = -(-length // stride)
    zeros = max((out - 1) * stride + kernel - length, 0)
    return out, zeros // 2, zeros - zeros // 2


def _operators(model: tflite.Model) -> Iterator[tuple[str, tflite.Operator, list[int], int]]:
    """Each operator's kind, itself, and the tensors that it reads and makes."""
    kinds = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
    subgraph = model.Subgraphs(0)
    for number in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        yield kind, operator, [operator.Inputs(place) for place in range(operator.InputsLength())], operator.Outputs(0)


def _columns(subgraph: tflite.SubGraph, tensor: int) -> int:
    return int(subgraph.Tensors(tensor).ShapeAsNumpy()[-1])


def _of_classes(values: NDArray[np.generic], classes: list[int]) -> NDArray[np.generic]:
    """A class head's filters or biases, anchor by anchor along the first axis, of these classes alone."""
    return values.reshape(-1, CLASSES, *values.shape[1:])[:, classes].reshape(-1, *values.shape[1:])


def _constants(model: tflite.Model) -> dict[int, NDArray[np.generic]]:
    kinds = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}
    found: dict[int, NDArray[np.generic]] = {}
    subgraph = model.Subgraphs(0)
    for place in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(place)
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(data, np.ndarray) and data.size and tensor.Type() in kinds:
            found[place] = np.frombuffer(data.tobytes(), kinds[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
    return found


def _begin(graph: Graph, entry: int, size: int) -> None:
    """From uint8 N×H×W×3 to float32 N×3×H×W in [-1, 1]."""
    graph.node("Cast", ["input"], "pixels", to=TensorProto.FLOAT)
    graph.node("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    graph.node("Mul", ["planes", graph.constant("scale", np.array(2 / 255, np.float32))], "scaled")
    graph.names[entry] = graph.node("Sub", ["scaled", graph.constant("one", np.array(1, np.float32))], "x")
    graph.sizes[entry] = size, size
    graph.constant("zero", np.array(0, np.float32))
    graph.constant("six", np.array(6, np.float32))


def _convolution(
    graph: Graph, operator: tflite.Operator, kind: str, ends: list[int], weights: list[NDArray[np.generic]], name: str
) -> None:
    options = tflite.Conv2DOptions() if kind == "CONV_2D" else tflite.DepthwiseConv2DOptions()
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    # TFLite has the filters as out×height×width×in, of a depthwise convolution as 1×height×width×channels.
    filters = weights[0].transpose((0, 3, 1, 2) if kind == "CONV_2D" else (3, 0, 1, 2))
    stride, (entry, output) = options.StrideH(), ends
    height, top, bottom = same_padding(graph.sizes[entry][0], filters.shape[2], stride)
    width, left, right = same_padding(graph.sizes[entry][1], filters.shape[3], stride)
    if options.Padding() != tflite.Padding.SAME or options.FusedActivationFunction() not in (0, RELU6):
        raise ValueError(f"{name}: a padding or activation function that this tool does not convert.")
    tensors = [
        graph.constant(f"{name}.weight", np.ascontiguousarray(filters)),
        graph.constant(f"{name}.bias", weights[1]),
    ]
    bounded = options.FusedActivationFunction() == RELU6
    plain = graph.node(
        "Conv",
        [graph.names[entry], *tensors],
        f"{name}.sum" if bounded else name,
        strides=[stride, stride],
        pads=[top, left, bottom, right],
        group=1 if kind == "CONV_2D" else filters.shape[0],
    )
    graph.names[output] = graph.node("Clip", [plain, "zero", "six"], name) if bounded else plain
    graph.sizes[output] = height, width


def _rows(graph: Graph, entry: int, columns: int, name: str) -> str:
    """A feature map's predictions as rows, one per anchor; what is rows already stays as it is."""
    if entry not in graph.sizes:
        return graph.names[entry]
    last = graph.node("Transpose", [graph.names[entry]], f"{name}.last", perm=[0, 2, 3, 1])
    return graph.node("Reshape", [last, graph.constant(f"{name}.shape", np.array([0, -1, columns]))], name)


def _end(graph: Graph, ends: list[str], size: int, classes: list[int]) -> onnx.ModelProto:
    for end, name in zip(ends, OUTPUTS, strict=True):
        graph.node("Identity", [end], name)
    nodes = _needed(graph.nodes)
    read = {name for node in nodes for name in node.input}
    entry = helper.make_tensor_value_info("input", TensorProto.UINT8, ["N", size, size, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "A", columns])
        for name, columns in zip(OUTPUTS, (4, len(classes)), strict=True)
    ]
    tensors = [tensor for tensor in graph.tensors if tensor.name in read]
    made = helper.make_graph(nodes, "detector", [entry], outputs, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    store_as_half(model)
    onnx.checker.check_model(model)
    return model


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    read, kept = set(OUTPUTS), []
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(node.input)
            kept.append(node)
    return kept[::-1]


def anchors(size: int, maps: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What boxes are relative to, as shares of the input, each float32 A×2, vertical first.

    Returns:
        Centres, sides, and the sides that a box has whose encoded sides are 0: smaller where boxes come out too large.
    """
    centres, sides, corrected, cells = [], [], [], -(-size // STRIDE)
    for number, (scale, following) in enumerate(pairwise(SCALES[: maps + 1])):
        first, step, excess = FITTED[number] if size == SIZE else (size / cells / 2, size / cells, 1.0)
        kinds = [*((ratio, scale) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)), (1.0, (scale * following) ** 0.5)]
        if number == 0:  # the finest feature map has three anchors a cell, the others six
            kinds = [(1.0, 0.1), (2.0, scale), (0.5, scale)]
        for row, column, (ratio, side) in product(range(cells), range(cells), kinds):
            centres.append(((first + step * row) / size, (first + step * column) / size))
            sides.append((side / ratio**0.5 * OWN_SIZE / size, side * ratio**0.5 * OWN_SIZE / size))
            corrected.append((sides[-1][0] / excess, sides[-1][1] / excess))
        cells = -(-cells // 2)
    return np.array(centres, np.float32), np.array(sides, np.float32), np.array(corrected, np.float32)


def with_boxes(network: bytes, size: int, maps: int) -> bytes:
    """The network with nodes that decode its outputs to `boxes` and `scores`, see the top of the file."""
    model, graph = onnx.load_from_string(network), Graph()
    centres, sides, corrected = anchors(size, maps)
    graph.node("Gather", ["encoded", graph.constant("columns.centre", np.array([0, 1]))], "centre", axis=2)
    graph.node("Gather", ["encoded", graph.constant("columns.side", np.array([2, 3]))], "side", axis=2)
    graph.node("Mul", ["centre", graph.constant("anchor.sides", sides / CENTRES)], "shift")
    graph.node("Add", ["shift", graph.constant("anchor.centres", centres)], "middle")
    graph.node("Min", ["side", graph.constant("side.most", np.array(LARGEST_SIDE, np.float32))], "side.bounded")
    graph.node("Mul", ["side.bounded", graph.constant("side.scale", np.array(1 / SIDES, np.float32))], "side.log")
    graph.node("Exp", ["side.log"], "side.ratio")
    graph.node("Mul", ["side.ratio", graph.constant("anchor.halves", corrected / 2)], "half")
    corners = [graph.node("Sub", ["middle", "half"], "first"), graph.node("Add", ["middle", "half"], "last")]
    graph.node("Concat", corners, "corners", axis=2)
    limits = [graph.constant(f"share.{share}", np.array(share, np.float32)) for share in (0, 1)]
    graph.node("Clip", ["corners", *limits], "boxes")
    graph.node("ReduceMax", ["logits"], "logit", axes=[2], keepdims=0)
    graph.node("Sigmoid", ["logit"], "scores")
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.tensors)
    del model.graph.output[:]
    for name, shape in (("boxes", ["N", "A", 4]), ("scores", ["N", "A"])):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)
    made: bytes = model.SerializeToString()
    return made


def heads(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions that predict boxes and scores: nothing but a transposition follows them."""
    turned = {node.input[0] for node in model.graph.node if node.op_type == "Transpose"}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and node.output[0] in turned]


def calibration_inputs(folder: Path, size: int) -> NDArray[np.uint8]:
    """Photos that trained the bundle that ships, each squashed into a share of a grey frame, at a random place."""
    rows = csv.DictReader((load_bundle(DEFAULT_BUNDLE).photos or b"").decode().splitlines())
    # By nameplate and file name, since the folder may be a copy in other colours.
    trained = {Path(row["path"]).parts[-2:] for row in rows if row["split"] == "train"}
    photos = [photo for photo in list_photos(folder) if Path(photo.path).parts[-2:] in trained]
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(CALIBRATION, len(photos))).round().astype(int))
    draw, inputs = np.random.default_rng(0), np.full((len(chosen), size, size, 3), PAD_GREY, np.uint8)
    for number, place in enumerate(chosen):
        side = round(size * SHARES[number % len(SHARES)] ** 0.5)
        top, left = draw.integers(size - side + 1, size=2)
        small = preprocess(decode(photos[place].path), Preprocess(side, side))
        inputs[number, top : top + side, left : left + side] = small
    return inputs


def largest_gap(data: bytes, photos: list[str]) -> float:
    """The largest difference between the ONNX file at 300 pixels and the TFLite file as OpenVINO reads it."""
    from onnxruntime import InferenceSession

    session = InferenceSession(convert(data, OWN_SIZE, list(range(CLASSES))).SerializeToString())
    return max(
        float(np.abs(expected - found).max())
        for pixels, expecteds in _by_openvino(data, photos)
        for expected, found in zip(expecteds, session.run(None, {"input": pixels}), strict=True)
    )


def _by_openvino(data: bytes, photos: list[str]) -> Iterator[tuple[NDArray[np.uint8], list[NDArray[np.float32]]]]:
    from openvino import Core

    with TemporaryDirectory() as folder:
        (Path(folder) / "detector.tflite").write_bytes(data)
        core = Core()
        compiled = core.compile_model(
            core.read_model(Path(folder) / "detector.tflite"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        for photo in photos:
            pixels = preprocess(decode(photo), Preprocess(OWN_SIZE, OWN_SIZE))[None]
            found = compiled(pixels.astype(np.float32) * np.float32(2 / 255) - 1)
            yield pixels, [found[0], found[1]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("assets", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=SIZE, help="Height and width of the input, in pixels.")
    parser.add_argument("--maps", type=int, default=MAPS, help="How many of the feature maps predict boxes.")
    parser.add_argument("--calibrate", type=Path, help="Quantise to int8, with the ranges of these photos.")
    parser.add_argument("--photos", type=Path, help="Check the file on these photos.")
    arguments = parser.parse_args()
    data = arguments.assets.read_bytes()[FILE]
    if arguments.photos is not None:
        photos = [photo.path for photo in list_photos(arguments.photos)][:50]
        gap = largest_gap(data, photos)
        print(f"largest difference from the TFLite file on {len(photos)} photos: {gap:.1e}")
        if gap > GAP:
            raise SystemExit(f"It is more than {GAP:g}: nothing is written.")
    model = convert(data, arguments.size, [VEHICLE, CAR], arguments.maps)
    made = model.SerializeToString()
    if arguments.calibrate is not None:
        made = quantize(made, calibration_inputs(arguments.calibrate, arguments.size), heads(model), BITS)
    made = with_boxes(made, arguments.size, arguments.maps)
    arguments.output.write_bytes(made)
    print(f"{arguments.output}: {len(made) / 1e6:.1f} MB, {arguments.size}×{arguments.size}, SHA-256 {sha256(made)}")


if __name__ == "__main__":
    main()
