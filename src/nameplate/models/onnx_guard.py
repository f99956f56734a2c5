"""Refuse an ONNX file that would make a runtime read other files.

ONNX tensors may keep their data outside ("external data", onnx.proto: TensorProto fields 13 and 14), at a
path that the file itself names. A bundle's backbone is whole in one checksummed file, so any such
tensor is refused before a runtime sees it. The wire format is walked here (protobuf.dev, "Encoding"),
because the onnx package weighs more than everything else that the core installs.
"""

from __future__ import annotations

from collections.abc import Iterator

from nameplate.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Which fields of which message hold messages that can hold a tensor: message → {field: message}.
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
MAX_DEPTH = 40


def refuse_external_data(model: bytes, name: str) -> None:
    """Walk a serialised ModelProto.

    Args:
        model: the file's bytes.
        name: what to call it in the error.

    Raises:
        BundleError: a tensor's data lies outside, or this is no ONNX file.
    """
    try:
        if _holds_external(memoryview(model), "Model", 0):
            raise BundleError(f"'{name}' keeps weights in another file; a bundle's backbone must be whole. Refused.")
    except (IndexError, ValueError):
        raise BundleError(f"'{name}' is no ONNX file, or it is damaged.") from None


def _holds_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    inside = INSIDE.get(kind, {})
    for field, value, _ in fields(message):
        if kind == "Tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0)):
            return True
        if field in inside and isinstance(value, memoryview) and _holds_external(value, inside[field], depth + 1):
            return True
    return False


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
        if key >> 32 or not field:  # readers drop the bits above 32, and so find another field than we
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
