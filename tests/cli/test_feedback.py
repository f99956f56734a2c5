"""`nameplate feedback`, as an operator runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nameplate.serve.feedback.store import FeedbackStore
from tests.cli.run import nameplate
from tests.serve.feedback.conftest import say


@pytest.fixture
def database(tmp_path: Path) -> str:
    """Three corrections, two of them of one photo."""
    path = str(tmp_path / "feedback.sqlite")
    with FeedbackStore.open(path) as store:
        say(store, 0, "Lada Niva", "me")
        say(store, 0, "Lada [bold] 4x4", "you")
        say(store, 1, "BMW M3", "me")
    return path


def listed(database: str, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(nameplate("feedback", "list", database, "--json", *arguments).stdout)
    return found


def test_corrections_are_listed(database: str) -> None:
    first = listed(database)[0]
    assert (first["nameplate"], first["client"], first["status"], first["format"]) == ("BMW M3", "me", "new", "JPEG")
    assert [entry["nameplate"] for entry in listed(database, "--client", "you")] == ["Lada [bold] 4x4"]
    said = nameplate("feedback", "list", database, "--newest", "2").stdout
    assert str(first["id"])[:8] in said
    assert "[bold]" in said
    assert "Niva" not in said


def test_they_are_moderated_exported_and_deleted(database: str, tmp_path: Path) -> None:
    bmw, other, niva = (str(entry["id"]) for entry in listed(database))
    assert nameplate("feedback", "accept", "--database", database, bmw[:8], niva).stdout == "2 accepted\n"
    assert json.loads(nameplate("feedback", "reject", "--database", database, other, "--json").stdout) == {
        "rejected": 1
    }
    assert len(listed(database, "--status", "accepted")) == 2
    output = tmp_path / "out"
    done = nameplate("feedback", "export", database, "-o", output, "--status", "accepted", "--json")
    made = json.loads(done.stdout)
    assert (made["photos"], made["unmoderated"], made["left_out"]) == (2, 0, {"rejected": 1})
    assert "unmoderated" not in done.stderr
    assert "there already" in nameplate("feedback", "export", database, "-o", output, check=1).stderr
    gone = nameplate("feedback", "delete", "--database", database, bmw, "--json").stdout
    assert json.loads(gone) == {"corrections": 1, "photos": 1}
    assert json.loads(nameplate("feedback", "delete", "--database", database, "--client", "me", "--json").stdout) == {
        "corrections": 1,
        "photos": 0,
    }
    said = nameplate("feedback", "delete", "--database", database, "--before", "2100-01-01").stdout
    assert said == "Deleted 1 corrections and 1 photos\n"
    assert listed(database) == []


def test_an_export_counts_unmoderated_photos(database: str, tmp_path: Path) -> None:
    done = nameplate("feedback", "export", database, "-o", tmp_path / "out")
    assert "1 of 1 photos: nobody has accepted" in done.stderr
    assert "2× different nameplates for one photo" in done.stdout
    nameplate("feedback", "export", database, "-o", tmp_path / "out", "--include-conflicts", "--overwrite")
    assert (
        "1 of"
        not in nameplate("feedback", "export", database, "-o", tmp_path / "x", "--since", "2100-01-01", check=1).stdout
    )


def test_the_database_may_be_given_in_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMEPLATE_FEEDBACK", database)
    id_ = str(listed(database)[0]["id"])
    assert len(json.loads(nameplate("feedback", "list", "--json").stdout)) == 3
    nameplate("feedback", "reject", id_)
    assert "NAMEPLATE_FEEDBACK" in nameplate("feedback", "list", "--help").stdout
    assert database not in nameplate("feedback", "list", "--help").stdout


def test_a_new_database_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    assert "Up to date" in nameplate("feedback", "migrate", path).stdout
    assert listed(str(path)) == []


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["list", "no such"], 1, "There is no database 'no such'"),
        (["list", "mysql://me:geheim@h/x"], 2, "not in 'mysql'"),
        (["list", "postgresql://me:geheim@127.0.0.1:1/x"], 1, "postgresql+psycopg://me:***@127.0.0.1:1/x"),
        (["list", "DATABASE", "--status", "good"], 2, "one of new, accepted, rejected, not 'good'"),
        (["accept", "--database", "DATABASE", "no such"], 2, "Nothing was changed"),
        (["accept", "abc"], 2, "--database"),
        (["delete", "--database", "DATABASE"], 2, "Say what to delete"),
        (["delete", "--database", "DATABASE", "x", "--client", "y"], 2, "Say what to delete"),
        (["export", "DATABASE", "-o", "out", "--since", "2100-01-01"], 1, "3× too old"),
        (["export", "DATABASE", "-o", "out", "--since", "yesterday"], 2, "yesterday"),
    ],
)
def test_errors_are_reported(database: str, tmp_path: Path, arguments: list[str], code: int, problem: str) -> None:
    given = [database if argument == "DATABASE" else argument for argument in arguments]
    done = nameplate("feedback", *given, check=code, cwd=tmp_path)
    assert problem in " ".join(done.stderr.split())
    assert "geheim" not in done.stderr + done.stdout
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_is_named(database: str) -> None:
    program = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        f"sys.argv = ['nameplate', 'feedback', 'list', {database!r}]\n"
        "from nameplate.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 1
    assert "'sqlalchemy' is missing): pip install 'nameplate[serve]'" in done.stderr
