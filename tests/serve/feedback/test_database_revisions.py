"""The migrations of the database."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from nameplate.errors import DatabaseError
from nameplate.serve.feedback.database import (
    FOLDER,
    METADATA,
    VERSION_TABLE,
    migrate,
    open_engine,
    reading,
    require_newest,
    writing,
)
from nameplate.serve.feedback.store import FeedbackStore
from tests.serve.feedback.conftest import say

REVISIONS = [step.revision for step in ScriptDirectory(FOLDER).walk_revisions()][::-1]


def test_the_migrations_lead_to_the_tables(engine: Engine) -> None:
    assert migrate(engine) == REVISIONS
    with reading(engine) as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, METADATA) == []
        checks = inspect(connection).get_check_constraints("feedback_corrections")
        assert [check["name"] for check in checks] == ["ck_feedback_corrections_status"], "which Alembic compares not"


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_older_database_is_brought_up_to_date(engine: Engine, revision: str) -> None:
    assert migrate(engine, revision)[-1] == revision
    assert migrate(engine) == REVISIONS[REVISIONS.index(revision) + 1 :]
    assert migrate(engine) == []
    require_newest(engine)
    assert say(FeedbackStore(engine))


def test_a_newer_database_is_refused_and_not_changed(engine: Engine) -> None:
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for ask in (migrate, require_newest):
        with pytest.raises(DatabaseError, match="9999, which a newer Nameplate made") as refused:
            ask(engine)
        assert "a-secret" not in str(refused.value)


def test_an_empty_database_is_not_read(database: str) -> None:
    open_engine(database, create=True).dispose()
    with pytest.raises(DatabaseError, match="nameplate feedback migrate"):
        FeedbackStore.open(database, create=False)


def test_a_failed_migration_leaves_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE feedback_corrections (of_another_program INTEGER)"))
    with pytest.raises(DatabaseError, match="already exists"):
        migrate(engine)
    with reading(engine) as connection:
        assert not inspect(connection).has_table("feedback_photos")


def test_servers_that_start_at_once_migrate_once(database: str) -> None:
    program = (
        "import sys\n"
        "from nameplate.serve.feedback.store import FeedbackStore\n"
        "print('here', flush=True); sys.stdin.readline()\n"
        "FeedbackStore.open(sys.argv[1]).close()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    servers = [
        subprocess.Popen([sys.executable, "-c", program, database], text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(4)
    ]
    for server in servers:
        server.stdout.readline()
    for server in servers:
        server.stdin.write("go\n")
        server.stdin.flush()
    ends = [(server.communicate()[1], server.returncode) for server in servers]
    assert ends == [("", 0)] * 4
    FeedbackStore.open(database, create=False).close()
