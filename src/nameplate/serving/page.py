"""The page at `/`: plain files of the package, read once when the service starts.

Only their names are looked up, so no address leads out of the folder.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from nameplate.serving.problems import Problem

INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str
    """Of its bytes, in quotes."""


def read_page() -> dict[str, PageFile]:
    """All files of the page by name."""
    folder = resources.files("nameplate.serving") / "page"
    bodies = {each.name: each.read_bytes() for each in folder.iterdir() if PurePath(each.name).suffix in TYPES}
    return {
        name: PageFile(body, TYPES[PurePath(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
        for name, body in bodies.items()
    }


def mount_page(app: FastAPI) -> None:
    """Serve the page at `/`, and its files below `/page/`.

    A browser asks each time whether a file has changed (`no-cache`), and gets 304 where it has not.
    """
    files = read_page()

    async def index(request: Request) -> Response:
        return _answer(request, files[INDEX])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name == INDEX or name not in files:
            raise Problem("not-found", f"The page has no file '{name}'.")
        return _answer(request, files[name])

    app.add_route("/", index, ["GET"], include_in_schema=False)
    app.add_route("/page/{name}", file, ["GET"], include_in_schema=False)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    asked = [each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")]
    if file.etag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
