"""Jobs: many photos in one request, answered in the background; the list of one's own, their state, results and end."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from nameplate.defaults import TOP
from nameplate.serve.errors import Problem
from nameplate.serve.jobs.receive import receive_job
from nameplate.serve.jobs.runner import JobRunner
from nameplate.serve.jobs.store import RESULTS, Job
from nameplate.serve.observability import event
from nameplate.serve.requests import refuse_compressed
from nameplate.serve.routes.photos import Asked, Whole, which_cars
from nameplate.serve.routes.status import model_name, said_by
from nameplate.serve.schema import (
    EXAMPLE_JOB,
    EXAMPLE_ROW,
    Jobs,
    JobState,
    ModelName,
    answers,
    job_body,
    json_lines,
    problems,
)
from nameplate.serve.service import json_response, model_for, service_of, share_of

router = APIRouter(tags=["jobs"])

MOST_TOP = 20
"""The most nameplates of each photo that a job may ask for, so that its results stay small."""
LINES = "application/jsonl"
"""The media type of JSON Lines."""
RETRY_SECONDS = 5.0
"""When to ask again for results that are not there yet."""


@router.post(
    "/v1/jobs",
    operation_id="submit_job",
    summary="Have many photos answered in the background",
    status_code=202,
    responses={
        **answers(JobState, EXAMPLE_JOB, status=202, description="Accepted; `Location` says where its state is"),
        **problems(400, 404, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra=job_body(),
)
async def submit(
    request: Request,
    model: Asked = None,
    top: Annotated[int, Query(ge=1, le=MOST_TOP, description="How many nameplates to give for each.")] = TOP,
    all_: Annotated[
        bool, Query(alias="all", description="Whether to name every car that is located; not with `whole`.")
    ] = False,
    whole: Whole = False,
) -> Response:
    """A zip as the body or in field `photos` of a form, or many photos in that field; each gets a row of results."""
    runner = _runner_of(request)
    cars = which_cars(every=all_, whole=whole)
    served = model_for(request, model)
    refuse_compressed(request)
    job = Job(secrets.token_hex(16), share_of(request), served.engine.name, served.digest, top, cars)
    with runner.store.arriving(job.owner) as arriving:
        job = await receive_job(request, runner.store, job, arriving)
        runner.add(job)  # before it counts no longer as arriving
    request.state.log.update(job=job.id, photos=job.photos)
    event("job", job=job.id, photos=job.photos, bytes=job.upload_bytes)
    return json_response(_state(runner, job), 202, {"Location": f"/v1/jobs/{job.id}", **said_by(model_name(served))})


@router.get(
    "/v1/jobs",
    operation_id="list_jobs",
    summary="One's own jobs",
    responses={**answers(Jobs, {"jobs": [EXAMPLE_JOB]}), **problems(404)},
)
async def list_own(request: Request) -> Response:
    """The jobs of this key (without keys, of this address) that are kept, the newest first."""
    runner = _runner_of(request)
    return json_response(Jobs([_state(runner, job) for job in runner.store.of(share_of(request))]))


@router.get(
    "/v1/jobs/{id}",
    operation_id="job_state",
    summary="How far a job is",
    responses={**answers(JobState, EXAMPLE_JOB), **problems(404)},
)
async def state(request: Request, id: str) -> Response:  # noqa: A002 - the name in the address
    """`state` is `queued`, `running`, `done` or `failed`."""
    runner = _runner_of(request)
    return json_response(_state(runner, runner.store.find(id, share_of(request))))


@router.get(
    "/v1/jobs/{id}/results",
    operation_id="job_results",
    summary="A job's results",
    response_class=Response,
    responses={**json_lines(EXAMPLE_ROW), **problems(404, 409)},
)
async def results(request: Request, id: str) -> Response:  # noqa: A002
    """JSON Lines: a row for each photo, as in `results` of /v1/identify, in the order of the photos."""
    runner = _runner_of(request)
    job = runner.store.find(id, share_of(request))
    if not job.finished:
        raise Problem(
            "not-done", f"{job.done} of {job.photos} photos are answered. Ask again later.", retry_after=RETRY_SECONDS
        )
    path = runner.store.folder_of(job) / RESULTS
    if not job.result_bytes:
        return Response(media_type=LINES)
    return FileResponse(path, media_type=LINES)


@router.delete(
    "/v1/jobs/{id}",
    operation_id="delete_job",
    summary="Cancel a job, and delete it",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "Deleted, with its photos and results"}, **problems(404)},
)
async def delete(request: Request, id: str) -> Response:  # noqa: A002
    """Its photos and results are deleted at once."""
    runner = _runner_of(request)
    await runner.remove(runner.store.find(id, share_of(request)))
    return Response(status_code=204)


def _runner_of(request: Request) -> JobRunner:
    runner = service_of(request).runner
    if runner is None:
        raise Problem("not-found", "This service takes no jobs. Its operator can start it with --jobs FOLDER.")
    return runner


def _state(runner: JobRunner, job: Job) -> JobState:
    return JobState(
        id=job.id,
        state=job.state,
        model=ModelName(job.model, job.digest),
        photos=job.photos,
        done=job.done,
        unreadable=job.unreadable,
        created=_when(job.created),
        finished=_when(job.finished),
        expires=_when(runner.store.expires(job)),
        results=f"/v1/jobs/{job.id}/results" if job.finished else None,
        error=job.error or None,
    )


def _when(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else None
