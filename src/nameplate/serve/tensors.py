"""Open Inference Protocol V2: a request's tensors out of its body. No HTTP here.

Both forms are read: tensors inside the JSON, and after it (the binary tensor data extension). Sources:
github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and
github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.

A body is hostile until read. What a header may make us allocate is bounded before it is parsed: it says few objects,
and all lists but the tensors' data are short. The data are parsed when their number is known to be what the shape says.
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
"""The inputs, of which a request brings one: files' bytes (N), and prepared pictures uint8 (N, H, W, 3)."""
EMBEDDING, PROBABILITIES, NAMEPLATE = "embedding", "probabilities", "nameplate"
"""The outputs: float32 (N, D), float32 (N, C), and the most probable nameplates (N)."""
OUTPUTS = (EMBEDDING, PROBABILITIES, NAMEPLATE)
"""In the order in which they are sent where none is asked for."""
MOST_OBJECTS = 32
"""JSON objects that a request may hold; one input and three outputs with their parameters make ten."""
SMALL = 4096
"""Characters of a shape or of parameters."""
LONGEST_ID = 1024
"""Characters of a request's id, which is sent back."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """What one model's requests may bring."""

    height: int
    """Of a prepared picture."""
    width: int
    """Of a prepared picture."""
    photos: int
    """The most that one request may bring, at least 1."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that a request asks for."""

    name: str
    binary: bool
    """Whether after the JSON rather than in it."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that was read: photos or pictures, never both."""

    photos: tuple[bytes, ...] | None
    """Files' bytes."""
    pictures: NDArray[np.uint8] | None
    """N×H×W×3."""
    outputs: tuple[Wanted, ...]
    id: str | None
    """What the client calls the request."""

    def __len__(self) -> int:
        """Photos, or pictures."""
        return len(self.photos or ()) if self.pictures is None else len(self.pictures)


class _InputParameters(msgspec.Struct):
    binary_data_size: int | None = None
    content_type: str = "base64"
    shared_memory_region: str | None = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: str | None = None


class _RequestParameters(msgspec.Struct):
    binary_data_output: bool = False


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


def read_request(body: bytes, header_length: str | None, terms: Terms) -> InferRequest:
    """Read an inference request.

    Args:
        body: JSON, and behind it what is sent as binary data.
        header_length: what `Inference-Header-Content-Length` says of the JSON's length in bytes; None: all is JSON.
        terms: of the model that is asked.

    Raises:
        UsageError: the body lies, is damaged, or brings or asks for what the model does not take or give.
    """
    head, tail = _parts(body, header_length)
    if head.count(b"{") > MOST_OBJECTS:
        raise UsageError(f"The request's JSON holds more than {MOST_OBJECTS} objects: send one input.")
    said = _decoded(head, _Request, "The request")
    if len(said.inputs) != 1:
        raise UsageError(f"The request brings {len(said.inputs)} inputs. Send one: '{PHOTO}' or '{PICTURE}'.")
    if said.id is not None and len(said.id) > LONGEST_ID:
        raise UsageError(f"The request's id is longer than {LONGEST_ID} characters.")
    binary = _small(said.parameters, _RequestParameters, "The request's 'parameters'").binary_data_output
    outputs = _wanted(said.outputs or [_Output(name) for name in OUTPUTS], binary=binary)
    [given] = said.inputs
    if given.name == PHOTO:
        return InferRequest(_photos(given, tail, terms), None, outputs, said.id)
    if given.name == PICTURE:
        return InferRequest(None, _pictures(given, tail, terms), outputs, said.id)
    raise UsageError(f"There is no input '{given.name[:40]}': send '{PHOTO}' or '{PICTURE}'.")


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes | None]:
    """The JSON, and what follows it; None where all is JSON."""
    if header_length is None:
        return body, None
    digits = header_length.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and 0 < int(digits) <= len(body)):
        raise UsageError(
            f"Inference-Header-Content-Length is '{digits[:40]}', the body has {len(body):,} bytes: "
            "it must be the length of the JSON in bytes."
        )
    return body[: int(digits)], body[int(digits) :]


def _decoded(text: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} cannot be read: {error}.") from None


def _small(text: msgspec.Raw, kind: type[T], what: str) -> T:
    if len(bytes(text)) > SMALL:
        raise UsageError(f"{what} is longer than {SMALL:,} characters.")
    return _decoded(text, kind, what)


def _wanted(asked: Sequence[_Output], *, binary: bool) -> tuple[Wanted, ...]:
    """The outputs that are asked for; `binary` says how those are sent that do not say themselves."""
    outputs = []
    for output in asked:
        said = _small(output.parameters, _OutputParameters, f"'parameters' of output '{output.name[:40]}'")
        if output.name not in OUTPUTS:
            near = did_you_mean(output.name[:40], OUTPUTS)
            raise UsageError(f"There is no output '{output.name[:40]}': there are {', '.join(OUTPUTS)}.{near}")
        if said.classification:
            raise UsageError(
                f"Output '{output.name}' asks for 'classification', which is not supported: "
                f"ask for '{PROBABILITIES}' and rank them; /v1/models names the columns."
            )
        if said.shared_memory_region is not None:
            raise UsageError(f"Output '{output.name}' asks for shared memory, which is not supported.")
        outputs.append(Wanted(output.name, binary if said.binary_data is None else said.binary_data))
    if len({output.name for output in outputs}) < len(outputs):
        raise UsageError("The request asks for an output twice: name each once.")
    return tuple(outputs)


