"""Receiving a job (`receive_job`): its photos go to disk while they arrive, so that any number takes little memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from nameplate.errors import DataError, WriteError
from nameplate.serve.errors import Problem
from nameplate.serve.jobs.store import RECORD, Arriving, Job, JobStore
from nameplate.serve.jobs.upload import Place, Spool, count_photos, is_zip
from nameplate.serve.observability import event
from nameplate.serve.requests import FIELDS, FormReader, UploadedFile, receive_body
from nameplate.serve.service import service_of
from nameplate.storage import whole_folder

FIELD = "photos"
"""The form's field that photos, or the zip, are in."""
RETRY_SECONDS = 60.0
"""When a client may try again after the disk failed."""
T = TypeVar("T")


async def receive_job(request: Request, store: JobStore, job: Job, arriving: Arriving) -> Job:
    """Write a request's photos to the folder of a new job. It is there as a whole afterwards, or not at all.

    Args:
        request: its body is a zip, a photo, or a form with either.
        store: keeps it.
        job: what is known of it already.
        arriving: counts its bytes.

    Returns:
        The job with its photos counted.

    Raises:
        Problem: the body is refused, or holds no photos or too many; or they cannot be stored.
    """
    limits, most = service_of(request).settings.limits, store.limits.photos
    try:
        async with _in_threads(whole_folder(store.folder_of(job), mode=0o700)) as folder:
            await _spool(request, store, folder, arriving)
            try:
                photos = await asyncio.to_thread(count_photos, folder, limits, most)
            except DataError as error:
                raise Problem("unprocessable", str(error)) from None
            if not 0 < photos <= most:
                kind = "too-large" if photos else "unprocessable"
                raise Problem(kind, f"There are {photos:,} photos; a job has 1 to {most:,}.")
            job = msgspec.structs.replace(job, photos=photos, upload_bytes=arriving.bytes, created=time.time())
            (folder / RECORD).write_bytes(msgspec.json.encode(job))
    except (OSError, WriteError) as error:
        event("job not kept", level="error", reason=str(error))
        raise Problem(
            "full", "The service cannot store photos just now; its log says why.", retry_after=RETRY_SECONDS
        ) from None
    return job


async def _spool(request: Request, store: JobStore, folder: Path, arriving: Arriving) -> None:
    """Write the body's photos into a folder.

    Raises:
        Problem: the body is refused.
    """
    limits = store.limits
    kind, options = parse_options_header(request.headers.get("content-type"))
    with closing(Spool(folder)) as spool:
        reader = None
        if kind == b"multipart/form-data":
            reader = FormReader(options.get(b"boundary", b""), spool.add, limits.photos + FIELDS)

        async def take(chunk: bytes) -> None:
            store.take_room(arriving, len(chunk))
            if reader is None:
                spool.add(chunk)
            else:
                reader.write(chunk)
            await spool.write()

        await receive_body(request, limits.bytes, limits.body_seconds, take)
        files: Sequence[UploadedFile] = [UploadedFile(FIELD, "", b"", spool.size)] if spool.size else []
        if reader is not None:
            files = reader.form().files
        for file in files:
            if file.field != FIELD:
                raise Problem("unprocessable", f"There is a file in field '{file.field[:80]}'; send all in '{FIELD}'.")
        await spool.end(None if len(files) == 1 and is_zip(spool.start) else _places(files))


def _places(files: Sequence[UploadedFile]) -> list[Place]:
    places, start = [], 0
    for number, file in enumerate(files, start=1):
        places.append(Place(file.name or f"photo {number}", start, file.size))
        start += file.size
    return places


@asynccontextmanager
async def _in_threads(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context in threads, since it waits for the disk."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    except BaseException as error:
        await asyncio.to_thread(context.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(context.__exit__, None, None, None)
