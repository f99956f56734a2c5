"""SQLite or PostgreSQL: how each is opened, read and written, and its errors in words."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nameplate.errors import DatabaseError, RuntimeUnavailableError, UsageError

# JOINED The two tables: photos, each once, and what users said of them.
#
# JOINED They are as the newest step in migrations/ leaves them; a test holds the two against each other.


Status = Literal["new", "accepted", "rejected"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Into the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Out of the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)
# `bytes` comes last: SQLite reads a row from its beginning, and most questions are not about the pixels.
photos = Table(
    "feedback_photos",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", String(8), nullable=False),
    Column("bytes", LargeBinary, nullable=False),
)
corrections = Table(
    "feedback_corrections",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("time", Instant, nullable=False),
    Column("sha256", String(64), ForeignKey("feedback_photos.sha256"), nullable=False),
    Column("nameplate", String(200), nullable=False),
    Column("client", String(200), nullable=False),
    Column("predicted", String(200)),
    Column("confidence", Float),
    Column("verdict", String(16)),
    Column("model", String(200)),
    Column("digest", String(64)),
    Column("comment", Text, nullable=False),
    Column("status", String(8), nullable=False),
    CheckConstraint("status IN ('new', 'accepted', 'rejected')", name="status"),
    UniqueConstraint("sha256", "client", "nameplate"),
    Index(None, "time"),
    Index(None, "client"),
)


BUSY_SECONDS = 30
"""How long a connection waits for another one's lock, and a statement may take."""
CONNECT_SECONDS = 10
LOCK = 0x6E616D65706C6174
"""PostgreSQL's advisory lock that writers hold, one at a time: the letters `nameplat`."""


def open_engine(database: str, *, create: bool) -> Engine:
    """Make ready to talk to a database; nothing is asked of it yet.

    Args:
        database: the path of a SQLite file, or a URL: `sqlite:///…`, `postgresql://…`.
        create: whether a SQLite file that is not there is made.

    Raises:
        UsageError: neither, or a SQLite database in memory.
        DatabaseError: no such file, or none can be made there.
        RuntimeUnavailableError: PostgreSQL's driver is not installed.
    """
    url = _url(database)
    if url.get_backend_name() == "sqlite":
        _require_file(Path(url.database or ""), create)
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=_postgres_arguments(url))
    except ImportError:  # also where psycopg finds no libpq
        raise RuntimeUnavailableError(
            "PostgreSQL needs psycopg, which is not installed: pip install 'nameplate[postgres]'."
        ) from None


def shown(url: URL) -> str:
    """A database's URL without its password, in its host's part or as a parameter."""
    hidden = {name: "***" if "pass" in name else value for name, value in url.query.items()}
    return url.set(query=hidden).render_as_string(hide_password=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one state of the database however long it reads.

    Raises:
        DatabaseError: anything that goes wrong with it.
    """
    with _in_words(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A connection that writes while no other does, all of it or nothing.

    Raises:
        DatabaseError: anything that goes wrong with it.
    """
    with _in_words(engine), engine.connect() as connection:
        connection = connection.execution_options(immediate=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            yield connection


@contextmanager
def _in_words(engine: Engine) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        said = " ".join(str(cause).split()) or type(cause).__name__
        raise DatabaseError(f"The database {shown(engine.url)} fails: {said}.") from None


def _url(database: str) -> URL:
    if "://" not in database:
        return URL.create("sqlite", database=database)
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):  # its text is not repeated: it may hold a password
        raise UsageError("This is no URL of a database; PostgreSQL's is postgresql://USER@HOST/NAME.") from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise UsageError(
            f"Corrections are kept in SQLite (a path) or PostgreSQL (postgresql://…), not in '{url.drivername}'."
        )
    if url.database in (None, "", ":memory:") or url.query:
        raise UsageError("Corrections need a SQLite file: give its path.")
    return url


def _require_file(path: Path, create: bool) -> None:
    """A file of one's own: others on the machine need not read users' photos."""
    if create and not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # another server may have made it a moment ago
        except OSError as error:
            raise DatabaseError(f"Cannot make the database '{path}': {error.strerror or error}.") from None
    if not path.is_file():
        raise DatabaseError(f"There is no database '{path}'. 'nameplate serve --feedback {path}' makes one.")


def _postgres_arguments(url: URL) -> dict[str, Any]:
    """The operator's own parameters win."""
    milliseconds = BUSY_SECONDS * 1000
    options = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    ours = {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "nameplate"}
    return {name: value for name, value in ours.items() if name not in url.query}


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """Source: sqlite.org/wal.html, sqlite.org/pragma.html."""
    connection.isolation_level = None  # BEGIN is ours to say: see below
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # what a user has deleted is overwritten
        _write_ahead(cursor)


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Readers and the writer do not wait for each other; the change of mode itself does not wait as other locks do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        with suppress(sqlite3.OperationalError):
            if cursor.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",):  # or is so already
                return
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked")
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: one that reads first and then writes may be refused without waiting."""
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


# JOINED Brings a database to the tables as they are now, one step of migrations/ after the other.


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
