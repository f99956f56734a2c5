"""Request bodies: read into memory under limits, and split into photos and fields while they arrive.

docs/decisions/0015-serving-libraries.md says why this is not Starlette's own form parser.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from nameplate.serve.budget import Arrival, Hold
from nameplate.serve.errors import Problem
from nameplate.serve.service import Service, service_of, share_of
from nameplate.storage import printable

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_BYTES = 16 * 1024
"""The most bytes of a field that is no file."""
FIELDS = 16
"""The most fields, besides files, of a form."""
PARTS = 10 * FIELDS + 1000
"""The most parts of a form. More files than `ServeSettings.photos` are refused after reading, so that the error can say
how many there were."""
URLENCODED = (
    "The body is a form without files (application/x-www-form-urlencoded), as 'curl -d' sends it: that drops line "
    "breaks and zeros, and so damages a photo. Send it with curl --data-binary @FILE, or -F photos=@FILE."
)
"""What is said of a body that is no photo."""
NAME_LENGTH = 255
"""The most characters of a file's name; longer names are cut."""


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form, or the whole body."""

    field: str
    """The name of the form's field; empty if the body itself is the file."""
    name: str
    """The file's name according to the client; empty if it sends none."""
    data: bytes
    """Empty if the bytes went to a sink; see `FormReader`."""
    size: int
    """Number of bytes."""


@dataclass(frozen=True, slots=True)
class Form:
    """The files and text fields of a request."""

    files: tuple[UploadedFile, ...]
    fields: dict[str, str]


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[Form]:
    """Read the request's form. Its bytes count against the service's budget until the block ends.

    Raises:
        Problem: the body is too large, too slow, compressed or malformed, or there is no room for it now.
    """
    refuse_compressed(request)
    service = service_of(request)
    with service.budget.hold(share_of(request)) as hold:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind == b"multipart/form-data":
            reader = FormReader(options.get(b"boundary", b""))
            await _read_held(request, service, hold, reader.write)
            # Without the `del` below, the reader would keep the photos in memory until the block ends.
            form = reader.form()
            del reader
        else:
            body = await _read_whole(request, service, hold)
            # 'curl --data-binary' sends this type too, so a photo is taken: all have bytes that are zero.
            if kind == b"application/x-www-form-urlencoded" and body and b"\0" not in body:
                raise Problem("not-a-photo", URLENCODED)
            form = Form((UploadedFile("", "", body, len(body)),) if body else (), {})
            del body
        yield form  # no reference to it is kept here, so that photos are freed once a worker has them


@asynccontextmanager
async def read_body(request: Request) -> AsyncIterator[bytes]:
    """Read the request's body. Its bytes count against the service's budget until the block ends.

    Raises:
        Problem: the body is too large, too slow or compressed, or there is no room for it now.
    """
    refuse_compressed(request)
    service = service_of(request)
    with service.budget.hold(share_of(request)) as hold:
        yield await _read_whole(request, service, hold)


def refuse_compressed(request: Request) -> None:
    """Refuse bodies that the client has compressed.

    Raises:
        Problem: Content-Encoding says so.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Problem("encoded", f"Content-Encoding is '{encoding[:40]}'. Send it as it is: photos are compressed.")


async def photos_of(form: Form, service: Service, name: str = "photos") -> tuple[list[bytes], list[str]]:
    """Return a form's photos and their names.

    Args:
        form: the request's form.
        service: whose limit on photos holds.
        name: the field that photos must be in.

    Raises:
        Problem: there is no photo, there are too many, or a file is in another field.
    """
    other = [file.field for file in form.files if file.field not in ("", name)]
    if other:
        raise Problem("unprocessable", f"There is a file in field '{other[0][:80]}'; send photos in field '{name}'.")
    if not form.files:
        raise Problem("unprocessable", f"There is no photo. Send one as the body, or files in field '{name}'.")
    if len(form.files) > service.settings.photos:
        raise Problem(
            "too-large", f"The request brings {len(form.files)} photos; at most {service.settings.photos} are allowed."
        )
    return [file.data for file in form.files], [
        file.name or f"photo {number}" for number, file in enumerate(form.files, start=1)
    ]


async def _read_whole(request: Request, service: Service, hold: Hold) -> bytes:
    chunks: list[bytes] = []
    await _read_held(request, service, hold, chunks.append)
    return b"".join(chunks)


async def _read_held(request: Request, service: Service, hold: Hold, take: Callable[[bytes], None]) -> None:
    """Pass the body to `take`, chunk by chunk, after `hold` has taken room for each."""

    async def take_held(chunk: bytes) -> None:
        hold.take(len(chunk))
        take(chunk)

    await receive_body(request, service.settings.body_bytes, service.settings.body_seconds, take_held)


async def receive_body(request: Request, most: int, seconds: float, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Pass the request's body to `take`, chunk by chunk.

    Args:
        request: the request.
        most: how many bytes the body may have.
        seconds: how long it may take to arrive.
        take: is awaited for each chunk, and may refuse it.

    Raises:
        Problem: the body is too large or too slow, or the client hung up.
    """
    service, got = service_of(request), 0
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > most:  # refused before anything is read; the check below still holds
        raise _too_large(most)
    arrival = Arrival(seconds)
    try:
        with service.arriving(arrival):
            async with arrival.timeout:
                async for chunk in request.stream():
                    # Content-Length may be missing or false, so the bytes that arrive are counted.
                    got += len(chunk)
                    if got > most:
                        raise _too_large(most)
                    await take(chunk)
                    arrival.came(len(chunk))
    except TimeoutError:
        raise Problem("slow-body", f"{arrival.why} Send fewer photos at once, or smaller ones.") from None
    except ClientDisconnect:
        raise Problem("bad-request", "The client hung up before the body's end.") from None


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"The body may have {most:,} bytes. Send fewer photos at once, or smaller ones.")


