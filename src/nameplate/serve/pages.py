"""The web page at `/`, and Swagger UI at `/docs`: their files, read once, and the routes that send them.

Requests choose among the files' names, so no address leads out of their folders.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from nameplate.serve.errors import Problem

INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
PACKED = ".gz"
"""The end of the name of a file that is kept compressed, and sent so to who takes it."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of a page, as it is sent."""

    body: bytes
    media_type: str
    etag: str
    """The first half of the SHA-256 of its bytes, hexadecimal, in quotes."""
    packed: bool = False
    """Whether `body` is compressed by gzip."""


def read_files(folder: Traversable) -> dict[str, PageFile]:
    """Read all files of a page: name → file; those that are kept compressed have the name that they have otherwise."""
    files = {}
    for each in folder.iterdir():
        name = each.name.removesuffix(PACKED)
        if (suffix := PurePosixPath(name).suffix) in TYPES:
            body = each.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            files[name] = PageFile(body, TYPES[suffix], etag, packed=name != each.name)
    return files


def mount_page(app: Starlette) -> None:
    """Serve the page at `/`, and its files below `/page/`."""
    _mount(app, "/", "/page", read_files(resources.files("nameplate.web") / "page"))


def mount_docs(app: Starlette) -> None:
    """Serve Swagger UI at `/docs`, and its files below it."""
    _mount(app, "/docs", "/docs", read_files(resources.files("nameplate.serve") / "swagger_ui"))


def _mount(app: Starlette, at: str, below: str, files: Mapping[str, PageFile]) -> None:
    """Serve a page's index at one path and its other files below another.

    Browsers may keep the files but must ask each time whether they changed (`no-cache`). The answer is 304 if not.
    """

    async def index(request: Request) -> Response:
        return _answer(request, files[INDEX])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name == INDEX or name not in files:
            raise Problem("not-found", f"The page has no file '{name}'.")
        return _answer(request, files[name])

    app.add_route(at, index, ["GET"], include_in_schema=False)
    app.add_route(f"{below}/{{name}}", file, ["GET"], include_in_schema=False)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    # If-None-Match compares weakly (RFC 9110, section 13.1.2): a proxy that compresses may have made the tag weak.
    known = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    body = file.body
    if file.packed:
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            body = gzip.decompress(body)
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=file.media_type)
