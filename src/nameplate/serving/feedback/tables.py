"""The two tables: photos, each once, and what users said of them.

They are as the newest step in migrations/ leaves them; a test holds the two against each other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
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
)

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
