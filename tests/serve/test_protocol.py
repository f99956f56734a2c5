"""The inference protocol over HTTP: an unmodified Triton client against the real service."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nameplate import __version__
from nameplate.demo import photos_folder
from nameplate.model.model import Model
from nameplate.model.pipeline import Settings, prepare_photo
from tests.cli.run import nameplate
from tests.outcomes import prepared
from tests.scenes import as_file, locating_bundle, scene
from tests.serve.running import Running, serving
from tests.shipped import EMBEDDING

pytest.importorskip("fastapi")
http = pytest.importorskip("tritonclient.http")

PHOTOS = sorted(photos_folder("test").glob("*/*.jpg"))[::20]
FILES = [photo.read_bytes() for photo in PHOTOS]
DOCS = Path(__file__).parents[2] / "docs" / "protocol-v2.md"
INFER = "/v2/models/cars196/infer"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving("--threads", "2") as running:
        yield running


def address(server: Running) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    with http.InferenceServerClient(address(server)) as made:
        yield made


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load(runtime="onnxruntime")


@pytest.fixture(scope="module")
def version(client: Any) -> str:
    [found] = client.get_model_metadata("cars196")["versions"]
    assert isinstance(found, str)
    return found


def photo_input(files: list[bytes] = FILES) -> Any:
    return http.InferInput("photo", [len(files)], "BYTES").set_data_from_numpy(np.array(files, dtype=np.object_))


def model_inputs(model: Model) -> NDArray[np.uint8]:
    photos = (prepared(prepare_photo(file, model.bundle.manifest.preprocess, Settings())) for file in FILES)
    return np.stack([photo.car.inputs[0] for photo in photos])


def check(result: Any, model: Model) -> None:
    """The result is what the model says of the photos, to the bit."""
    embeddings = model.embed(list(FILES))
    np.testing.assert_array_equal(result.as_numpy("embedding"), embeddings)
    probs = np.stack([found for _, found in model.answers(FILES) if found is not None])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), probs)
    named = [name.decode() if isinstance(name, bytes) else name for name in result.as_numpy("nameplate")]
    assert named == [prediction.nameplate for prediction in model.predict(FILES)]


def test_the_server_and_the_model_describe_themselves(client: Any, model: Model, version: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cars196")
    assert client.is_model_ready("cars196", version)
    about = client.get_server_metadata()
    assert (about["name"], about["version"], about["extensions"]) == ("nameplate", __version__, ["binary_tensor_data"])
    described = client.get_model_metadata("cars196")
    assert described == client.get_model_metadata("cars196", version)
    assert re.fullmatch("[0-9a-f]{12}", version)
    size, sizes = model.bundle.manifest.preprocess, {t["name"]: t["shape"] for t in described["outputs"]}
    assert described["inputs"][1]["shape"] == [-1, size.height, size.width, 3]
    assert sizes["embedding"] == [-1, model.bundle.manifest.embedding]
    assert sizes["probabilities"] == [-1, len(model.nameplates)]
    assert described["outputs"][-1] == {"name": "box", "datatype": "INT32", "shape": [-1, 4]}


def test_photos_give_what_the_model_says_to_the_bit(client: Any, model: Model, version: str) -> None:
    result = client.infer("cars196", [photo_input()], request_id="7")
    check(result, model)
    said = result.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("cars196", version, "7")
    check(client.infer("cars196", [photo_input()], model_version=version), model)


def test_prepared_model_inputs_give_the_same(client: Any, model: Model) -> None:
    made = model_inputs(model)
    given = http.InferInput("picture", list(made.shape), "UINT8").set_data_from_numpy(made)
    check(client.infer("cars196", [given]), model)


@pytest.mark.parametrize("binary", [True, False])
def test_the_box_is_that_of_the_main_car_or_minus_one(tmp_path: Path, binary: bool) -> None:
    files = [as_file(scene()), as_file(scene(), turned=True), as_file(np.full((90, 120, 3), 120, np.uint8))]
    bundle = locating_bundle(tmp_path / "bundle")
    locating = Model.load(str(bundle), runtime="onnxruntime")
    boxes = [found.box for found in locating.predict(list(files))]
    asked = [http.InferRequestedOutput("box", binary_data=binary)]
    with serving(bundle, "--threads", "1") as running, http.InferenceServerClient(address(running)) as client:
        given = client.infer("cars196", [photo_input(files)], outputs=asked).as_numpy("box")
        made = model_inputs(locating)
        pictures = http.InferInput("picture", list(made.shape), "UINT8").set_data_from_numpy(made)
        whole = client.infer("cars196", [pictures], outputs=asked).as_numpy("box")
    assert given.dtype == np.int32
    expected = [(-1,) * 4 if box is None else (box.left, box.top, box.right, box.bottom) for box in boxes]
    assert given.tolist() == [list(box) for box in expected]
    assert [box is None for box in boxes] == [False, False, True]
    assert (whole == -1).all()
    assert whole.shape == (len(FILES), 4)


def test_json_gives_the_same(server: Running, model: Model) -> None:
    strings = [base64.b64encode(file).decode() for file in FILES]
    body = {"inputs": [{"name": "photo", "datatype": "BYTES", "shape": [len(FILES)], "data": strings}]}
    answer = server.post(INFER, json=body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    check(http.InferResult.from_response_body(answer.content), model)


def test_null_is_as_good_as_absent_and_data_may_be_nested(server: Running, model: Model) -> None:
    strings = [[base64.b64encode(file).decode()] for file in FILES]
    given = {"name": "photo", "datatype": "BYTES", "shape": [len(FILES)], "data": strings, "parameters": None}
    output = {"name": "nameplate", "parameters": None}
    for more in ({"outputs": None}, {"outputs": [output]}):
        body = {"id": None, "parameters": None, "inputs": [given], **more}
        answer = server.post(INFER, json=body)
        assert answer.status_code == 200
    asked = {
        "inputs": [{**given, "parameters": {"binary_data_size": None, "content_type": None}}],
        "parameters": {"binary_data_output": None},
    }
    check(http.InferResult.from_response_body(server.post(INFER, json=asked).content), model)
    assert server.post(INFER, json={"inputs": [{**given, "shape": None}]}).status_code == 400


def test_the_configuration_is_as_triton_gives_it(client: Any, version: str) -> None:
    config = client.get_model_config("cars196", version)
    metadata = client.get_model_metadata("cars196")
    assert (config["name"], config["max_batch_size"], config["platform"]) == ("cars196", 0, metadata["platform"])
    for ours, theirs in (("input", "inputs"), ("output", "outputs")):
        assert [(each["name"], each["dims"]) for each in config[ours]] == [
            (each["name"], each["shape"]) for each in metadata[theirs]
        ]
    assert {each["data_type"] for each in config["input"]} == {"TYPE_STRING", "TYPE_UINT8"}
    assert all(each["optional"] for each in config["input"])
    assert all(each["parameters"] == {"optional": True} for each in metadata["inputs"])


def test_outputs_that_are_asked_for_alone(client: Any) -> None:
    asked = [http.InferRequestedOutput("nameplate", binary_data=False)]
    [output] = client.infer("cars196", [photo_input()], outputs=asked).get_response()["outputs"]
    assert (output["name"], output["shape"], len(output["data"])) == ("nameplate", [len(FILES)], len(FILES))


def refused(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    with pytest.raises(http.InferenceServerException) as error:
        call(*arguments, **named)
    return error.value.status(), error.value.message()


def test_unknown_models_and_versions_are_reported(client: Any) -> None:
    assert not client.is_model_ready("cars195")
    status, says = refused(client.infer, "cars195", [photo_input()])
    assert status == "404"
    assert "Did you mean 'cars196'" in says
    status, says = refused(client.infer, "cars196", [photo_input()], model_version="1")
    assert status == "404"
    assert "has no version '1'" in says


@pytest.mark.parametrize(
    ("file", "status", "says"),
    [
        (b"", "422", "photo 2 of 2: empty"),
        (b"%PDF-1.7", "415", "a PDF document"),
        (FILES[0][: len(FILES[0]) // 2], "422", "photo 2 of 2: truncated"),
    ],
)
def test_a_photo_that_cannot_be_read(client: Any, file: bytes, status: str, says: str) -> None:
    found, message = refused(client.infer, "cars196", [photo_input([FILES[0], file])])
    assert found == status
    assert says in message


def test_classification_is_refused(client: Any) -> None:
    asked = [http.InferRequestedOutput("probabilities", class_count=5)]
    status, says = refused(client.infer, "cars196", [photo_input()], outputs=asked)
    assert status == "400"
    assert "not supported" in says


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_refused(client: Any, algorithm: str) -> None:
    status, says = refused(client.infer, "cars196", [photo_input()], request_compression_algorithm=algorithm)
    assert status == "415"
    assert algorithm in says


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", INFER, 405), ("GET", "/v2/nothing", 404), ("POST", "/v2", 405), ("POST", INFER, 400)],
)
def test_every_refusal_has_the_protocol_s_form(server: Running, method: str, path: str, status: int) -> None:
    answer = server.get(path) if method == "GET" else server.post(path, content=b"[1, 2")
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Running) -> None:
    host, port = address(server).split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {1 << 40}\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error":"The body may have ' in answer


def test_other_routes_keep_their_form_of_refusals(server: Running) -> None:
    answer = server.get("/v2nd")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert "detail" in answer.json()


def test_keys_and_rates_refuse_in_the_protocol_s_form_too(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = nameplate("keys", "add", keys, "triton").stdout.split()[-1]
    with serving("--keys", keys, "--rate", "2/hour") as running, http.InferenceServerClient(address(running)) as client:
        assert client.is_server_ready()  # probes bring no key
        status, says = refused(client.infer, "cars196", [photo_input()])
        assert (status, "key" in says) == ("401", True)
        headers = {"Authorization": f"Bearer {key}"}
        for _ in range(2):
            assert client.infer("cars196", [photo_input()], headers=dict(headers)).as_numpy("nameplate").size
        status, says = refused(client.infer, "cars196", [photo_input()], headers=dict(headers))
        assert (status, "More than 2 requests" in says) == ("429", True)


def test_the_example_of_the_docs_runs(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    exec(example.replace("127.0.0.1:8000", address(server)), {})
    assert f"(1, {EMBEDDING})" in capsys.readouterr().out
