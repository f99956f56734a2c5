"""Open Inference Protocol V2: read a request's tensors from its body, and write an answer's. No HTTP here.

Tensors may stand inside the JSON or follow it as bytes (the binary tensor data extension). Sources:
github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.

Bodies are hostile until read. What parsing may allocate is bounded first: the JSON may hold few objects, and all lists
except the tensors' data must be short. The data are parsed only after their number was found to match the shape.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from nameplate.errors import UsageError, did_you_mean
from nameplate.types import Floats

PHOTO, PICTURE = "photo", "picture"
"""The inputs' names in the protocol, of which a request brings one: the bytes of N files, or N prepared model inputs,
uint8 (N, H, W, 3)."""
EMBEDDING, PROBABILITIES, NAMEPLATE, BOX = "embedding", "probabilities", "nameplate", "box"
"""The outputs' names: float32 (N, D), float32 (N, C), the N most probable nameplates, and int32 (N, 4), the box of the
car that each answer is about: left, top, right, bottom, in pixels of the upright photo."""
NO_BOX = (-1, -1, -1, -1)
"""The box where the whole photo was named."""
OUTPUTS = (EMBEDDING, PROBABILITIES, NAMEPLATE, BOX)
"""All outputs, in the order in which they are sent if the request names none."""
MOST_OBJECTS = 32
"""The most JSON objects in a request; one input and four outputs with their parameters make twelve."""
SMALL = 4096
"""The most characters of a shape or of parameters."""
LONGEST_ID = 1024
"""The most characters of a request's id, which is sent back."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What requests to one model may bring."""

    height: int
    """Height of a prepared model input, in pixels."""
    width: int
    """Width of a prepared model input, in pixels."""
    photos: int
    """The most photos of one request, at least 1."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that a request asks for."""

    name: str
    binary: bool
    """Whether its data follow the JSON rather than stand in it."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that was read: photos or prepared model inputs, never both."""

    photos: tuple[bytes, ...] | None
    """The files' bytes."""
    inputs: NDArray[np.uint8] | None
    """Prepared model inputs, uint8 N×H×W×3."""
    outputs: tuple[Wanted, ...]
    id: str | None
    """The client's id of the request."""

    def __len__(self) -> int:
        """Number of photos or model inputs."""
        return len(self.photos or ()) if self.inputs is None else len(self.inputs)


# The request's JSON. `Raw` members are decoded later, after their length was checked.


class _InputParameters(msgspec.Struct):
    binary_data_size: int | None = None
    content_type: str | None = None
    shared_memory_region: str | None = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class _RequestParameters(msgspec.Struct):
    binary_data_output: bool | None = None


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: msgspec.Raw
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    data: msgspec.Raw = msgspec.Raw(b"")


class _Output(msgspec.Struct):
    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class _Request(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


def read_request(body: bytes, header_length: str | None, spec: InputSpec) -> InferRequest:
    """Read an inference request.

    Args:
        body: the JSON, followed by the binary data if there are any.
        header_length: the value of `Inference-Header-Content-Length`, the JSON's length in bytes; None if all is JSON.
        spec: what the model takes.

    Raises:
        UsageError: the body is damaged or contradicts itself, or asks for what the model does not offer.
    """
    head, tail = _parts(body, header_length)
    # Counting braces is crude, also in strings, but it needs no parser and so bounds what the parser can allocate.
    if head.count(b"{") > MOST_OBJECTS:
        raise UsageError(f"The request's JSON holds more than {MOST_OBJECTS} objects: send one input.")
    request = _decoded(head, _Request, "The request")
    if len(request.inputs) != 1:
        raise UsageError(f"The request brings {len(request.inputs)} inputs. Send one: '{PHOTO}' or '{PICTURE}'.")
    if request.id is not None and len(request.id) > LONGEST_ID:
        raise UsageError(f"The request's id is longer than {LONGEST_ID} characters.")
    binary = _small(request.parameters, _RequestParameters, "The request's 'parameters'").binary_data_output or False
    outputs = _wanted(request.outputs or [_Output(name) for name in OUTPUTS], binary=binary)
    [given] = request.inputs
    if given.name == PHOTO:
        return InferRequest(_photos(given, tail, spec), None, outputs, request.id)
    if given.name == PICTURE:
        return InferRequest(None, _inputs(given, tail, spec), outputs, request.id)
    raise UsageError(f"There is no input '{given.name[:40]}': send '{PHOTO}' or '{PICTURE}'.")


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes | None]:
    """Split a body into the JSON and the bytes that follow it; None if all is JSON."""
    if header_length is None:
        return body, None
    digits = header_length.strip()
    # int() alone would accept signs, underscores and other scripts' digits, and take long for a million of them.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) <= len(body)):
        raise UsageError(
            f"Inference-Header-Content-Length is '{digits[:40]}', the body has {len(body):,} bytes: "
            "it must be the length of the JSON in bytes."
        )
    return body[: int(digits)], body[int(digits) :]


