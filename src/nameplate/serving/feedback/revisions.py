"""Brings a database to the tables as they are now, one step of migrations/ after the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from nameplate.errors import DatabaseError
from nameplate.serving.feedback.database import reading, shown, writing
from nameplate.serving.feedback.tables import METADATA

VERSION_TABLE = "feedback_revision"
"""Where a database says how far it is; Alembic's own name for it may be taken by another program."""
FOLDER = Path(__file__).parent / "migrations"
_ONE_THREAD = threading.Lock()
"""Alembic keeps the migration that is under way in a global."""


def migrate(engine: Engine, revision: str = "head") -> list[str]:
    """Take the steps that a database has not taken, all or none; servers that start at once do it one by one.

    Returns:
        The steps taken.

    Raises:
        DatabaseError: made by a newer Nameplate, or anything that goes wrong with it.
    """
    script = ScriptDirectory(FOLDER)
    with _ONE_THREAD, writing(engine) as connection:
        before = _revision(connection, script)
        steps = script.iterate_revisions(revision, before or "base", inclusive=False)
        taken = [step.revision for step in steps if step.revision != before][::-1]
        if taken:
            _upgrade(connection, script, revision)
        return taken


def require_newest(engine: Engine) -> None:
    """Look whether all steps were taken.

    Raises:
        DatabaseError: they were not, or the database was made by a newer Nameplate.
    """
    script = ScriptDirectory(FOLDER)
    with reading(engine) as connection:
        if _revision(connection, script) != script.get_current_head():
            raise DatabaseError(
                f"The database {shown(engine.url)} is not of this version. Run 'nameplate feedback migrate' on it."
            )


def _revision(connection: Connection, script: ScriptDirectory) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revision = context.get_current_revision()
    if revision is not None and revision not in {step.revision for step in script.walk_revisions()}:
        raise DatabaseError(
            f"The database {shown(connection.engine.url)} is of revision {revision}, which a newer Nameplate made: "
            "pip install --upgrade nameplate."
        )
    return revision


def _upgrade(connection: Connection, script: ScriptDirectory, target: str) -> None:
    """Alembic's `upgrade` on a connection whose transaction is ours."""

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(target, revision)  # what alembic.command.upgrade itself calls

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=target) as environment:
        environment.configure(connection=connection, target_metadata=METADATA, version_table=VERSION_TABLE)
        environment.run_migrations()
