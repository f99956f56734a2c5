"""The help: commands by purpose, one line each, and no Python types; -v and -q; completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from nameplate.cli import app
from nameplate.cli.help import GROUPS, as_command
from nameplate.demo import photo
from tests.cli.run import nameplate

WIDTH = 80


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


def shown(words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit):
        as_command(app)([*words, "--help"], prog_name="nameplate")
    return capsys.readouterr().out


def test_each_command_has_a_line_of_its_own_under_a_heading(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown((), capsys, monkeypatch).splitlines()
    assert max(map(len, lines)) <= WIDTH
    listed = as_command(app).commands
    for name, said in ((name, said) for group in GROUPS.values() for name, said in group.items() if name in listed):
        assert any(line.split(None, 1) == [name, said] for line in lines), name
    assert all(any(line.split()[:1] == [name] for line in lines) for name in listed)
    headings = [line[:-1] for line in lines if line.endswith(":") and line[:-1] in GROUPS]
    assert headings == list(GROUPS)


def test_no_help_shows_a_python_type(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words, _ in commands(as_command(app)):
        text = shown(words, capsys, monkeypatch)
        assert not re.search(r"<[a-z |\[\]A-Z-]*>|list\[", text), (words, text)
        assert max(map(len, text.splitlines())) <= WIDTH, words


def test_quiet_silences_notes_and_not_errors() -> None:
    broken = "no-such-photo.jpg"
    usual = nameplate("identify", photo(), broken, "--json")
    quiet = nameplate("identify", photo(), broken, "--json", "-q")
    assert quiet.stdout == usual.stdout
    assert quiet.stderr == ""
    assert "error" in nameplate("-q", "identify", "--model", "no-such-model", photo(), check=1).stderr


def test_verbose_says_what_runs_and_what_it_took() -> None:
    done = nameplate("recipes", "--verbose")
    assert done.stdout == nameplate("recipes").stdout
    assert re.search(r"nameplate \S+, Python .*onnxruntime \S+", done.stderr)
    assert re.search(r"[\d.]+ s, at most [\d,]+ MB of memory", done.stderr)


def test_completion_names_the_commands() -> None:
    environment = os.environ | {
        "_NAMEPLATE_COMPLETE": "complete_bash",
        "COMP_WORDS": "nameplate ide",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['nameplate']; from nameplate.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["identify"]
