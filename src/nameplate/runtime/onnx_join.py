"""Joins several backbones into one ONNX file that computes their embeddings side by side (`join_backbones`).

The joined file takes one model input and gives the embeddings of all networks, concatenated. It is a backbone like any
other, so whatever runs a bundle runs an ensemble of networks, too. As in `onnx_file`, the protobuf wire format is read
and written here, so that neither torch nor the onnx package is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nameplate.errors import BundleError
from nameplate.runtime.base import OUTPUTS
from nameplate.runtime.onnx_file import BYTES, GRAPH, NAME, NODE, NODE_INPUT, NODE_OUTPUT, OUTPUT, VARINT, fields

# Field numbers in onnx.proto.
IR_VERSION, OPSET_IMPORT = 1, 8
"""Fields of a Model."""
GRAPH_NAME, INITIALIZER, GRAPH_INPUT, VALUE_INFO = 2, 5, 11, 13
"""Fields of a Graph; `VALUE_INFO` (shapes inside the graph) is optional, and is left out."""
NODE_NAME, NODE_OP, NODE_ATTRIBUTE = 3, 4, 5
"""Fields of a Node."""
TENSOR_NAME = 8
"""Field of a Tensor."""
VALUE_TYPE = 2
"""Field of a ValueInfo, beside its name."""
TENSOR_TYPE, ELEMENT, SHAPE, DIMENSION = 1, 1, 2, 1
"""Fields of a Type, of its TensorType (element type and shape), and of a Shape."""
DIMENSION_VALUE, DIMENSION_NAME = 1, 2
"""Fields of a Dimension: a size, or the name of one that varies."""
FLOAT, INT = 1, 2
"""The number of float32 among ONNX's element types, and that of integers among the types of attributes."""

Value = int | bytes


@dataclass(frozen=True, slots=True)
class _Network:
    """One ONNX file, read as far as joining needs it."""

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    """Domain and version of each set of operators, sorted."""
    parts: tuple[tuple[int, Value], ...]
    """The fields of its graph."""
    input: bytes
    """The ValueInfo of its input."""
    outputs: tuple[tuple[str, tuple[Value, ...]], ...]
    """Name and dimensions of each output; a dimension that varies is its name."""


def join_backbones(backbones: Sequence[bytes]) -> bytes:
    """One backbone that computes several, as bytes of an ONNX file.

    Args:
        backbones: ONNX files that `check_backbone` accepts, all with the same input size.

    Returns:
        A file with the output `embedding`, float32 N×(D₁ + D₂ + …), in the order of the networks. Where all of them
        have a `map` of the same h×w, it also has the output `map`, N×h×w×(D₁ + D₂ + …).

    Raises:
        BundleError: a file is damaged, or their inputs or operator versions differ.
    """
    networks = [_read(each, f"network {number}") for number, each in enumerate(backbones, 1)]
    first = networks[0]
    for number, network in enumerate(networks[1:], 2):
        if network.opsets != first.opsets:
            raise BundleError(
                f"Networks of different operator versions cannot be joined: network 1 has {first.opsets}, network "
                f"{number} {network.opsets}. Export them with the same Nameplate."
            )
        if _dimensions(network.input)[1:] != _dimensions(first.input)[1:]:
            raise BundleError(
                f"Networks of different inputs cannot be joined: network 1 takes {_dimensions(first.input)}, network "
                f"{number} {_dimensions(network.input)}."
            )
    content = b"".join(_renamed(network, f"m{number}/") for number, network in enumerate(networks, 1))
    content += _field(GRAPH_NAME, b"joined") + _field(GRAPH_INPUT, _value_info(b"photos", first.input))
    for output in range(len(OUTPUTS) if _mappable(networks) else 1):
        content += _concatenated(networks, output)
    opsets = b"".join(
        _field(OPSET_IMPORT, _field(1, domain.encode()) + _field(2, version)) for domain, version in first.opsets
    )
    return _field(IR_VERSION, max(network.ir_version for network in networks)) + _field(GRAPH, content) + opsets


def _read(model: bytes, name: str) -> _Network:
    try:
        parts = _parts(model)
        graph = _parts(_only(parts, GRAPH))
        opsets = []
        for field, value in parts:
            if field == OPSET_IMPORT and isinstance(value, bytes):
                found = dict(_parts(value))
                opsets.append((_text(found.get(1, b"")), int(found.get(2, 0))))
        inputs = [value for field, value in graph if field == GRAPH_INPUT and isinstance(value, bytes)]
        outputs = [value for field, value in graph if field == OUTPUT and isinstance(value, bytes)]
        return _Network(
            next(int(value) for field, value in parts if field == IR_VERSION),
            tuple(sorted(opsets)),
            tuple(graph),
            inputs[0],
            tuple((_text(_only(_parts(each), NAME)), _dimensions(each)) for each in outputs),
        )
    except (IndexError, ValueError, KeyError, StopIteration, UnicodeDecodeError):
        raise BundleError(f"The file of {name} is no ONNX file, or it is damaged.") from None


