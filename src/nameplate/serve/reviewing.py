"""An audit's findings in a browser on this machine (`serve_review`): keep, exclude or relabel photos by keyboard.

Every decision writes two tables at once: the list for `--exclude`, and the one for `--relabel`. Decisions are kept
beside them, so that a later audit of the same data goes on from them.

The server listens on the loopback address alone. Its address holds a random token, which other users of the machine
and pages of other sites do not know; requests for other hosts and from other origins are refused besides.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nameplate.audit.inspect import Audit, Finding
from nameplate.data.tables import write_table
from nameplate.errors import NameplateError, PhotoError
from nameplate.images.decode import decode
from nameplate.report.audit import TITLES, earlier_rows, left_out
from nameplate.report.page import jpeg
from nameplate.serve.access import THIS_MACHINE, Hosts
from nameplate.serve.middleware import SecurityHeaders
from nameplate.serve.server import QuietServer, listen
from nameplate.storage import absolute, printable, whole_file

LOOPBACK = "127.0.0.1"
SHOWN = 720
"""Longest side of a photo on the page, in pixels."""
MOST_BYTES = 10_000
"""Size of a request's body, in bytes; a decision needs a few hundred."""
FILES = {"": "review.html", "review.js": "review.js", "review.css": "review.css"}
"""Path below the token → file of the package."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
BY_HAND = "by hand"
"""The kind of a row that a person put on the list for `--exclude`."""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person decided about one photo."""

    photo: int
    """Its number on the page."""
    choice: Literal["keep", "exclude", "relabel", "undecided"]
    label: str = ""
    """The right nameplate, where it is relabelled."""


@dataclass(slots=True)
class Review:
    """The findings of an audit, and what was decided about their photos."""

    audit: Audit
    exclude: Path
    relabel: Path
    kept: Path
    """The file that keeps the decisions."""
    before: tuple[str, ...] = ()
    """Absolute paths that an earlier list left out."""
    photos: tuple[str, ...] = ()
    """The paths of all photos with findings, as in `Photo.path`; the number of one on the page is its index."""
    decided: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Absolute path → choice and label."""

    def decide(self, decision: Decision) -> None:
        """Keep a decision, and write both tables.

        Raises:
            ValueError: there is no such photo or no such nameplate.
            WriteError: a file cannot be written.
        """
        if not 0 <= decision.photo < len(self.photos):
            raise ValueError(f"there is no photo {decision.photo}")
        if decision.choice == "relabel" and decision.label not in self.audit.dataset.nameplates:
            raise ValueError(f"'{decision.label}' is no nameplate of the data")
        path = absolute(self.photos[decision.photo])
        before = self.decided.pop(path, None)
        if decision.choice != "undecided":
            self.decided[path] = (decision.choice, decision.label if decision.choice == "relabel" else "")
        try:
            self.write()
        except NameplateError:  # what is shown must be what is written
            self.decided.pop(path, None)
            self.decided |= {path: before} if before else {}
            raise

    def write(self) -> None:
        """Write the list of decisions and both tables, each whole."""
        with whole_file(self.kept) as temporary:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self.decided), indent=1) + b"\n")
        rows = [row for row in self._found() if self.decided.get(str(row["path"]), ("exclude",))[0] == "exclude"]
        listed = {row["path"] for row in rows}
        rows += [
            {"path": path, "kind": BY_HAND, "score": "", "detail": ""}
            for path, (choice, _) in sorted(self.decided.items())
            if choice == "exclude" and path not in listed
        ]
        with whole_file(self.exclude) as temporary:
            write_table(temporary, ("path", "kind", "score", "detail"), rows)
        labels = {absolute(photo.path): photo.label for photo in self.audit.dataset.photos}
        with whole_file(self.relabel) as temporary:
            write_table(
                temporary,
                ("path", "label", "was"),
                [
                    {"path": path, "label": label, "was": labels.get(path) or ""}
                    for path, (choice, label) in sorted(self.decided.items())
                    if choice == "relabel"
                ],
            )

    def _found(self) -> list[dict[str, object]]:
        """The rows that the audit itself puts on the list, and those of an earlier list."""
        return [*left_out(self.audit), *earlier_rows(self.before)]

    def as_json(self) -> bytes:
        """What the page shows."""
        numbers = {path: number for number, path in enumerate(self.photos)}
        labels = {photo.path: photo.label for photo in self.audit.dataset.photos}
        listed = {row["path"] for row in self._found()}
        photos = [
            {
                "path": printable(path),
                "label": labels.get(path) or "",
                "listed": absolute(path) in listed,
                "choice": self.decided.get(absolute(path), ("undecided", ""))[0],
                "new_label": self.decided.get(absolute(path), ("", ""))[1],
            }
            for path in self.photos
        ]
        findings = [
            {
                "title": TITLES[finding.kind][0],
                "kind": finding.kind,
                "detail": printable(finding.detail),
                "score": round(finding.score, 3),
                "suggested": suggested(finding, self.audit.dataset.nameplates),
                "photos": [numbers[path] for path in finding.photos],
            }
            for finding in self.audit.findings
        ]
        files = [self.exclude.name, self.relabel.name]
        nameplates = self.audit.dataset.nameplates
        return msgspec.json.encode({"photos": photos, "findings": findings, "nameplates": nameplates, "files": files})


def suggested(finding: Finding, nameplates: Sequence[str]) -> str:
    """The nameplate that a suspect label's photo looks like; empty where the finding names none."""
    _, found, rest = finding.detail.partition(", looks like ")
    name = rest.rpartition(" (")[0]
    return name if found and name in nameplates else ""


