"""A request's body: read into memory under limits, and taken apart into photos and fields as it comes.

Why this is not Starlette's own parser of forms: docs/decisions/0015-serving-libraries.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from nameplate.serve.errors import Problem
from nameplate.serve.service import Hold, Service, service_of
from nameplate.storage import printable

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_BYTES = 16 * 1024
"""Size of a field that is no file."""
FIELDS = 16
"""Fields, beside files, that a form may have."""
PARTS = 10 * FIELDS + 1000
"""Parts of a form. Files beyond `ServeSettings.photos` are refused once all is read, with their number."""
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


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """The request's form; its bytes count against the service's budget until the block ends.

    Raises:
        Problem: too large, too slow, no form, or no room for it now.
    """
    service = service_of(request)
    with service.budget.hold() as hold:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data":
            reader = FormReader(options.get(b"boundary", b""))
            await _read(request, service, hold, reader.write)
            form = reader.form()
            del reader
        else:
            body = await _read_whole(request, service, hold)
            form = Form((UploadedFile("", "", body),) if body else (), {})
            del body
        yield form  # whose holder lets the photos go once they are with a worker


@asynccontextmanager
async def read_body(request: Request) -> AsyncIterator[bytes]:
    """The request's body as it is; its bytes count against the service's budget until the block ends.

    Raises:
        Problem: too large, too slow, encoded, or no room for it now.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Problem("encoded", f"Content-Encoding is '{encoding[:40]}'. Send it as it is: photos are compressed.")
    service = service_of(request)
    with service.budget.hold() as hold:
        yield await _read_whole(request, service, hold)


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


async def _read_whole(request: Request, service: Service, hold: Hold) -> bytes:
    chunks: list[bytes] = []
    await _read(request, service, hold, chunks.append)
    return b"".join(chunks)


async def _read(request: Request, service: Service, hold: Hold, take: Callable[[bytes], None]) -> None:
    """Give `take` the body, chunk by chunk, once `hold` has room for each."""
    most = service.settings.body_bytes
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(service.settings.body_seconds):
            async for chunk in request.stream():
                if hold.bytes + len(chunk) > most:
                    raise _too_large(most)
                hold.take(len(chunk))
                take(chunk)
    except TimeoutError:
        raise Problem("slow-body", f"It took longer than {service.settings.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise Problem("bad-request", "The client hung up before the body's end.") from None


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"The body may have {most:,} bytes. Send fewer photos at once, or smaller ones.")


class FormReader:
    """Takes multipart/form-data (RFC 7578) apart as it comes, so that no body is in memory twice.

    python-multipart parses; it refuses parts with more than 8 headers, or a header of more than 4 KB.
    """

    def __init__(self, boundary: bytes) -> None:
        """Make a reader of one form.

        Raises:
            Problem: the boundary is too long.
        """
        # The parser refers to the parts and they not to it: in a cycle, photos would stay until the garbage collector
        # comes round.
        self._parts = _Parts()
        try:
            self._parser = MultipartParser(boundary, self._parts.callbacks())
        except FormParserError as error:
            raise _unreadable(error) from None

    def write(self, chunk: bytes) -> None:
        """Read the next chunk of the body.

        Raises:
            Problem: this is no form, or it has too many parts or too long a field.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(error) from None

    def form(self) -> Form:
        """What the form brings, after its last chunk.

        Raises:
            Problem: the form has not ended. The parser does not complain of that: without this check, the photo that
                was cut off would be missing from the answer, and nobody told.
        """
        if not self._parts.ended:
            raise Problem(
                "bad-request", "The form is cut short, or its boundary is not the one that Content-Type names."
            )
        return Form(tuple(self._parts.files), self._parts.fields)


class _Parts:
    """What a parser has found so far."""

    def __init__(self) -> None:
        self.files: list[UploadedFile] = []
        self.fields: dict[str, str] = {}
        self.count = 0
        self.ended = False
        # Of the part that is being read:
        self._header_name = self._header_value = self._disposition = b""
        self._chunks: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """For `MultipartParser`."""
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.end_header,
            "on_part_data": self.contents,
            "on_part_end": self.end_part,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self.count += 1
        if self.count > PARTS:
            raise Problem("too-large", "The form has too many parts.")
        self._disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def contents(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        data = b"".join(self._chunks)
        self._chunks.clear()
        name = _text(options.get(b"name", b""))
        if b"filename" in options or b"filename*" in options:
            self.files.append(UploadedFile(name or "?", _text(options.get(b"filename", b""))[:NAME_LENGTH], data))
        elif len(data) > FIELD_BYTES or len(self.fields) >= FIELDS:
            raise Problem(
                "too-large", f"Field '{name[:80]}' is too long, or one too many; is it a photo without a name?"
            )
        else:
            self.fields[name] = _text(data)

    def end(self) -> None:
        self.ended = True


def _unreadable(error: FormParserError) -> Problem:
    return Problem("bad-request", f"The form cannot be read: {str(error)[:200]}")


def _text(data: bytes) -> str:
    return printable(data.decode("utf-8", "surrogateescape"))
