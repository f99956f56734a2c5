"""The database of corrections: its tables, and how SQLite and PostgreSQL are opened, read, written and migrated.

The tables here are as the newest step in migrations/ leaves them; a test compares the two.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
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
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from nameplate.errors import DatabaseError, RuntimeUnavailableError, UsageError

Status = Literal["new", "accepted", "rejected"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite stores no time zone, so it is added when a value is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert a value for the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert a value from the database."""
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
# `bytes` is the last column: SQLite reads rows from their beginning, and most queries do not need the photo.
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
"""How long a connection waits for another one's lock, and how long a statement may take."""
CONNECT_SECONDS = 10
FILE = "file"
"""The key under which a connection to SQLite remembers device and inode of its file."""
LOCK = 0x6E616D65706C6174
"""Key of PostgreSQL's advisory lock, which one writer at a time holds: the letters `nameplat` in ASCII."""


def open_engine(database: str, *, create: bool) -> Engine:
    """Make an engine for a database; it does not connect yet.

    Args:
        database: the path of a SQLite file, or a URL: `sqlite:///…`, `postgresql://…`.
        create: whether to create a SQLite file that does not exist.

    Raises:
        UsageError: `database` is neither, or a SQLite database in memory.
        DatabaseError: the file does not exist, or cannot be created.
        RuntimeUnavailableError: PostgreSQL's driver is not installed.
    """
    url = _url(database)
    if url.get_backend_name() == "sqlite":
        _require_file(Path(url.database or ""), create)
        engine = create_engine(url, hide_parameters=True, creator=partial(_connect_sqlite, Path(url.database or "")))
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "checkout", partial(_same_file, Path(url.database or "")))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=_postgres_arguments(url))
    except ImportError:  # also where psycopg finds no libpq
        raise RuntimeUnavailableError(
            "PostgreSQL needs psycopg, which is not installed: pip install 'nameplate[postgres]'."
        ) from None


def shown(url: URL) -> str:
    """Return a database's URL without its password, which may stand before the host or in a parameter."""
    hidden = {name: "***" if "pass" in name else value for name, value in url.query.items()}
    return url.set(query=hidden).render_as_string(hide_password=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a connection for reading, which sees one state of the database until the block ends.

    Raises:
        DatabaseError: the database fails.
    """
    with _as_database_error(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a connection for writing, as the only writer. The block's changes are committed together or not at all.

    Raises:
        DatabaseError: the database fails.
    """
    with _as_database_error(engine), engine.connect() as connection:
        connection = connection.execution_options(immediate=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            yield connection


@contextmanager
def _as_database_error(engine: Engine) -> Iterator[None]:
    """Turn SQLAlchemy's errors into a `DatabaseError`, without the SQL and the password."""
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
    except (ArgumentError, ValueError):  # their text is not shown: it may hold a password
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
    """Check that a SQLite file exists, or create it readable by its owner only: it will hold users' photos."""
    if create and not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # does not fail if another server has just created it
        except OSError as error:
            raise DatabaseError(f"Cannot create the database '{path}': {error.strerror or error}.") from None
    if not path.is_file():
        raise DatabaseError(f"There is no database '{path}'. 'nameplate serve --feedback {path}' makes one.")


def _postgres_arguments(url: URL) -> dict[str, Any]:
    """Return connection parameters for PostgreSQL; those in the operator's URL take precedence."""
    milliseconds = BUSY_SECONDS * 1000
    options = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    ours = {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "nameplate"}
    return {name: value for name, value in ours.items() if name not in url.query}


def _connect_sqlite(path: Path) -> sqlite3.Connection:
    """Open a SQLite file. It must exist: SQLite would make an empty one, and nobody would notice."""
    place = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(place, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


def _same_file(path: Path, _: object, record: ConnectionPoolEntry, __: object) -> None:
    """Check that an open connection's file is still the one at `path`.

    SQLite goes on with a file that was deleted, and all that is written is lost when it is closed.

    Raises:
        DatabaseError: there is no file any more.
        DisconnectionError: there is another one, which SQLAlchemy then connects to.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DatabaseError(f"The database '{path}' is gone: {error.strerror or error}. Restore it.") from None
    if record.info.setdefault(FILE, (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
        raise DisconnectionError


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """Set up a new SQLite connection. Sources: sqlite.org/wal.html, sqlite.org/pragma.html."""
    connection.isolation_level = None  # Python's module must not send BEGIN: `_begin_sqlite` does
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")  # deleted photos are overwritten
        _write_ahead(cursor)


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Switch to the write-ahead log, in which readers and the writer do not wait for each other.

    SQLite's busy timeout does not hold for the switch itself, so this loop waits.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        with suppress(sqlite3.OperationalError):
            if cursor.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",):  # also if it was on already
                return
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked")
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction. A writer takes its lock at once: SQLite may refuse without waiting to give one later."""
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


# Migrations.

VERSION_TABLE = "feedback_revision"
"""The table with the database's revision. Alembic's default name could be taken by another program."""
FOLDER = Path(__file__).parent / "migrations"
_ONE_THREAD = threading.Lock()
"""Held during a migration, because Alembic keeps the current one in a global variable."""


def migrate(engine: Engine, revision: str = "head") -> list[str]:
    """Run the steps that a database lacks, in one transaction. Servers that start at once do so one after the other.

    Returns:
        The revisions of the steps that were run.

    Raises:
        DatabaseError: the database was made by a newer Nameplate, or fails.
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
    """Check that a database is at the newest revision.

    Raises:
        DatabaseError: it is not, or it was made by a newer Nameplate.
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
    """Run Alembic's `upgrade` inside the transaction of this connection."""

    def steps(revision: Any, _: MigrationContext) -> Any:
        return script._upgrade_revs(target, revision)  # as alembic.command.upgrade does

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=target) as environment:
        environment.configure(connection=connection, target_metadata=METADATA, version_table=VERSION_TABLE)
        environment.run_migrations()
