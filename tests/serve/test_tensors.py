"""Bodies of the inference protocol: tritonclient's requests are read, false sizes refused, and it reads the answers."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nameplate.errors import UsageError
from nameplate.serve.tensors import (
    BOX,
    EMBEDDING,
    MOST_OBJECTS,
    NAMEPLATE,
    NO_BOX,
    OUTPUTS,
    PHOTO,
    PICTURE,
    PROBABILITIES,
    InferRequest,
    InputSpec,
    Wanted,
    read_request,
    write_response,
)

http = pytest.importorskip("tritonclient.http")

SPEC = InputSpec(2, 3, 4)
FILES = (b"\xff\xd8\xff one", b"", b"\x89PNG\r\n\x1a\n\x00 three")
PICTURES = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3) * 7
ALL_BINARY = tuple(Wanted(name, True) for name in OUTPUTS)
ALL_JSON = tuple(Wanted(name, False) for name in OUTPUTS)


def photo_input() -> Any:
    made = http.InferInput(PHOTO, [len(FILES)], "BYTES")
    return made.set_data_from_numpy(np.array(FILES, dtype=np.object_))


def model_input(*, binary: bool = True) -> Any:
    return http.InferInput(PICTURE, list(PICTURES.shape), "UINT8").set_data_from_numpy(PICTURES, binary_data=binary)


def sent(*inputs: Any, **more: Any) -> tuple[bytes, str | None]:
    """A body as tritonclient writes it, and its header."""
    body, length = http.InferenceServerClient.generate_request_body(list(inputs), **more)
    return body, None if length is None else str(length)


def in_json(data: object, shape: object = (3,), name: str = PHOTO, datatype: str = "BYTES", **more: object) -> bytes:
    given = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [given], **more}).encode()


def test_a_stock_client_s_photos_are_read() -> None:
    assert read_request(*sent(photo_input()), SPEC) == InferRequest(FILES, None, ALL_BINARY, None)


@pytest.mark.parametrize("binary", [True, False])
def test_a_stock_client_s_model_inputs_are_read(binary: bool) -> None:
    read = read_request(*sent(model_input(binary=binary)), SPEC)
    assert read.photos is None
    assert read.inputs is not None
    assert read.inputs.dtype == np.uint8
    np.testing.assert_array_equal(read.inputs, PICTURES)


def test_model_inputs_may_be_nested_in_json() -> None:
    read = read_request(in_json(PICTURES.tolist(), PICTURES.shape, PICTURE, "UINT8"), None, SPEC)
    np.testing.assert_array_equal(read.inputs, PICTURES)
    assert read.outputs == ALL_JSON


def test_photos_in_json_are_base64() -> None:
    read = read_request(in_json([base64.b64encode(file).decode() for file in FILES], id="7"), None, SPEC)
    assert read == InferRequest(FILES, None, ALL_JSON, "7")


def test_outputs_are_sent_in_the_requested_form() -> None:
    asked = [
        http.InferRequestedOutput(NAMEPLATE, binary_data=False),
        http.InferRequestedOutput(EMBEDDING, binary_data=True),
    ]
    read = read_request(*sent(photo_input(), outputs=asked), SPEC)
    assert read.outputs == (Wanted(NAMEPLATE, False), Wanted(EMBEDDING, True))
    data = [base64.b64encode(b"x").decode()]
    outputs = [{"name": EMBEDDING}, {"name": NAMEPLATE, "parameters": {"binary_data": False}}]
    both = in_json(data, [1], outputs=outputs, parameters={"binary_data_output": True})
    assert read_request(both, None, SPEC).outputs == (Wanted(EMBEDDING, True), Wanted(NAMEPLATE, False))


def test_parameters_of_triton_change_nothing() -> None:
    body, length = sent(photo_input(), sequence_id=3, sequence_start=True, priority=1, timeout=5)
    assert read_request(body, length, SPEC).photos == FILES


BODY, LENGTH = sent(photo_input())
HEAD, TAIL = BODY[: int(LENGTH or 0)], BODY[int(LENGTH or 0) :]
ONE = base64.b64encode(b"x").decode()


def rewritten(change: Mapping[str, object], tail: bytes = TAIL, **request: Any) -> tuple[bytes, str]:
    """The stock request with its input's members changed."""
    said = json.loads(HEAD)
    head = json.dumps({**said, "inputs": [{**said["inputs"][0], **change}], **request}).encode()
    return head + tail, str(len(head))


