"""The endpoints of the Open Inference Protocol V2, below /v2, for clients of KServe, Triton and the like.

Source: github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md. A model's version is the
beginning of its bundle's digest, so another bundle of the same name is another version. An alias has the versions of
all its models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from nameplate import __version__
from nameplate.errors import UsageError
from nameplate.serve.engine import Engine
from nameplate.serve.errors import Problem, kind_of
from nameplate.serve.ipc import JobOptions, ServedAnswer
from nameplate.serve.requests import read_body
from nameplate.serve.routes.status import model_name, said_by
from nameplate.serve.served import Served
from nameplate.serve.service import choice_key, json_response, model_for, service_of, share_of, unless_gone
from nameplate.serve.tensors import (
    BOX,
    EMBEDDING,
    NAMEPLATE,
    NO_BOX,
    PHOTO,
    PICTURE,
    PROBABILITIES,
    InferRequest,
    InputSpec,
    Tensor,
    read_request,
    write_response,
)
from nameplate.types import PixelBox

VERSION_DIGITS = 12
"""Leading digits of a bundle's digest that are its version."""
HEADER = "Inference-Header-Content-Length"
PLATFORM = "nameplate_onnx"
"""Project and format, as the specification forms these names."""
TRITON = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32"}
"""Datatype of the protocol → its name in Triton's configurations."""

GUARDED = (401, 403, 429)
"""Refusals of access control, which do not concern the paths below /v2/health."""

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


def _answered(description: str, *more: str, **properties: Any) -> dict[int | str, dict[str, Any]]:
    """Describe a route's answer, for its `responses`: a JSON object with these members.

    Args:
        description: what the status 200 means.
        more: further media types of the answer.
        properties: the members' JSON schemas.
    """
    schema = {"type": "object", "required": list(properties), "properties": properties}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    return {200: {"description": description, "content": content | {kind: {} for kind in more}}}


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a route's refusals."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
    content = {"application/json": {"schema": schema}}
    return {status: {"description": "Refused, and why", "content": content} for status in statuses}


TEXT, FLAG, LIST = {"type": "string"}, {"type": "boolean"}, {"type": "array"}
TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {"name": TEXT, "datatype": TEXT, "shape": LIST, "data": LIST, "parameters": {"type": "object"}},
}
TENSORS = {"type": "array", "items": TENSOR}
INFER_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {"id": TEXT, "inputs": {**TENSORS, "minItems": 1, "maxItems": 1}, "outputs": LIST},
            },
            "example": {"inputs": [{"name": PHOTO, "datatype": "BYTES", "shape": [1], "data": ["/9j/4AAQ…"]}]},
        },
        "application/octet-stream": {},
    },
}


@router.get(
    "",
    operation_id="v2_server",
    summary="The server",
    responses={**_answered("The server", name=TEXT, version=TEXT, extensions=LIST), **_refused(*GUARDED)},
)
@router.get("/", include_in_schema=False)
async def server() -> Response:
    """The server's name, version and extensions of the protocol."""
    return json_response({"name": "nameplate", "version": __version__, "extensions": ["binary_tensor_data"]})


@router.get(
    "/health/live",
    operation_id="v2_live",
    summary="Whether the process answers",
    responses=_answered("It does", live=FLAG),
)
async def live() -> Response:
    """As /health/live."""
    return json_response({"live": True})


@router.get(
    "/health/ready",
    operation_id="v2_ready",
    summary="Whether all models answer",
    responses={**_answered("They do", live=FLAG, ready=FLAG), **_refused(503)},
)
async def ready(request: Request) -> Response:
    """As /health/ready; the protocol's text calls the member `live`, its OpenAPI document `ready`."""
    if not service_of(request).ready:
        raise Problem("not-ready", "Not ready: it is starting or stopping, or no worker answers.", retry_after=1)
    return json_response({"live": True, "ready": True})


