"""What an ONNX file may contain, and how one is cut down to its first output.

`check_backbone` refuses a file that would make a runtime read other files, or run without end. ONNX tensors may keep
their data outside the file ("external data", onnx.proto: TensorProto fields 13 and 14), at a path that the file itself
names. A bundle's backbone is complete in one file with a checksum, so any such tensor is refused before a runtime loads
it. Operators must be on a list of those that image networks consist of. So there are no loops and no branches, no
functions defined in the file (which, nested, expand without bound), no other domains and no random numbers.

The protobuf wire format is parsed here (protobuf.dev, "Encoding"), because the onnx package is larger than everything
else that a core installation needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nameplate.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# The fields that can lead to a tensor, by message: {field number: message}.
INSIDE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a Tensor."""
OP_TYPE, DOMAIN = 4, 7
"""Fields of a Node."""
FUNCTION = 25
"""Field of a Model."""
GRAPHS = (6, 11)
"""Fields of an Attribute: the bodies of Loop, If and Scan."""
MAX_DEPTH = 40
MAX_FIELDS = 3_000_000
"""A file with more fields than this is refused; the largest networks have about ten thousand."""

DOMAINS = ("", "ai.onnx")
"""Both names stand for ONNX's own operators."""
_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitShift
BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip Compress Concat Constant
ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Det Div
Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements
GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max
MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not OneHot Or PRelu Pad Pow QLinearConv
QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
RotaryEmbedding Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
"""The operators that a backbone may use: ONNX's arithmetic, shapes and layers, including those of int8."""


def check_backbone(model: bytes, name: str) -> None:
    """Refuse a serialised ModelProto that must not reach a runtime.

    Args:
        model: the file's bytes.
        name: what to call it in the error.

    Raises:
        BundleError: a tensor's data lies in another file, an operator is not in `OPERATORS`, or this is no ONNX file.
    """
    for part in _walk(model, name):
        if problem := _external_data(part) or _forbidden(part):
            raise BundleError(f"'{name}' {problem} Refused.")


def refuse_external_data(model: bytes, name: str) -> None:
    """`check_backbone` for external data only.

    Raises:
        BundleError: a tensor's data lies in another file, or this is no ONNX file.
    """
    for part in _walk(model, name):
        if problem := _external_data(part):
            raise BundleError(f"'{name}' {problem} Refused.")


@dataclass(frozen=True, slots=True)
class _Part:
    """One field of a message somewhere in a model."""

    kind: str
    """Type of the message: a key of `INSIDE`, or Tensor."""
    field: int
    value: int | memoryview


def _external_data(part: _Part) -> str | None:
    """The problem, if a field refers to another file."""
    if part.kind == "Tensor" and (part.field == EXTERNAL_DATA or (part.field == DATA_LOCATION and part.value != 0)):
        return "keeps weights in another file; a bundle's backbone must be whole."
    return None


def _forbidden(part: _Part) -> str | None:
    """The problem, if a field uses something that is not allowed.

    A field may occur twice, and parsers then take the last value. Every occurrence is therefore checked.
    """
    found = None
    if (part.kind, part.field) == ("Model", FUNCTION):
        found = "defines functions of its own"
    elif part.kind == "Attribute" and part.field in GRAPHS:
        found = "holds a graph in a graph (a loop or a branch)"
    elif part.kind == "Node" and part.field in (OP_TYPE, DOMAIN):
        text = bytes(part.value[:80]).decode(errors="replace") if isinstance(part.value, memoryview) else ""
        if part.field == DOMAIN and text not in DOMAINS:
            found = f"uses operators of the domain {text!r}"
        if part.field == OP_TYPE and text not in OPERATORS:
            found = f"uses the operator {text!r}"
    return found and f"{found}, which no network that Nameplate exports does."