REFUSED: dict[str, tuple[tuple[bytes, str | None], str]] = {
    "header longer than the body": ((BODY, str(len(BODY) + 1)), "Inference-Header-Content-Length is"),
    "header of nothing": ((BODY, "0"), "length of the JSON"),
    "header is no number": ((BODY, "+12"), r"'\+12'"),
    "header in other digits": ((BODY, "１２"), "length of the JSON"),
    "header of a thousand digits": ((BODY, "1" * 1000), "length of the JSON"),
    "header cuts the JSON": ((BODY, "20"), "cannot be read"),
    "no header": ((BODY, None), "cannot be read"),
    "empty": ((b"", None), "cannot be read"),
    "NaN": ((in_json([float("nan")]), None), "cannot be read"),
    "no UTF-8": ((b'{"id": "\xff\xfe"}', None), "cannot be read"),
    "lists without end": ((b'{"inputs": ' + b"[" * 100_000, None), "cannot be read"),
    "data without end": ((in_json(0)[:-4] + b"[" * 100_000, None), "cannot be read"),
    "many objects": ((b'{"inputs":[' + b"{}," * MOST_OBJECTS + b"{}]}", None), f"more than {MOST_OBJECTS} objects"),
    "two inputs": (sent(photo_input(), model_input()), "brings 2 inputs"),
    "no input": ((b'{"inputs": []}', None), "brings 0 inputs"),
    "another input": (rewritten({"name": "foto"}), "no input 'foto'"),
    "another datatype": (rewritten({"datatype": "UINT8"}), "'BYTES' is what is taken"),
    "another output": (rewritten({}, outputs=[{"name": "embeding"}]), "Did you mean 'embedding'"),
    "an output twice": (rewritten({}, outputs=[{"name": EMBEDDING}] * 2), "twice"),
    "classification": (
        sent(photo_input(), outputs=[http.InferRequestedOutput(PROBABILITIES, class_count=3)]),
        "'classification', which is not supported",
    ),
    "too many photos": (rewritten({"shape": [5]}), "1 to 4"),
    "no photos": (rewritten({"shape": [0]}), "1 to 4"),
    "negative": (rewritten({"shape": [-1]}), "'shape' of input 'photo' cannot be read"),
    "not whole": (rewritten({"shape": [1.5]}), "cannot be read"),
    "matrix of photos": (rewritten({"shape": [3, 1]}), r"\[N\] is what is taken"),
    "a product that overflows": (
        rewritten({"name": PICTURE, "datatype": "UINT8", "shape": [1 << 62, 1 << 62, 3, 3]}),
        r"\[N, 2, 3, 3\] is what is taken",
    ),
    "a shape past 64 bits": (rewritten({"shape": [1 << 64]}), "cannot be read"),
    "a long shape": (rewritten({"shape": [1] * 5000}), "longer than"),
    "long parameters": (rewritten({}, parameters={"x": "y" * 5000}), "longer than"),
    "a long id": (rewritten({}, id="y" * 5000), "id is longer"),
    "too few elements": (rewritten({"shape": [4]}), "element 4 of 4 reaches past"),
    "too many elements": (rewritten({"shape": [2]}), "bytes follow its 2 elements"),
    "a size that lies": (rewritten({"parameters": {"binary_data_size": len(TAIL) - 1}}), "binary_data_size"),
    "a negative size": (rewritten({"parameters": {"binary_data_size": -1}}), "binary_data_size"),
    "bytes without a size": (rewritten({"parameters": {}, "data": [ONE]}), "no input has 'binary_data_size'"),
    "an element that lies": (
        rewritten({"shape": [1], "parameters": {"binary_data_size": 8}}, struct.pack("<I", 1 << 31) + b"abcd"),
        "reaches past",
    ),
    "both forms": (rewritten({"data": [ONE]}), "send one"),
    "neither form": (
        (json.dumps({"inputs": [{"name": PHOTO, "shape": [1], "datatype": "BYTES"}]}).encode(), None),
        "neither",
    ),
    "shared memory": (rewritten({"parameters": {"shared_memory_region": "r"}}), "shared memory"),
    "another encoding": (rewritten({"parameters": {"content_type": "hex"}}), "'base64' is what is read"),
    "no base64": ((in_json(["ÿØÿ"], [1]), None), "is no base64"),
    "base64 with a hole": ((in_json(["QQ\n=="], [1]), None), "is no base64"),
    "fewer strings than the shape": ((in_json([ONE], [2]), None), "has 1 elements"),
    "strings without end": ((in_json([""] * 100, [1]), None), "more than 4 elements"),
    "numbers for photos": ((in_json([1], [1]), None), "cannot be read"),
    "few numbers": ((in_json([1], [1, 2, 3, 3], PICTURE, "UINT8"), None), "has 1 elements, its shape makes 18"),
    "numbers past 255": ((in_json([256] * 18, [1, 2, 3, 3], PICTURE, "UINT8"), None), "cannot be read"),
    "words for numbers": ((in_json(["[1]"] * 18, [1, 2, 3, 3], PICTURE, "UINT8"), None), "cannot be read"),
    "few bytes": (
        rewritten({"name": PICTURE, "datatype": "UINT8", "shape": [1, 2, 3, 3]}),
        f"has {len(TAIL)} bytes, its shape makes 18",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictory_requests_are_refused(case: str) -> None:
    (body, length), says = REFUSED[case]
    with pytest.raises(UsageError, match=says):
        read_request(body, length, SPEC)


def test_a_refusal_is_short_whatever_was_sent() -> None:
    changes: tuple[dict[str, object], ...] = (
        {"name": "n" * 99_999},
        {"datatype": "n" * 99_999},
        {"parameters": {"content_type": "n" * 3999}},
    )
    for change in changes:
        with pytest.raises(UsageError) as refused:
            read_request(*rewritten(change), SPEC)
        assert len(str(refused.value)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = ("name", "shape", "datatype", "parameters", "data")
LENGTHS = st.none() | st.integers(-5, len(BODY) + 5).map(str) | st.text(max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(MEMBERS), JSON),
    st.dictionaries(st.sampled_from(["id", "outputs", "inputs", "parameters"]), JSON),
)
def test_any_json_is_read_or_refused(change: dict[str, object], request: dict[str, Any]) -> None:
    read_or_refused(*rewritten(change, **request))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(BODY)), st.binary(max_size=6), st.integers(0, 6), LENGTHS)