def _renamed(network: _Network, prefix: str) -> bytes:
    """Nodes and weights of a network, in which every name but that of the input begins with `prefix`."""
    shared = _only(_parts(network.input), NAME)

    def renamed(name: bytes) -> bytes:
        if not name:  # an optional input that is not given
            return name
        return b"photos" if name == shared else prefix.encode() + name

    # Of each kind of part, the fields that hold names.
    names = {NODE: (NODE_INPUT, NODE_OUTPUT, NODE_NAME), INITIALIZER: (TENSOR_NAME,)}
    return b"".join(
        _field(field, _with_names(value, names[field], renamed))
        for field, value in network.parts
        if field in names and isinstance(value, bytes)
    )


def _with_names(message: bytes, which: Sequence[int], renamed: Callable[[bytes], bytes]) -> bytes:
    return b"".join(
        _field(field, renamed(bytes(value))) if field in which and isinstance(value, memoryview) else bytes(raw)
        for field, value, raw in fields(memoryview(message))
    )


def _concatenated(networks: Sequence[_Network], output: int) -> bytes:
    """The node that concatenates one output of all networks along its last axis, and the output that it makes."""
    name = OUTPUTS[output].encode()
    dimensions = networks[0].outputs[output][1]
    total = sum(int(network.outputs[output][1][-1]) for network in networks)
    axis = _field(1, b"axis") + _field(3, len(dimensions) - 1) + _field(20, INT)
    inputs = [f"m{number}/{network.outputs[output][0]}".encode() for number, network in enumerate(networks, 1)]
    node = b"".join(_field(NODE_INPUT, each) for each in inputs)
    node += _field(NODE_OUTPUT, name) + _field(NODE_NAME, b"join/" + name) + _field(NODE_OP, b"Concat")
    node += _field(NODE_ATTRIBUTE, axis)
    shape = b"".join(_field(DIMENSION, _dimension(each)) for each in (*dimensions[:-1], total))
    kind = _field(VALUE_TYPE, _field(TENSOR_TYPE, _field(ELEMENT, FLOAT) + _field(SHAPE, shape)))
    return _field(NODE, node) + _field(OUTPUT, _field(NAME, name) + kind)


def _mappable(networks: Sequence[_Network]) -> bool:
    """Whether all networks have a second output, with the same places."""
    maps = [network.outputs[1][1] for network in networks if len(network.outputs) == len(OUTPUTS)]
    return len(maps) == len(networks) and len({each[1:-1] for each in maps}) == 1


def _value_info(name: bytes, like: bytes) -> bytes:
    """A ValueInfo with another name."""
    kept = b"".join(bytes(raw) for field, _, raw in fields(memoryview(like)) if field == VALUE_TYPE)
    return _field(NAME, name) + kept


def _dimensions(value_info: bytes) -> tuple[Value, ...]:
    tensor = _parts(_only(_parts(_only(_parts(value_info), VALUE_TYPE)), TENSOR_TYPE))
    found = []
    for field, value in _parts(_only(tensor, SHAPE)):
        if field == DIMENSION and isinstance(value, bytes):
            each = dict(_parts(value))
            found.append(each[DIMENSION_VALUE] if DIMENSION_VALUE in each else bytes(each.get(DIMENSION_NAME, b"n")))
    return tuple(found)


def _dimension(value: Value) -> bytes:
    return _field(DIMENSION_VALUE, value) if isinstance(value, int) else _field(DIMENSION_NAME, value)


def _parts(message: bytes) -> list[tuple[int, Value]]:
    """Field number and value of each field of a message; floats stay in bytes."""
    return [
        (field, bytes(value) if isinstance(value, memoryview) else value)
        for field, value, _ in fields(memoryview(message))
    ]


def _only(parts: Iterable[tuple[int, Value]], which: int) -> bytes:
    """The value of a field that must be there; of several the last, as protobuf has it."""
    found = [value for field, value in parts if field == which and isinstance(value, bytes)]
    return found[-1]


def _field(number: int, value: Value) -> bytes:
    """A field with its key: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _text(value: Value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