@router.get(
    "/models/{name}",
    operation_id="v2_model",
    summary="A model's inputs and outputs",
    responses={
        **_answered("The model", name=TEXT, versions=LIST, platform=TEXT, inputs=TENSORS, outputs=TENSORS),
        **_refused(404, *GUARDED),
    },
)
@router.get("/models/{name}/versions/{version}", include_in_schema=False)
async def metadata(request: Request, name: str) -> Response:
    """In shapes, -1 stands for the number of photos. A request brings one of the inputs, so both are `optional`."""
    served = _find(request, name)
    inputs, outputs = _specs(served)
    return json_response(
        {
            "name": served.engine.name,
            "versions": [_version(each) for each in service_of(request).engines.of(name)],
            "platform": PLATFORM,
            "inputs": [
                {"name": each, "datatype": datatype, "shape": shape, "parameters": {"optional": True}}
                for each, datatype, shape in inputs
            ],
            "outputs": [{"name": each, "datatype": datatype, "shape": shape} for each, datatype, shape in outputs],
        }
    )


@router.get(
    "/models/{name}/config",
    operation_id="v2_model_config",
    summary="A model's configuration, as Triton gives it",
    responses={
        **_answered("The configuration", name=TEXT, platform=TEXT, max_batch_size={"type": "integer"},
                    input=LIST, output=LIST),
        **_refused(404, *GUARDED),
    },
)  # fmt: skip
@router.get("/models/{name}/versions/{version}/config", include_in_schema=False)
async def config(request: Request, name: str) -> Response:
    """`max_batch_size` 0 says that the shapes count the photos themselves."""
    served = _find(request, name)
    inputs, outputs = _specs(served)
    return json_response(
        {
            "name": served.engine.name,
            "platform": PLATFORM,
            "backend": "nameplate",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 0,
            "input": [
                {"name": each, "data_type": TRITON[datatype], "dims": shape, "optional": True}
                for each, datatype, shape in inputs
            ],
            "output": [
                {"name": each, "data_type": TRITON[datatype], "dims": shape} for each, datatype, shape in outputs
            ],
        }
    )


Spec = tuple[str, str, list[int]]
"""A tensor's name, datatype and shape."""


def _specs(served: Served) -> tuple[list[Spec], list[Spec]]:
    """The inputs and the outputs of a model."""
    manifest = served.engine.model.bundle.manifest
    size = manifest.preprocess
    return [(PHOTO, "BYTES", [-1]), (PICTURE, "UINT8", [-1, size.height, size.width, 3])], [
        (EMBEDDING, "FP32", [-1, manifest.embedding]),
        (PROBABILITIES, "FP32", [-1, len(manifest.nameplates)]),
        (NAMEPLATE, "BYTES", [-1]),
        (BOX, "INT32", [-1, 4]),
    ]


@router.get(
    "/models/{name}/ready",
    operation_id="v2_model_ready",
    summary="Whether a model answers",
    responses={**_answered("It does", name=TEXT, ready=FLAG), **_refused(404, 503, *GUARDED)},
)
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, name: str) -> Response:
    """As /v2/health/ready, for one model, or for all that an alias stands for."""
    _find(request, name)
    service = service_of(request)
    if service.draining or not all(served.engine.ready for served in service.engines.of(name)):
        raise Problem("not-ready", f"'{name}' is not ready. Try again shortly.", retry_after=1)
    return json_response({"name": name, "ready": True})