def open_review(audit: Audit, page: Path, before: Sequence[str] = ()) -> Review:
    """The review of an audit whose page is `page`, with the decisions of an earlier review of it.

    Raises:
        NameplateError: the file of earlier decisions is damaged.
    """
    kept = page.with_suffix(".review.json")
    decided: dict[str, tuple[str, str]] = {}
    if kept.exists():
        try:
            decided = msgspec.json.decode(kept.read_bytes(), type=dict[str, tuple[str, str]])
        except (OSError, msgspec.DecodeError):
            raise NameplateError(f"'{kept}' is damaged: delete it to begin the review anew.") from None
    there = {absolute(photo.path) for photo in audit.dataset.photos}
    decided = {
        path: (choice, label)
        for path, (choice, label) in decided.items()
        if path in there and (choice != "relabel" or label in audit.dataset.nameplates)
    }
    review = Review(
        audit,
        page.with_suffix(".exclude.csv"),
        page.with_suffix(".relabel.csv"),
        kept,
        tuple(before),
        tuple(dict.fromkeys(path for finding in audit.findings for path in finding.photos)),
        decided,
    )
    review.write()
    return review


def review_app(review: Review, token: str) -> ASGIApp:
    """The ASGI application; everything lies below `/TOKEN/`."""
    folder = resources.files("nameplate.serve") / "review_page"

    async def file(request: Request) -> Response:
        name = FILES.get(request.path_params.get("file", ""))
        if name is None:
            return Response(status_code=404)
        return Response((folder / name).read_bytes(), media_type=TYPES[Path(name).suffix])

    async def findings(_: Request) -> Response:
        return Response(review.as_json(), media_type="application/json")

    async def photo(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(review.photos):
            return Response(status_code=404)
        try:
            pixels = await asyncio.to_thread(decode, review.photos[number], at_least=(SHOWN // 2, SHOWN // 2))
        except PhotoError as error:
            return Response(str(error), 422, media_type="text/plain")
        return Response(
            jpeg(pixels, SHOWN), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    async def decide(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return Response("The request is too large.", 413)
        try:
            review.decide(msgspec.json.decode(body, type=Decision))
        except (msgspec.DecodeError, ValueError) as error:
            return Response(f"This is no decision: {error}.", 422, media_type="text/plain")
        except NameplateError as error:
            return Response(str(error), 500, media_type="text/plain")
        return Response(status_code=204)

    routes = [
        Route(f"/{token}/", file),
        Route(f"/{token}/findings", findings),
        Route(f"/{token}/photo/{{number:int}}", photo),
        Route(f"/{token}/decide", decide, methods=["POST"]),
        Route(f"/{token}/{{file}}", file),
    ]
    guarded: ASGIApp = Hosts(Starlette(routes=routes), names=THIS_MACHINE)
    return SecurityHeaders(guarded)


def serve_review(review: Review, port: int, started: Callable[[str], None]) -> None:
    """Serve the review on this machine until a signal stops the process.

    Args:
        review: the findings and the decisions.
        port: where to listen; 0 chooses a free one.
        started: called with the address of the page.

    Raises:
        NameplateError: the port cannot be listened on.
    """
    token = secrets.token_urlsafe(24)
    listener = listen(LOOPBACK, port)
    app = review_app(review, token)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off")
    server = QuietServer(config)

    async def run() -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, setattr, server, "should_exit", True)
        started(f"http://{LOOPBACK}:{listener.getsockname()[1]}/{token}/")
        await server.serve(sockets=[listener])

    asyncio.run(run())
