"""A request's body: read into memory under limits, and taken apart into photos and fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from nameplate.serving.budget import Hold
from nameplate.serving.problems import Problem
from nameplate.serving.service import Service, service_of
from nameplate.storage import printable

FIELD_BYTES = 16 * 1024
"""Size of a field that is no file."""
FIELDS = 16
"""Fields, beside files, that a form may have."""
HEADER_BYTES = 4 * 1024
"""Size of all headers of a form's part."""
NAME_LENGTH = 255
"""A file's name is cut after so many characters."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form, or the whole body."""

    field: str
    """The form's field; empty where the body is the file."""
    name: str
    """As the client calls it; empty where it does not say."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """What a request brings."""

    files: tuple[UploadedFile, ...]
    fields: dict[str, str]


@dataclass(slots=True)
class _Part:
    """A part of a form while it is read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""
    chunks: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """The request's form; its bytes count against the service's budget until the block ends.

    Raises:
        Problem: too large, too slow, no form, or no room for it now.
    """
    service = service_of(request)
    with service.budget.hold() as hold:
        body = await _read(request, service, hold)
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data":
            form = read_multipart(body, options.get(b"boundary", b""))
        else:
            form = Form((UploadedFile("", "", body),) if body else (), {})
        del body
        yield form


async def photos_of(form: Form, service: Service, name: str = "photos") -> tuple[list[bytes], list[str]]:
    """A form's photos and what they are called.

    Raises:
        Problem: none, too many, or files in other fields.
    """
    other = [file.field for file in form.files if file.field not in ("", name)]
    if other:
        raise Problem("unprocessable", f"There is a file in field '{other[0][:80]}'; send photos in field '{name}'.")
    if not form.files:
        raise Problem("unprocessable", f"There is no photo. Send one as the body, or files in field '{name}'.")
    if len(form.files) > service.settings.photos:
        raise Problem("too-large", f"{len(form.files)} photos; one request may bring {service.settings.photos}.")
    return [file.data for file in form.files], [
        file.name or f"photo {number}" for number, file in enumerate(form.files, start=1)
    ]


async def _read(request: Request, service: Service, hold: Hold) -> bytes:
    most = service.settings.body_bytes
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(service.settings.body_seconds):
            async for chunk in request.stream():
                if hold.bytes + len(chunk) > most:
                    raise _too_large(most)
                hold.take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise Problem("slow-body", f"It took longer than {service.settings.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise Problem("bad-request", "The client hung up before the body's end.") from None
    return b"".join(chunks)


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"The body may have {most:,} bytes. Send fewer photos at once, or smaller ones.")


def read_multipart(body: bytes, boundary: bytes) -> Form:
    """Take multipart/form-data apart (RFC 7578).

    Raises:
        Problem: it is none, is cut short, or has too many parts.
    """
    parts: list[_Part] = []
    ended = False

    def begin() -> None:
        if len(parts) > 10 * FIELDS + 1000:
            raise Problem("too-large", "The form has too many parts.")
        parts.append(_Part())

    def name(data: bytes, start: int, end: int) -> None:
        parts[-1].name += data[start:end]
        _check_header(parts[-1])

    def value(data: bytes, start: int, end: int) -> None:
        parts[-1].value += data[start:end]
        _check_header(parts[-1])

    def header_ends() -> None:
        part = parts[-1]
        part.headers[part.name.lower()] = part.value
        part.name = part.value = b""

    def contents(data: bytes, start: int, end: int) -> None:
        parts[-1].chunks.append(data[start:end])

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": name,
                "on_header_value": value,
                "on_header_end": header_ends,
                "on_part_data": contents,
                "on_end": end,
            },
        )
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Problem("bad-request", f"The form cannot be read: {str(error)[:200]}") from None
    if not ended:
        raise Problem("bad-request", "The form is cut short, or its boundary is not the one that Content-Type names.")
    return _form(parts)


def _check_header(part: _Part) -> None:
    if len(part.name) + len(part.value) + sum(map(len, part.headers.values())) > HEADER_BYTES:
        raise Problem("bad-request", "The headers of a part of the form are too large.")


def _form(parts: list[_Part]) -> Form:
    files: list[UploadedFile] = []
    fields: dict[str, str] = {}
    for part in parts:
        _, options = parse_options_header(part.headers.get(b"content-disposition"))
        data = b"".join(part.chunks)
        part.chunks.clear()
        name = _text(options.get(b"name", b""))
        if b"filename" in options or b"filename*" in options:
            files.append(UploadedFile(name or "?", _text(options.get(b"filename", b""))[:NAME_LENGTH], data))
        elif len(data) > FIELD_BYTES or len(fields) >= FIELDS:
            raise Problem(
                "too-large", f"Field '{name[:80]}' is too long, or one too many; is it a photo without a name?"
            )
        else:
            fields[name] = _text(data)
    return Form(tuple(files), fields)


def _text(data: bytes) -> str:
    return printable(data.decode("utf-8", "surrogateescape"))
