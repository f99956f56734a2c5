"""How databases are opened, and the errors where they cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from nameplate.errors import DatabaseError, NameplateError, UsageError
from nameplate.serve.feedback.database import open_engine, reading, shown, writing
from nameplate.serve.feedback.store import FeedbackStore


def test_sqlite_is_set_up_for_readers_beside_a_writer(tmp_path: Path) -> None:
    engine = open_engine(str(tmp_path / "a folder" / "f.sqlite"), create=True)
    with reading(engine) as connection:
        said = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "foreign_keys")}
        assert said == {"journal_mode": "wal", "foreign_keys": 1}
    engine.dispose()
    assert (tmp_path / "a folder" / "f.sqlite").stat().st_mode & 0o077 == 0, "others need not read users' photos"


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        ("mysql://me:geheim@h/x", "not in 'mysql'"),
        ("postgresql+asyncpg://me:geheim@h/x", "not in 'postgresql.asyncpg'"),
        ("sqlite://", "need a SQLite file"),
        ("sqlite:///:memory:", "need a SQLite file"),
        ("postgresql://me:geheim@h:port/x", "no URL of a database"),
        ("://geheim", "no URL of a database"),
    ],
)
def test_a_foreign_database_is_refused(database: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        open_engine(database, create=True)
    assert "geheim" not in str(refused.value)


def test_reading_does_not_create_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="There is no database"):
        FeedbackStore.open(str(tmp_path / "f.sqlite"), create=False)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"notes " * 1000)
    with pytest.raises(DatabaseError, match="not a database"):
        FeedbackStore.open(str(tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_bytes() == b"notes " * 1000


@pytest.mark.parametrize("url", ["postgresql://me:geheim@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?password=geheim"])
def test_a_server_that_does_not_answer_is_reported_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseError, match="127.0.0.1") as refused:
        FeedbackStore.open(url)
    assert "geheim" not in str(refused.value)


def test_a_database_is_shown_without_its_password() -> None:
    assert shown(make_url("postgresql://me:geheim@h/x?sslpassword=b&sslmode=require")) == (
        "postgresql://me:***@h/x?sslmode=require&sslpassword=%2A%2A%2A"
    )


def test_a_driver_that_is_missing_is_named() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from nameplate.serve.feedback.database import open_engine\n"
        "open_engine('postgresql://h/x', create=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'nameplate[postgres]'" in done.stderr.splitlines()[-1]


def test_a_writer_writes_all_or_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    with pytest.raises(NameplateError, match="enough"), writing(engine) as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise NameplateError("enough")
    with reading(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0


def test_a_reader_sees_one_state(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    with reading(engine) as before:
        assert before.execute(text("SELECT count(*) FROM t")).scalar() == 0
        with writing(engine) as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
        assert before.execute(text("SELECT count(*) FROM t")).scalar() == 0
    with reading(engine) as after:
        assert after.execute(text("SELECT count(*) FROM t")).scalar() == 1
