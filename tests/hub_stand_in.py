"""A stand-in for the Hugging Face hub: the part of its HTTP API that huggingface_hub uses, in memory.

A data set is a repository whose name begins with `datasets/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """The repositories, by name: commit → file → bytes; the last commit is the main branch."""

    url: str = ""
    token: str = "secret"
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add a commit with these files beside the older ones; return its name."""
        commits = self.repos.setdefault(repo, {})
        every = dict(next(reversed(commits.values()), {})) | files
        name = hashlib.sha1(repr((repo, len(commits), sorted(every))).encode()).hexdigest()
        commits[name] = every
        return name

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision names, and its files."""
        commits = self.repos.get(repo, {})
        name = revision if revision in commits else next(reversed(commits), None) if revision == "main" else None
        return None if name is None else (name, commits[name])


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on this machine; its address is `Hub.url`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        path = path.replace("/api/models/", "/api/")
        if found := re.fullmatch(r"/api/((?:datasets/)?[^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/((?:datasets/)?[^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path):
            at = self.hub.find(found[1], found[2])
            rows = [] if at is None else [_row(name, data) for name, data in at[1].items()]
            self._send(200, json.dumps(rows).encode())
        elif found := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            at = self.hub.find(found[1], found[2])
            if at is None or found[3] not in at[1]:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            else:
                data = at[1][found[3]]
                tag = f'"{hashlib.sha256(data).hexdigest()}"'
                self._send(200, data, {"X-Repo-Commit": at[0], "ETag": tag})
        else:
            self._send(404, b"")

    def _info(self, repo: str, revision: str) -> None:
        at = self.hub.find(repo, revision)
        if at is None:
            code = "RevisionNotFound" if repo in self.hub.repos else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})
            return
        files = [{"rfilename": name, "size": len(data)} for name, data in at[1].items()]
        self._send(200, json.dumps({"id": repo, "modelId": repo, "sha": at[0], "siblings": files}).encode())

    def do_POST(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/validate-yaml":
            self._send(200, json.dumps({"errors": [], "warnings": []}).encode())
        elif self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, json.dumps({"error": "Invalid token."}).encode())
        elif self.path == "/api/repos/create":
            given = json.loads(body)
            repo = f"{given.get('organization', 'maria')}/{given['name']}"
            self.hub.repos.setdefault(repo, {})
            self._send(200, json.dumps({"url": f"{self.hub.url}/{repo}", "id": repo, "name": repo}).encode())
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main(\?.*)?", self.path):
            rows = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self._send(200, json.dumps({"files": rows}).encode())
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main(\?.*)?", self.path):
            lines = [json.loads(line) for line in body.splitlines() if line]
            files = {
                each["value"]["path"]: base64.b64decode(each["value"]["content"])
                for each in lines
                if each["key"] == "file"
            }
            name = self.hub.commit(found[1], files)
            url = f"{self.hub.url}/{found[1]}/commit/{name}"
            self._send(200, json.dumps({"commitUrl": url, "commitOid": name, "success": True}).encode())
        else:
            self._send(404, b"")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _row(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