def _content(given: _Input, tail: bytes | None) -> tuple[bytes | None, msgspec.Raw]:
    """A tensor's binary data, None where there are none, and its JSON data, empty where it has none."""
    said = _small(given.parameters, _InputParameters, f"'parameters' of input '{given.name}'")
    if said.shared_memory_region is not None:
        raise UsageError(f"Input '{given.name}' lies in shared memory, which is not supported: send its data.")
    if given.name == PHOTO and said.content_type != "base64":
        raise UsageError(f"Input '{PHOTO}' is of content_type '{said.content_type[:40]}': 'base64' is what is read.")
    if said.binary_data_size is None:
        if tail:
            raise UsageError(f"{len(tail):,} bytes follow the JSON, and no input has 'binary_data_size'.")
        if not bytes(given.data):
            raise UsageError(f"Input '{given.name}' has neither 'data' nor 'binary_data_size': send one.")
        return None, given.data
    if bytes(given.data):
        raise UsageError(f"Input '{given.name}' has both 'data' and 'binary_data_size': send one.")
    if said.binary_data_size != len(tail or b""):
        raise UsageError(
            f"Input '{given.name}' says 'binary_data_size' {said.binary_data_size}, but {len(tail or b''):,} bytes "
            "follow the JSON. Is Inference-Header-Content-Length right?"
        )
    return tail or b"", given.data


def _shape(given: _Input, datatype: str, sides: tuple[int, ...], terms: Terms) -> int:
    """N of a tensor that must be of shape (N, *sides)."""
    if given.datatype != datatype:
        raise UsageError(f"Input '{given.name}' is of datatype '{given.datatype[:40]}': '{datatype}' is what is taken.")
    side = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    shape = _small(given.shape, list[side], f"'shape' of input '{given.name}'")
    if len(shape) != 1 + len(sides) or tuple(shape[1:]) != sides:
        expected = ", ".join(map(str, ("N", *sides)))
        raise UsageError(f"Input '{given.name}' is of shape {shape[:8]}: [{expected}] is what is taken.")
    if not 1 <= shape[0] <= terms.photos:
        raise UsageError(f"Input '{given.name}' brings {shape[0]} photos: one request may bring 1 to {terms.photos}.")
    return shape[0]


def _photos(given: _Input, tail: bytes | None, terms: Terms) -> tuple[bytes, ...]:
    """Files' bytes, from binary data or from base64 (RFC 4648, section 4) in the JSON."""
    number = _shape(given, "BYTES", (), terms)
    binary, data = _content(given, tail)
    if binary is not None:
        return _elements(binary, number)
    text = bytes(data)
    if text.count(b",") >= terms.photos:  # base64 has no commas
        raise UsageError(f"Input '{PHOTO}' has more than {terms.photos} elements.")
    strings = _decoded(text, list[str], f"'data' of input '{PHOTO}'")
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
    """BYTES as binary data: each element's length, 4 bytes little-endian, then its bytes."""
    found, at = [], 0
    for place in range(number):
        end = at + 4 + (struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else 0)
        if end > len(data):
            raise UsageError(f"Input '{PHOTO}': element {place + 1} of {number} reaches past the data's end.")
        found.append(data[at + 4 : end])
        at = end
    if at != len(data):
        raise UsageError(f"Input '{PHOTO}': {len(data) - at:,} bytes follow its {number} elements.")
    return tuple(found)


def _pictures(given: _Input, tail: bytes | None, terms: Terms) -> NDArray[np.uint8]:
    """Prepared pictures, uint8 N×H×W×3."""
    sides = (terms.height, terms.width, 3)
    number = _shape(given, "UINT8", sides, terms)
    values = number * terms.height * terms.width * 3
    binary, data = _content(given, tail)
    if binary is None:
        return _numbers(bytes(data), values).reshape(number, *sides)
    if len(binary) != values:
        raise UsageError(f"Input '{PICTURE}' has {len(binary):,} bytes, its shape makes {values:,}.")
    return np.frombuffer(binary, np.uint8).reshape(number, *sides)


def _numbers(text: bytes, values: int) -> NDArray[np.uint8]:
    """A JSON list of bytes, flat or nested: the protocol takes both, row by row."""
    if text.count(b",") + 1 != values:
        raise UsageError(f"Input '{PICTURE}' has {text.count(b',') + 1:,} elements, its shape makes {values:,}.")
    flat = b"[" + text.translate(None, b"[]") + b"]"
    byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
    return np.array(_decoded(flat, list[byte], f"'data' of input '{PICTURE}'"), np.uint8)


# JOINED Open Inference Protocol V2: an answer's tensors into its body, the other way round from `tensors.py`.


Tensor: TypeAlias = "Floats | Sequence[str]"


def write_response(
    model: str, version: str, request: InferRequest, tensors: Mapping[str, Tensor]
) -> tuple[bytes, int | None]:
    """An answer's body, and the length of the JSON in it where binary data follow.

    Args:
        model: its name.
        version: its version.
        request: what is answered.
        tensors: output → float32 array, or strings; at least those that are asked for.
    """
    outputs, tail = [], []
    for wanted in request.outputs:
        tensor = tensors[wanted.name]
        numbers = isinstance(tensor, np.ndarray)
        shown: dict[str, object] = {
            "name": wanted.name,
            "datatype": "FP32" if numbers else "BYTES",
            "shape": np.shape(tensor) if numbers else (len(tensor),),
        }
        if wanted.binary:
            data = _binary(tensor)
            tail.append(data)
            shown["parameters"] = {"binary_data_size": len(data)}
        else:
            shown["data"] = tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else list(tensor)
        outputs.append(shown)
    said = {} if request.id is None else {"id": request.id}
    head = msgspec.json.encode({"model_name": model, "model_version": version, **said, "outputs": outputs})
    return b"".join((head, *tail)), len(head) if tail else None


def _binary(tensor: Tensor) -> bytes:
    if isinstance(tensor, np.ndarray):
        return tensor.astype("<f4", order="C", copy=False).tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in (string.encode() for string in tensor))