def _walk(model: bytes, name: str) -> Iterator[_Part]:
    """Every field of every message that can contain a node or a tensor.

    Raises:
        BundleError: this is no ONNX file.
    """
    left = MAX_FIELDS
    try:
        for part in _inside(memoryview(model), "Model", 0):
            yield part
            left -= 1
            if left < 0:
                raise ValueError("too many parts")
    except (IndexError, ValueError):
        raise BundleError(f"'{name}' is no ONNX file, or it is damaged.") from None


def _inside(message: memoryview, kind: str, depth: int) -> Iterator[_Part]:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    inside = INSIDE.get(kind, {})
    for field, value, _ in fields(message):
        yield _Part(kind, field, value)
        if field in inside and isinstance(value, memoryview):
            yield from _inside(value, inside[field], depth + 1)


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, value and raw bytes (key and all) of each field of a serialised message.

    Raises:
        IndexError: it is cut short.
        ValueError: it is no message.
    """
    at = 0
    while at < len(message):
        begin = at
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if key >> 32 or not field:  # parsers drop the bits above 32, and so would see another field than this one
            raise ValueError(f"key {key}")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield field, value, message[begin:at]
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("cut short")
        at += size
        yield field, message[at - size : at], message[begin:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


# Cutting a file down to its first output. ONNX Runtime computes every node of a graph, even one that leads to no
# fetched output (`only_execute_path_to_fetches` does not change that). So such nodes are removed before it loads the
# file.

# Field numbers in onnx.proto.
GRAPH = 7
"""Field of a Model."""
NODE, OUTPUT = 1, 12
"""Fields of a Graph."""
NAME = 1
"""Field of an output."""
NODE_INPUT, NODE_OUTPUT, ATTRIBUTE = 1, 2, 5
"""Fields of a Node: names of its inputs and outputs, and its attributes."""


def first_output_alone(model: bytes) -> bytes:
    """A serialised ModelProto reduced to the first output of its graph and the nodes that lead to it.

    Bytes that are no ONNX file are returned unchanged, so that the runtime reports the error.
    """
    try:
        parts = [_graph(value) if field == GRAPH else raw for field, value, raw in _parts(memoryview(model))]
    except (IndexError, ValueError):
        return model
    return b"".join(parts)


def _parts(message: memoryview) -> list[tuple[int, memoryview, memoryview]]:
    """All fields of a message; those that hold a number get an empty value."""
    empty = memoryview(b"")
    return [(field, value if isinstance(value, memoryview) else empty, raw) for field, value, raw in fields(message)]


def _graph(graph: memoryview) -> bytes:
    """The reduced graph, encoded as a field of its model."""
    parts = _parts(graph)
    outputs = [raw for field, _, raw in parts if field == OUTPUT]
    first = next((value for field, value, _ in parts if field == OUTPUT), memoryview(b""))
    wanted = {bytes(value) for field, value, _ in _parts(first) if field == NAME}
    kept = []
    for field, value, raw in reversed(parts):  # nodes are sorted: each stands after those whose outputs it takes
        if field == NODE:
            if wanted.isdisjoint(_names(value, NODE_OUTPUT)):
                continue
            wanted |= _inputs(value)
        if field != OUTPUT or raw is outputs[0]:
            kept.append(raw)
    content = b"".join(reversed(kept))
    return bytes([GRAPH << 3 | BYTES]) + _write_varint(len(content)) + content


def _names(node: memoryview, which: int) -> set[bytes]:
    return {bytes(value) for field, value, _ in _parts(node) if field == which}


def _inputs(node: memoryview) -> set[bytes]:
    """Names of a node's inputs, including those that its inner graphs take from the outer graph."""
    found = _names(node, NODE_INPUT)
    for field, attribute, _ in _parts(node):
        for inner, graph, _ in _parts(attribute) if field == ATTRIBUTE else ():
            for part, value, _ in _parts(graph) if inner in GRAPHS else ():
                if part == NODE:
                    found |= _inputs(value)
                elif part == OUTPUT:
                    found |= _names(value, NAME)
    return found


def _write_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
