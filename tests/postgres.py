"""A PostgreSQL server for the test run alone, in a temporary folder, reached through a socket there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNERS = ("postgres", "nobody")
"""Users to run it as where the tests run as root, which PostgreSQL refuses."""
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses=''"


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl: on the path, or where Debian keeps its newest."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*([Path(on_path).resolve().parent] if on_path else []), *debian]
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


@contextmanager
def server(binaries: Path) -> Iterator[str]:
    """A running server: the URL of its database `postgres`, with a password that it does not ask for."""
    folder = Path(tempfile.mkdtemp(prefix="nameplate-pg-"))  # a socket's path must be short
    owner = _owner()
    if owner is not None:
        shutil.chown(folder, owner)
    data = folder / "data"
    control: list[str | Path] = [binaries / "pg_ctl", "--pgdata", data, "--wait", "--log", folder / "log"]
    try:
        _run([binaries / "initdb", "--pgdata", data, "--auth=trust", "--username=postgres", "--no-sync"], owner, folder)
        _run([*control, "--options", f"{QUICK} -k {folder}", "start"], owner, folder)
        try:
            yield f"postgresql://postgres:a-secret@/postgres?host={folder}"
        finally:
            _run([*control, "--mode=immediate", "stop"], owner, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner() -> str | None:
    import pwd

    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in OWNERS if name in known)


def _run(command: list[str | Path], owner: str | None, folder: Path) -> None:
    with (folder / "said").open("w+") as said:
        done = subprocess.run(
            command,
            user=owner,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            timeout=120,
            check=False,
        )
        said.seek(0)
        log = folder / "log"
        assert done.returncode == 0, f"{command[0]}: {said.read()}{log.read_text() if log.exists() else ''}"
