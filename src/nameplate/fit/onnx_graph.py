"""Builds the part of an ONNX graph that stands before a network: reducing, cropping and resizing photos as Pillow does.

`export --onnx --with-resize` puts these nodes into its file. They follow Pillow 13's arithmetic to the last bit
(src/libImaging/Resample.c, Reduce.c): filters that widen with the reduction, weights of 22 bits that leave out what
lies beyond the edge, one pass for each axis with uint8 between them, and the axis that shrinks far more first. ONNX's
own Resize is off by one level at some pixels, which changed a probability by 0.008 (docs/export.md). The file has
neither branches nor loops, so that every build of ONNX Runtime runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nameplate.images.transforms import PAD_GREY
from nameplate.types import Preprocess

OPSET, IR = 18, 8
"""Versions of the operators and of the file format. ONNX Runtime reads both since 1.14."""
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""The filters that the graph can apply → their support, in pixels of the result."""
CUBIC = -0.5
"""The coefficient of Pillow's bicubic filter."""
PRECISION = 22
"""Number of fraction bits of Pillow's weights for 8-bit pixels (PRECISION_BITS)."""
HALF = 1 << (PRECISION // 2)
"""Weights are multiplied in two halves of 11 bits, so that float32, whose products are fast, adds them up exactly."""
REDUCE_BITS = 24
"""Number of fraction bits of the reciprocals with which Pillow's `reduce` divides."""


@dataclass
class Graph:
    """The nodes of an ONNX graph while it is built. Tensors are referred to by name."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, operator: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        """Append a node with one output; return the output's name.

        Args:
            operator: the ONNX operator.
            inputs: names of its inputs; "" for one that is left out.
            name: the output's name; None: one is made.
            attributes: the operator's attributes, by the names that the standard gives them.
        """
        name = name or f"{operator.lower()}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def many(self, operator: str, inputs: list[str], names: list[str], **attributes: object) -> None:
        """Append a node with several outputs of these names."""
        self.nodes.append(helper.make_node(operator, inputs, names, names[0], **attributes))

    def constant(self, values: object, kind: type[np.generic] = np.int64) -> str:
        """Append a constant of a numpy type; return its name."""
        name = f"constant.{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def double(self, value: object) -> str:
        """Append a constant of float64."""
        return self.constant(value, np.float64)

    def cast(self, tensor: str, kind: int) -> str:
        """Convert a tensor to a type of `onnx.TensorProto`."""
        return self.op("Cast", tensor, to=kind)

    def side(self, tensor: str, axis: int) -> str:
        """The length of one axis, int64 (1,)."""
        return self.op("Shape", tensor, start=axis, end=axis + 1)

    def scalar(self, tensor: str) -> str:
        """A tensor (1,) as a scalar."""
        return self.op("Squeeze", tensor, self.constant([0]))


def model_input(graph: Graph, photo: str, size: Preprocess) -> str:
    """`images.transforms.preprocess` for the fits squash and pad.

    Args:
        graph: is extended.
        photo: uint8 H×W×3.
        size: the size of the model input, the fit and the filter.

    Returns:
        uint8 1×height×width×3.
    """
    if size.fit == "squash":
        return resized(graph, photo, graph.constant([size.height, size.width]), size.interpolation)
    height, width = (graph.cast(graph.side(photo, axis), TensorProto.DOUBLE) for axis in (0, 1))
    goal = graph.constant([size.height, size.width])
    own = graph.op("Concat", height, width, axis=0)
    shares = graph.op("Div", graph.cast(goal, TensorProto.DOUBLE), own)
    # A scalar, because it is multiplied with both sides.
    scale = graph.op("ReduceMin", shares, keepdims=0)
    rounded = graph.cast(graph.op("Round", graph.op("Mul", own, scale)), TensorProto.INT64)
    inner = graph.op("Max", rounded, graph.constant([1, 1]))
    small = resized(graph, photo, inner, size.interpolation)
    left_over = graph.op("Sub", goal, inner)
    before = graph.op("Div", left_over, graph.constant([2, 2]))
    none = graph.constant([0])
    pads = graph.op("Concat", none, before, none, none, graph.op("Sub", left_over, before), none, axis=0)
    padded = graph.op("Pad", small, pads, graph.constant(PAD_GREY, np.uint8))
    # The shape is known, though no runtime could infer it from the padding.
    return graph.op("Reshape", padded, graph.constant([1, size.height, size.width, 3]))


def resized(graph: Graph, photo: str, goal: str, interpolation: str) -> str:
    """Resize a photo as `Image.resize` does.

    Args:
        graph: is extended.
        photo: uint8 H×W×3.
        goal: int64 (2,), height and width.
        interpolation: one of `SUPPORT`.

    Returns:
        uint8 1×height×width×3.
    """
    lengths = [graph.cast(graph.side(photo, axis), TensorProto.DOUBLE) for axis in (0, 1)]
    return _resampled(graph, graph.op("Unsqueeze", photo, graph.constant([0])), lengths, goal, interpolation)


def _resampled(graph: Graph, photos: str, lengths: list[str], goal: str, interpolation: str) -> str:
    """Resample both axes of photos, one after the other.

    Args:
        graph: is extended.
        photos: whole numbers from 0 to 255, N×H×W×3, of any type.
        lengths: float64 (1,) each: how many of the rows and of the columns are resampled; the last one may count for
            less than a whole one.
        goal: int64 (2,), height and width of the result.
        interpolation: one of `SUPPORT`.

    Returns:
        uint8 N×height×width×3.
    """
    own = graph.op("Concat", graph.side(photos, 1), graph.side(photos, 2), axis=0)
    turned = _rows_first(graph, own, goal)
    planes = graph.cast(graph.op("Transpose", photos, perm=[0, 3, 1, 2]), TensorProto.FLOAT)
    planes = _turned(graph, planes, own, turned)
    # The axes of `planes` are now the one that is resampled last, and the one that is resampled first.
    both = graph.op("Concat", *lengths, axis=0)
    last, first = (
        _weights(
            graph,
            _chosen(graph, own, turned, place),
            _chosen(graph, both, turned, place),
            _chosen(graph, goal, turned, place),
            interpolation,
        )
        for place in (0, 1)
    )
    halfway = _product(graph, planes, graph.op("Transpose", first, perm=[1, 0]), swapped=False)
    done = _product(graph, halfway, last, swapped=True)
    sides = graph.op("Concat", *(_chosen(graph, goal, turned, place) for place in (0, 1)), axis=0)
    upright = graph.cast(_turned(graph, done, sides, turned), TensorProto.UINT8)
    shape = graph.op("Concat", graph.constant([-1, 3]), goal, axis=0)
    return graph.op("Transpose", graph.op("Reshape", upright, shape), perm=[0, 2, 3, 1])


def _turned(graph: Graph, planes: str, sides: str, turned: str) -> str:
    """Planes with their two axes exchanged where `turned` is true: …×P×Q → M×Q×P, else M×P×Q.

    The order of a Transpose is fixed when the graph is built, so the pixels are gathered.

    Args:
        graph: is extended.
        planes: any shape that ends in P×Q.
        sides: int64 (2,), P and Q.
        turned: bool (1,).
    """
    flat = graph.op("Reshape", planes, graph.op("Concat", graph.constant([-1]), _count(graph, sides), axis=0))
    one, width = graph.constant([1]), graph.op("Gather", sides, graph.constant([1]))
    down = graph.op("Where", turned, one, width)
    across = graph.op("Where", turned, width, one)
    rows, columns = (_chosen(graph, sides, turned, place) for place in (0, 1))
    starts = graph.op("Mul", _range(graph, rows), down)
    steps = graph.op("Mul", _range(graph, columns), across)
    return graph.op("Gather", flat, graph.op("Add", graph.op("Unsqueeze", starts, one), steps), axis=1)


def _count(graph: Graph, sides: str) -> str:
    return graph.op("ReduceProd", sides, graph.constant([0]), keepdims=1)


def _range(graph: Graph, count: str) -> str:
    """0, 1, …, count - 1; int64 (count,)."""
    return graph.op("Range", graph.constant(0), graph.scalar(count), graph.constant(1))


def _chosen(graph: Graph, pair: str, turned: str, place: int) -> str:
    """One of a pair of numbers, (1,); the other one where `turned` is true."""
    this, other = (graph.op("Gather", pair, graph.constant([each])) for each in (place, 1 - place))
    return graph.op("Where", turned, other, this)


def _product(graph: Graph, pixels: str, weights: str, *, swapped: bool) -> str:
    """Pixels times weights as whole levels from 0 to 255, float32; weights times pixels where `swapped`.

    Args:
        graph: is extended.
        pixels: float32, whole numbers.
        weights: float64, whole numbers, 2^22 stands for 1.
        swapped: whether the weights stand on the left.
    """
    high = graph.op("Round", graph.op("Div", weights, graph.double(HALF)))
    low = graph.op("Sub", weights, graph.op("Mul", high, graph.double(HALF)))
    sums = []
    for part in (high, low):
        matrix = graph.cast(part, TensorProto.FLOAT)
        product = graph.op("MatMul", *((matrix, pixels) if swapped else (pixels, matrix)))
        sums.append(graph.cast(product, TensorProto.DOUBLE))
    total = graph.op("Add", graph.op("Mul", sums[0], graph.double(HALF)), sums[1])
    raised = graph.op("Add", total, graph.double(1 << (PRECISION - 1)))
    levels = graph.op("Floor", graph.op("Div", raised, graph.double(1 << PRECISION)))
    return graph.cast(graph.op("Clip", levels, graph.double(0.0), graph.double(255.0)), TensorProto.FLOAT)


def _rows_first(graph: Graph, own: str, goal: str) -> str:
    """Whether the vertical pass comes first, bool (1,): where that axis shrinks by over twice as many pixels.

    Each pass rounds and clips, so that the order shows in the result.
    """
    shrinks = graph.op("Sub", own, goal)
    down, across = (graph.op("Gather", shrinks, graph.constant([axis])) for axis in (0, 1))
    more = graph.op("Greater", down, graph.op("Mul", across, graph.constant([2])))
    return graph.op("And", more, graph.op("Greater", down, graph.constant([0])))


def cropped(graph: Graph, photo: str, box: str) -> str:
    """`images.transforms.crop` to a box within the photo.

    Args:
        graph: is extended.
        photo: uint8 H×W×3.
        box: float64 (4,), top, left, bottom, right as shares of the photo.

    Returns:
        uint8 H'×W'×3.
    """
    own = graph.op("Concat", graph.side(photo, 0), graph.side(photo, 1), axis=0)
    sides = graph.cast(own, TensorProto.DOUBLE)
    first, last = (graph.op("Gather", box, graph.constant(places)) for places in ([0, 1], [2, 3]))
    one = graph.constant([1, 1])
    starts = graph.op("Min", _rounded(graph, first, sides), graph.op("Sub", own, one))
    ends = graph.op("Max", _rounded(graph, last, sides), graph.op("Add", starts, one))
    return graph.op("Slice", photo, starts, ends, graph.constant([0, 1]))


def _rounded(graph: Graph, shares: str, sides: str) -> str:
    return graph.cast(graph.op("Round", graph.op("Mul", shares, sides)), TensorProto.INT64)


def squashed(graph: Graph, photos: str, size: int) -> str:
    """Resize photos with Pillow's bilinear filter and `reducing_gap=1.0`, to the last bit.

    Args:
        graph: is extended.
        photos: uint8 N×H×W×3.
        size: the height and the width of the result.

    Returns:
        uint8 N×size×size×3.
    """
    sides = [graph.side(photos, axis) for axis in (1, 2)]
    factors = [_factor(graph, side, size) for side in sides]
    lengths = [_length(graph, side, factor) for side, factor in zip(sides, factors, strict=True)]
    small = _reduced(graph, photos, factors[0], factors[1])
    return _resampled(graph, small, lengths, graph.constant([size, size]), "bilinear")


def _factor(graph: Graph, side: str, size: int) -> str:
    """How many pixels of an axis are averaged before the filter, int64 (1,), at least 1."""
    return graph.op("Max", graph.op("Div", side, graph.constant([size])), graph.constant([1]))


def _length(graph: Graph, side: str, factor: str) -> str:
    """How many averaged pixels a side makes, float64 (1,), the last one in part; Pillow keeps such a box in float32."""
    quotient = graph.op("Div", graph.cast(side, TensorProto.DOUBLE), graph.cast(factor, TensorProto.DOUBLE))
    return graph.cast(graph.cast(quotient, TensorProto.FLOAT), TensorProto.DOUBLE)


def _reduced(graph: Graph, photos: str, down: str, across: str) -> str:
    """`Image.reduce`: the mean of each block of pixels, also of the smaller blocks at the lower and right edge.

    Args:
        graph: is extended.
        photos: uint8 N×H×W×3.
        down: int64 (1,), rows of a block.
        across: int64 (1,), columns of a block.

    Returns:
        float64 N×⌈H / down⌉×⌈W / across⌉×3, whole numbers.
    """
    sides = [graph.side(photos, axis) for axis in (1, 2)]
    blocks, missing, counts = [], [], []
    for side, factor in zip(sides, (down, across), strict=True):
        more = graph.op("Sub", graph.op("Add", side, factor), graph.constant([1]))
        blocks.append(graph.op("Div", more, factor))
        missing.append(graph.op("Sub", graph.op("Mul", blocks[-1], factor), side))
        places = _range(graph, blocks[-1])
        counts.append(graph.op("Min", factor, graph.op("Sub", side, graph.op("Mul", places, factor))))
    none = graph.constant([0])
    pads = graph.op("Concat", *[none] * 5, *missing, none, axis=0)
    whole = graph.op("Pad", photos, pads, graph.constant(0, np.uint8))
    shape = graph.op("Concat", graph.side(photos, 0), blocks[0], down, blocks[1], across, graph.constant([3]), axis=0)
    split = graph.cast(graph.op("Reshape", whole, shape), TensorProto.FLOAT)
    sums = graph.op("ReduceSum", split, graph.constant([2, 4]), keepdims=0)  # whole numbers below 2^24, so exact
    count = graph.op("Mul", graph.op("Unsqueeze", counts[0], graph.constant([1])), counts[1])
    return _divided(graph, graph.cast(sums, TensorProto.DOUBLE), graph.op("Unsqueeze", count, graph.constant([2])))


def _divided(graph: Graph, sums: str, count: str) -> str:
    """Sums divided as Pillow does: times a reciprocal that was rounded down, of which 24 bits are cut off."""
    ones = graph.constant(1 << REDUCE_BITS, np.float32)
    reciprocal = graph.op("Floor", graph.op("Div", ones, graph.cast(count, TensorProto.FLOAT)))
    half = graph.cast(graph.op("Div", count, graph.constant(2)), TensorProto.DOUBLE)
    product = graph.op("Mul", graph.op("Add", sums, half), graph.cast(reciprocal, TensorProto.DOUBLE))
    return graph.op("Floor", graph.op("Div", product, graph.double(1 << REDUCE_BITS)))


def _weights(graph: Graph, side: str, length: str, goal: str, interpolation: str) -> str:
    """The filter along one axis as a matrix, float64 goal×side; whole numbers, 2^22 stands for 1.

    Args:
        graph: is extended.
        side: int64 (1,), the number of pixels along the axis.
        length: float64 (1,), the part of them that is resampled.
        goal: int64 (1,), the number of pixels of the result.
        interpolation: one of `SUPPORT`.
    """
    half, zero, one = (graph.double(value) for value in (0.5, 0.0, 1.0))
    scale = graph.op("Div", length, graph.cast(goal, TensorProto.DOUBLE))
    stretch = graph.op("Max", scale, one)
    support = graph.op("Mul", stretch, graph.double(SUPPORT[interpolation]))
    middles = graph.op("Add", graph.cast(_range(graph, goal), TensorProto.DOUBLE), half)
    centres = graph.op("Unsqueeze", graph.op("Mul", middles, scale), graph.constant([1]))
    least = graph.op("Floor", graph.op("Max", graph.op("Add", graph.op("Sub", centres, support), half), zero))
    most = graph.op("Floor", graph.op("Add", graph.op("Add", centres, support), half))
    most = graph.op("Min", most, graph.cast(side, TensorProto.DOUBLE))
    places = graph.cast(_range(graph, side), TensorProto.DOUBLE)
    apart = graph.op("Abs", graph.op("Add", graph.op("Sub", places, centres), half))
    apart = graph.op("Mul", apart, graph.op("Div", one, stretch))
    heights = _bilinear(graph, apart) if interpolation == "bilinear" else _bicubic(graph, apart)
    inside = graph.op("And", graph.op("GreaterOrEqual", places, least), graph.op("Less", places, most))
    heights = graph.op("Where", inside, heights, zero)
    shares = graph.op("Div", heights, graph.op("ReduceSum", heights, graph.constant([1])))
    # Halves are rounded away from zero.
    size = graph.op(
        "Floor", graph.op("Add", graph.op("Mul", graph.op("Abs", shares), graph.double(1 << PRECISION)), half)
    )
    return graph.op("Mul", graph.op("Sign", shares), size)


def _bilinear(graph: Graph, apart: str) -> str:
    """The height of the triangle at these distances, float64."""
    return graph.op("Max", graph.op("Sub", graph.double(1.0), apart), graph.double(0.0))


def _bicubic(graph: Graph, apart: str) -> str:
    """The height of the bicubic filter (R. Keys, 1981) at these distances, float64, in Pillow's order of operations."""
    one, factor = graph.double(1.0), graph.double(CUBIC)
    inner = graph.op("Sub", graph.op("Mul", graph.double(CUBIC + 2), apart), graph.double(CUBIC + 3))
    inner = graph.op("Add", graph.op("Mul", graph.op("Mul", inner, apart), apart), one)
    outer = graph.op("Mul", graph.op("Sub", apart, graph.double(5.0)), apart)
    outer = graph.op("Mul", graph.op("Add", outer, graph.double(8.0)), apart)
    outer = graph.op("Mul", graph.op("Sub", outer, graph.double(4.0)), factor)
    beyond = graph.op("Where", graph.op("Less", apart, graph.double(2.0)), outer, graph.double(0.0))
    return graph.op("Where", graph.op("Less", apart, one), inner, beyond)


def network(model: bytes) -> onnx.ModelProto:
    """A serialised network, converted to `OPSET` where it has an earlier one.

    Raises:
        ValueError: its opset is a later one.
    """
    loaded = onnx.load_from_string(model)
    opset = max((each.version for each in loaded.opset_import if each.domain in ("", "ai.onnx")), default=1)
    if opset > OPSET:
        raise ValueError(f"opset {opset}")
    return loaded if opset == OPSET else onnx.version_converter.convert_version(loaded, OPSET)


def add_network(graph: Graph, model: onnx.ModelProto, entry: str, prefix: str) -> list[str]:
    """Append the nodes of a network whose only input is a tensor of the graph; return the names of its outputs.

    Args:
        graph: is extended.
        model: the network.
        entry: the tensor that becomes its input.
        prefix: is put before the names of its tensors and nodes.
    """
    inner = model.graph
    names = {inner.input[0].name: entry, "": ""}
    for tensor in inner.initializer:
        names[tensor.name] = f"{prefix}{tensor.name}"
        copied = onnx.TensorProto()
        copied.CopyFrom(tensor)
        copied.name = names[tensor.name]
        graph.tensors.append(copied)
    for number, node in enumerate(inner.node):
        copied_node = onnx.NodeProto()
        copied_node.CopyFrom(node)
        names |= {output: f"{prefix}{output}" for output in node.output if output}
        copied_node.name = f"{prefix}{node.name or number}"
        copied_node.input[:] = [names[each] for each in node.input]
        copied_node.output[:] = [names[each] for each in node.output]
        graph.nodes.append(copied_node)
    return [names[output.name] for output in inner.output]


def finished(
    graph: Graph,
    name: str,
    entry: onnx.ValueInfoProto,
    outputs: list[onnx.ValueInfoProto],
    metadata: dict[str, str],
) -> bytes:
    """The checked file, serialised; `metadata` becomes its metadata_props."""
    read = {tensor for node in graph.nodes for tensor in node.input}
    # A backbone whose map was cut off keeps the map's weights.
    tensors = [tensor for tensor in graph.tensors if tensor.name in read]
    made = helper.make_graph(graph.nodes, name, [entry], outputs, tensors)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="nameplate"
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def tensor_info(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    """The description of an input or output; a name in place of a length leaves it open."""
    return helper.make_tensor_value_info(name, kind, shape)


def numbers(values: NDArray[np.generic], name: str) -> onnx.TensorProto:
    """An array as a named constant."""
    return numpy_helper.from_array(values, name)