@router.post(
    "/models/{name}/infer",
    operation_id="v2_infer",
    summary="Photos or prepared model inputs to embeddings, probabilities, nameplates and boxes",
    responses={
        **_answered("Tensors", "application/octet-stream", model_name=TEXT, model_version=TEXT, outputs=TENSORS),
        **_refused(400, 404, 408, 413, 415, 422, 503, *GUARDED),
    },
    openapi_extra={"requestBody": INFER_BODY},
)
@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, name: str) -> Response:
    """All photos are answered or none: the protocol cannot express that one photo cannot be read."""
    # One that is not served is refused before the body is read.
    served = _find(request, name) if "version" in request.path_params else model_for(request, name)
    async with read_body(request) as body:
        # Base64 and JSON numbers of many megabytes take long to parse, so a thread does it.
        asked = await asyncio.to_thread(_read, body, request, served.engine)
        del body
        if "version" in request.path_params:
            served = _find(request, name)  # a reload may have exchanged the bundle
        engine, named = served.engine, model_name(served)  # read now: it may do so while the photos are answered
        request.state.log.update(model=named.name, photos=len(asked))
        found = await unless_gone(request, _answers(engine, asked, share_of(request)))
    _refuse_unreadable(found)
    version = named.digest[:VERSION_DIGITS]
    sent, length = await asyncio.to_thread(write_response, named.name, version, asked, _tensors(found))
    if length is None:
        return Response(sent, headers=said_by(named), media_type="application/json")
    return Response(sent, headers=said_by(named) | {HEADER: str(length)}, media_type="application/octet-stream")


def _find(request: Request, name: str) -> Served:
    """Find the model of that name or, if the path names a version, the one of these that has it.

    Raises:
        Problem: there is none (`not-found`).
    """
    wanted, engines = request.path_params.get("version"), service_of(request).engines
    if wanted is None:
        return engines.find(name, choice_key(request.scope))
    there = {_version(served): served for served in engines.of(name)}
    if wanted not in there:
        raise Problem("not-found", f"'{name}' has no version '{wanted[:80]}'; it has {', '.join(map(repr, there))}.")
    return there[wanted]


def _version(served: Served) -> str:
    return served.digest[:VERSION_DIGITS]


def _read(body: bytes, request: Request, engine: Engine) -> InferRequest:
    size = engine.model.bundle.manifest.preprocess
    spec = InputSpec(size.height, size.width, engine.settings.photos)
    try:
        return read_request(body, request.headers.get(HEADER), spec)
    except UsageError as error:
        raise Problem("bad-request", str(error)) from None


async def _answers(engine: Engine, asked: InferRequest, client: str) -> list[ServedAnswer]:
    wanted = any(output.name == EMBEDDING for output in asked.outputs)
    if asked.inputs is None:
        photos: Sequence[bytes] = asked.photos or ()
        options = JobOptions(top=1, embedding=wanted)
    else:
        photos = [each.tobytes() for each in asked.inputs]
        options = JobOptions("input", top=1, embedding=wanted)
    return await engine.answer(photos, _names(len(photos)), options, client=client)


def _names(photos: int) -> list[str]:
    return [f"photo {number}" for number in range(1, photos + 1)]


def _refuse_unreadable(found: Sequence[ServedAnswer]) -> None:
    """Refuse a request with a photo that cannot be read.

    Raises:
        Problem: a photo cannot be read; its kind is that of the first such photo.
    """
    for prediction in (answer.prediction for answer in found):
        if prediction.failure is not None:
            said = f"{prediction.photo} of {len(found)}: {prediction.failure}."
            raise Problem(kind_of(prediction.failure.reason), said)


def _tensors(found: Sequence[ServedAnswer]) -> dict[str, Tensor]:
    """Return the answers as output's name → tensor."""
    tensors: dict[str, Tensor] = {
        PROBABILITIES: np.stack([answer.probs for answer in found if answer.probs is not None]),
        NAMEPLATE: [str(answer.prediction.nameplate) for answer in found],
        BOX: np.array([_box(answer.prediction.box) for answer in found], np.int32),
    }
    if found[0].embedding is not None:
        tensors[EMBEDDING] = np.stack([answer.embedding for answer in found if answer.embedding is not None])
    return tensors


def _box(box: PixelBox | None) -> tuple[int, int, int, int]:
    return NO_BOX if box is None else (box.left, box.top, box.right, box.bottom)