def _decoded(text: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    # ValueError: text that is not UTF-8. RecursionError: brackets nested too deeply.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} cannot be read: {error}.") from None


def _small(text: msgspec.Raw, kind: type[T], what: str) -> T:
    if len(bytes(text)) > SMALL:
        raise UsageError(f"{what} is longer than {SMALL:,} characters.")
    return _decoded(b"{}" if _is_null(text) and isinstance(kind, type) else text, kind, what)


def _is_null(text: msgspec.Raw) -> bool:
    """Whether a member is absent, as null also says."""
    return bytes(text).strip() in (b"", b"null")


def _wanted(asked: Sequence[_Output], *, binary: bool) -> tuple[Wanted, ...]:
    """Return the outputs that are asked for; `binary` holds for those that do not say how they are to be sent."""
    outputs = []
    for output in asked:
        parameters = _small(output.parameters, _OutputParameters, f"'parameters' of output '{output.name[:40]}'")
        if output.name not in OUTPUTS:
            near = did_you_mean(output.name[:40], OUTPUTS)
            raise UsageError(f"There is no output '{output.name[:40]}': there are {', '.join(OUTPUTS)}.{near}")
        if parameters.classification:
            raise UsageError(
                f"Output '{output.name}' asks for 'classification', which is not supported: "
                f"ask for '{PROBABILITIES}' and rank them; /v1/models names the columns."
            )
        if parameters.shared_memory_region is not None:
            raise UsageError(f"Output '{output.name}' asks for shared memory, which is not supported.")
        outputs.append(Wanted(output.name, binary if parameters.binary_data is None else parameters.binary_data))
    if len({output.name for output in outputs}) < len(outputs):
        raise UsageError("The request asks for an output twice: name each once.")
    return tuple(outputs)


def _content(given: _Input, tail: bytes | None) -> tuple[bytes | None, msgspec.Raw]:
    """Return a tensor's binary data (None if it has none) and its JSON data (empty if it has none)."""
    parameters = _small(given.parameters, _InputParameters, f"'parameters' of input '{given.name}'")
    if parameters.shared_memory_region is not None:
        raise UsageError(f"Input '{given.name}' lies in shared memory, which is not supported: send its data.")
    if given.name == PHOTO and parameters.content_type not in (None, "base64"):
        raise UsageError(
            f"Input '{PHOTO}' is of content_type '{parameters.content_type[:40]}': 'base64' is what is read."
        )
    if parameters.binary_data_size is None:
        if tail:
            raise UsageError(f"{len(tail):,} bytes follow the JSON, and no input has 'binary_data_size'.")
        if _is_null(given.data):
            raise UsageError(f"Input '{given.name}' has neither 'data' nor 'binary_data_size': send one.")
        # The data stand in the JSON and are parsed by the caller, which knows their type.
        return None, given.data
    if not _is_null(given.data):
        raise UsageError(f"Input '{given.name}' has both 'data' and 'binary_data_size': send one.")
    if parameters.binary_data_size != len(tail or b""):
        raise UsageError(
            f"Input '{given.name}' says 'binary_data_size' {parameters.binary_data_size}, but {len(tail or b''):,} "
            "bytes follow the JSON. Is Inference-Header-Content-Length right?"
        )
    return tail or b"", given.data


def _shape(given: _Input, datatype: str, sides: tuple[int, ...], spec: InputSpec) -> int:
    """Check that a tensor is of shape (N, *sides), and return N."""
    if given.datatype != datatype:
        raise UsageError(f"Input '{given.name}' is of datatype '{given.datatype[:40]}': '{datatype}' is what is taken.")
    side = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    shape = _small(given.shape, list[side], f"'shape' of input '{given.name}'")
    if len(shape) != 1 + len(sides) or tuple(shape[1:]) != sides:
        expected = ", ".join(map(str, ("N", *sides)))
        raise UsageError(f"Input '{given.name}' is of shape {shape[:8]}: [{expected}] is what is taken.")
    if not 1 <= shape[0] <= spec.photos:
        raise UsageError(f"Input '{given.name}' brings {shape[0]} photos: one request may bring 1 to {spec.photos}.")
    return shape[0]


def _photos(given: _Input, tail: bytes | None, spec: InputSpec) -> tuple[bytes, ...]:
    """Return the files' bytes, from binary data or from base64 (RFC 4648, section 4) in the JSON."""
    number = _shape(given, "BYTES", (), spec)
    binary, data = _content(given, tail)
    if binary is not None:
        return _elements(binary, number)
    text = bytes(data)
    if text.count(b",") >= spec.photos:  # base64 has no commas, so this bounds the list before it is parsed
        raise UsageError(f"Input '{PHOTO}' has more than {spec.photos} elements.")
    # The protocol allows nested lists. Base64 has no brackets, so that without the inner ones this is a flat list.
    flat = b"[" + text.translate(None, b"[]") + b"]" if text.strip().startswith(b"[") else text
    strings = _decoded(flat, list[str], f"'data' of input '{PHOTO}'")
    if len(strings) != number:
        raise UsageError(f"Input '{PHOTO}' is of shape [{number}] and has {len(strings)} elements.")
    try:
        return tuple(base64.b64decode(string, validate=True) for string in strings)
    except ValueError:
        raise UsageError(
            f"'data' of input '{PHOTO}' is no base64: JSON cannot hold a file's bytes as they are. "
            "Encode them, or send binary data."
        ) from None


def _elements(data: bytes, number: int) -> tuple[bytes, ...]:
    """Split binary data of type BYTES: each element is its length, 4 bytes little-endian, followed by its bytes."""
    elements, start = [], 0
    for place in range(number):
        # Where fewer than 4 bytes are left, `end` still lies beyond the data, so the check below refuses them.
        end = start + 4 + (struct.unpack_from("<I", data, start)[0] if start + 4 <= len(data) else 0)
        if end > len(data):
            raise UsageError(f"Input '{PHOTO}': element {place + 1} of {number} reaches past the data's end.")
        elements.append(data[start + 4 : end])
        start = end
    if start != len(data):
        raise UsageError(f"Input '{PHOTO}': {len(data) - start:,} bytes follow its {number} elements.")
    return tuple(elements)


def _inputs(given: _Input, tail: bytes | None, spec: InputSpec) -> NDArray[np.uint8]:
    """Return prepared model inputs, uint8 N×H×W×3."""
    sides = (spec.height, spec.width, 3)
    number = _shape(given, "UINT8", sides, spec)
    values = number * spec.height * spec.width * 3
    binary, data = _content(given, tail)
    if binary is None:
        return _numbers(bytes(data), values).reshape(number, *sides)
    if len(binary) != values:
        raise UsageError(f"Input '{PICTURE}' has {len(binary):,} bytes, its shape makes {values:,}.")
    # No copy: the array is read-only, and the body stays alive with it.
    return np.frombuffer(binary, np.uint8).reshape(number, *sides)


def _numbers(text: bytes, values: int) -> NDArray[np.uint8]:
    """Parse a JSON list of bytes, which the protocol allows to be flat or nested, in row-major order."""
    if text.count(b",") + 1 != values:
        raise UsageError(f"Input '{PICTURE}' has {text.count(b',') + 1:,} elements, its shape makes {values:,}.")
    # Without its inner brackets a nested list is a flat one, whose length is known already.
    flat = b"[" + text.translate(None, b"[]") + b"]"
    byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
    return np.array(_decoded(flat, list[byte], f"'data' of input '{PICTURE}'"), np.uint8)


# Answers.

Tensor: TypeAlias = "Floats | NDArray[np.int32] | Sequence[str]"
NUMBERS = {"f": ("FP32", "<f4"), "i": ("INT32", "<i4")}
"""numpy's kind of an array → its datatype in the protocol, and the form of its binary data, which is little-endian."""


def write_response(
    model: str, version: str, request: InferRequest, tensors: Mapping[str, Tensor]
) -> tuple[bytes, int | None]:
    """Encode an answer.

    Args:
        model: the model's name.
        version: the model's version.
        request: the request, which says which outputs are sent, and how.
        tensors: output's name → float32 array, int32 array or strings; at least the outputs that are asked for.

    Returns:
        The body, and the length of the JSON in bytes if binary data follow it.
    """
    outputs, tail = [], []
    for wanted in request.outputs:
        tensor = tensors[wanted.name]
        datatype = NUMBERS[tensor.dtype.kind][0] if isinstance(tensor, np.ndarray) else "BYTES"
        shown: dict[str, object] = {"name": wanted.name, "datatype": datatype, "shape": np.shape(tensor)}
        if wanted.binary:
            data = _binary(tensor)
            tail.append(data)
            shown["parameters"] = {"binary_data_size": len(data)}
        else:
            shown["data"] = tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else list(tensor)
        outputs.append(shown)
    named = {} if request.id is None else {"id": request.id}
    head = msgspec.json.encode({"model_name": model, "model_version": version, **named, "outputs": outputs})
    return b"".join((head, *tail)), len(head) if tail else None


def _binary(tensor: Tensor) -> bytes:
    if isinstance(tensor, np.ndarray):
        return tensor.astype(NUMBERS[tensor.dtype.kind][1], order="C", copy=False).tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in (string.encode() for string in tensor))