class FormReader:
    """Reads multipart/form-data (RFC 7578) while it arrives, so that no body is in memory twice.

    python-multipart parses it. It refuses parts with more than 8 headers, or with a header of more than 4 KB.
    """

    def __init__(self, boundary: bytes, sink: Callable[[bytes], None] | None = None, parts: int = PARTS) -> None:
        """Make a reader of one form.

        Args:
            boundary: what separates the parts.
            sink: takes the bytes of files, one file after the other; None keeps them in memory.
            parts: the most parts.

        Raises:
            Problem: the boundary is too long.
        """
        # The parser refers to the parts, but the parts not to the parser: a reference cycle would keep photos in memory
        # until the garbage collector runs.
        self.parts = _Parts(sink, parts)
        try:
            self._parser = MultipartParser(boundary, self.parts.callbacks())
        except FormParserError as error:
            raise _unreadable(error) from None

    def write(self, chunk: bytes) -> None:
        """Read the next chunk of the body.

        Raises:
            Problem: the body is no form, has too many parts, or has a field that is too long.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(error) from None

    def form(self) -> Form:
        """Return the form, after its last chunk.

        Raises:
            Problem: the form is incomplete.
        """
        # The parser does not complain about a form that is cut short: without this check, the last photo would be
        # missing from the answer, and nobody would notice.
        if not self.parts.ended:
            raise Problem(
                "bad-request", "The form is cut short, or its boundary is not the one that Content-Type names."
            )
        return Form(tuple(self.parts.files), self.parts.fields)


class _Parts:
    """The parts that a parser has found so far."""

    def __init__(self, sink: Callable[[bytes], None] | None, most: int) -> None:
        self._sink, self._most = sink, most
        self.files: list[UploadedFile] = []
        self.fields: dict[str, str] = {}
        self.count = self._size = 0
        self.ended = self._is_file = False
        # These belong to the part that is being read:
        self._header_name = self._header_value = self._disposition = b""
        self._chunks: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """Return the callbacks for `MultipartParser`."""
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
        if self.count > self._most:
            raise Problem("too-large", "The form has too many parts.")
        self._disposition, self._size = b"", 0
        self._is_file = False

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
            self._is_file = not {b"filename", b"filename*"}.isdisjoint(parse_options_header(self._disposition)[1])
        self._header_name = self._header_value = b""

    def contents(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._sink is None:  # the whole body is bounded
            self._chunks.append(data[start:end])
        elif self._is_file:
            self._sink(data[start:end])
        elif self._size <= FIELD_BYTES:
            self._chunks.append(data[start:end])

    def end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        data = b"".join(self._chunks)
        self._chunks.clear()
        name = _text(options.get(b"name", b""))
        if self._is_file:
            called = _text(options.get(b"filename", b""))[:NAME_LENGTH]
            self.files.append(UploadedFile(name or "?", called, data, self._size))
        elif self._size > FIELD_BYTES or len(self.fields) >= FIELDS:
            raise Problem(
                "too-large",
                f"Field '{name[:80]}' is too long, or one field too many. If it is a photo, give its part a file name.",
            )
        else:
            self.fields[name] = _text(data)

    def end(self) -> None:
        self.ended = True


def _unreadable(error: FormParserError) -> Problem:
    return Problem("bad-request", f"The form cannot be read: {str(error)[:200]}")


def _text(data: bytes) -> str:
    return printable(data.decode("utf-8", "surrogateescape"))
