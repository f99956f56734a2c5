"""A command in a fork ends as in a process that was started anew, and is not forked where it could differ."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.forked import forked
from tests.cli.run import MORE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
PROGRAM = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["NAMEPLATE_CACHE"], sys.stdin.read(), __name__, flush=True)
print("a note", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_streams_folder_environment_and_exit_code_are_those_of_a_process(tmp_path: Path) -> None:
    program, streams = tmp_path / "program.py", (tmp_path / "out", tmp_path / "err")
    program.write_text(PROGRAM, "ascii")
    code = forked(str(program), ["3", "ü"], streams, more=MORE, cwd=tmp_path)
    done = subprocess.run(
        [sys.executable, program, "3", "ü"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env=os.environ | MORE,
        check=False,
    )
    assert code == done.returncode == 3
    assert [stream.read_bytes() for stream in streams] == [done.stdout, done.stderr]


def test_a_signal_is_its_exit_code(tmp_path: Path) -> None:
    program, streams = tmp_path / "program.py", (tmp_path / "out", tmp_path / "err")
    program.write_text("import time; time.sleep(300)", "ascii")
    code = forked(str(program), [], streams, more=MORE, meanwhile=lambda process: os.kill(process, signal.SIGKILL))
    assert code == -signal.SIGKILL


def test_where_a_module_may_be_hidden_nothing_is_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert forked("nameplate", ["--version"], (tmp_path / "out", tmp_path / "err"), more=MORE) is None
    assert not list(tmp_path.iterdir())