@example(0, b"", 0, LENGTH)
def test_any_bytes_are_read_or_refused(at: int, put: bytes, cut: int, length: str | None) -> None:
    read_or_refused(BODY[:at] + put + BODY[at + cut :], length)


def read_or_refused(body: bytes, length: str | None) -> None:
    try:
        read = read_request(body, length, SPEC)
    except UsageError:
        return
    assert (read.photos is None) != (read.inputs is None)
    assert len(read.photos if read.photos is not None else read.inputs) <= SPEC.photos  # type: ignore[arg-type]


TENSORS: dict[str, Any] = {
    EMBEDDING: np.array([[0.1, -2.5e-20, 3e38], [1, 2, 3]], np.float32),
    PROBABILITIES: np.array([[1.0, 0.0], [0.3, 0.7]], np.float32).T.copy().T,  # not in C's order
    NAMEPLATE: ["Лада Веста", ""],
    BOX: np.array([[1, 2, 70_000, 4], NO_BOX], np.int32),
}


@pytest.mark.parametrize("outputs", [ALL_BINARY, ALL_JSON, (ALL_JSON[2], ALL_BINARY[3], ALL_BINARY[1], ALL_JSON[0])])
def test_a_stock_client_reads_what_is_written(outputs: tuple[Wanted, ...]) -> None:
    body, length = write_response("cars", "0123", InferRequest(FILES, None, outputs, "7"), TENSORS)
    assert (length is None) == (outputs == ALL_JSON)
    result = http.InferResult.from_response_body(body, header_length=length)
    for name in (EMBEDDING, PROBABILITIES):
        assert result.as_numpy(name).dtype == np.float32
        np.testing.assert_array_equal(result.as_numpy(name), TENSORS[name])
    assert result.as_numpy(BOX).dtype == np.int32
    np.testing.assert_array_equal(result.as_numpy(BOX), TENSORS[BOX])
    assert [name.decode() if isinstance(name, bytes) else name for name in result.as_numpy(NAMEPLATE)] == TENSORS[
        NAMEPLATE
    ]
    assert [output["name"] for output in result.get_response()["outputs"]] == [wanted.name for wanted in outputs]
    assert (result.get_response()["model_version"], result.get_response()["id"]) == ("0123", "7")


def test_an_id_that_was_not_given_is_not_sent() -> None:
    body, _ = write_response("cars", "0123", InferRequest(FILES, None, ALL_JSON, None), TENSORS)
    assert "id" not in msgspec.json.decode(body)
