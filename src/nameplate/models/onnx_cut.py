"""An ONNX file cut down to its first output, so that the others cost nothing where they are not asked for.

ONNX Runtime computes every node of a graph, also those that lead to no output that is fetched
(`only_execute_path_to_fetches` changes nothing of that) or to no output at all. So the nodes go before it sees them.
"""

from __future__ import annotations

from nameplate.models.onnx_guard import BYTES, fields

# Numbers of fields in onnx.proto.
GRAPH = 7
"""Of a Model."""
NODE, OUTPUT = 1, 12
"""Of a Graph."""
NAME = 1
"""Of an output."""
TAKES, GIVES, ATTRIBUTE = 1, 2, 5
"""Of a Node: names of its inputs and outputs, and its attributes."""
INNER, INNERS = 6, 11
"""Of an attribute: a graph, and graphs."""


def first_output_alone(model: bytes) -> bytes:
    """A serialised ModelProto with the first output of its graph, and the nodes that lead to it.

    What is no ONNX file comes back as it is: the runtime says so.
    """
    try:
        parts = [_graph(value) if field == GRAPH else raw for field, value, raw in _parts(memoryview(model))]
    except (IndexError, ValueError):
        return model
    return b"".join(parts)


def _parts(message: memoryview) -> list[tuple[int, memoryview, memoryview]]:
    """The fields, numbers among them with an empty value."""
    empty = memoryview(b"")
    return [(field, value if isinstance(value, memoryview) else empty, raw) for field, value, raw in fields(message)]


def _graph(graph: memoryview) -> bytes:
    """The cut graph as a field of its model."""
    parts = _parts(graph)
    outputs = [raw for field, _, raw in parts if field == OUTPUT]
    first = next((value for field, value, _ in parts if field == OUTPUT), memoryview(b""))
    wanted = {bytes(value) for field, value, _ in _parts(first) if field == NAME}
    kept = []
    for field, value, raw in reversed(parts):  # nodes stand behind those that they take from
        if field == NODE:
            if wanted.isdisjoint(_named(value, GIVES)):
                continue
            wanted |= _taken(value)
        if field != OUTPUT or raw is outputs[0]:
            kept.append(raw)
    content = b"".join(reversed(kept))
    return bytes([GRAPH << 3 | BYTES]) + _varint(len(content)) + content


def _named(node: memoryview, which: int) -> set[bytes]:
    return {bytes(value) for field, value, _ in _parts(node) if field == which}


def _taken(node: memoryview) -> set[bytes]:
    """Names that a node takes, those that its inner graphs take from outside among them."""
    taken = _named(node, TAKES)
    for field, attribute, _ in _parts(node):
        for inner, graph, _ in _parts(attribute) if field == ATTRIBUTE else ():
            for part, value, _ in _parts(graph) if inner in (INNER, INNERS) else ():
                if part == NODE:
                    taken |= _taken(value)
                elif part == OUTPUT:
                    taken |= _named(value, NAME)
    return taken


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
