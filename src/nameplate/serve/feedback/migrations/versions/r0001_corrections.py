"""The first version of the tables: photos and corrections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.create_table(
        "feedback_photos",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("format", sa.String(8), nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_feedback_photos")),
    )
    op.create_table(
        "feedback_corrections",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("nameplate", sa.String(200), nullable=False),
        sa.Column("client", sa.String(200), nullable=False),
        sa.Column("predicted", sa.String(200)),
        sa.Column("confidence", sa.Float),
        sa.Column("verdict", sa.String(16)),
        sa.Column("model", sa.String(200)),
        sa.Column("digest", sa.String(64)),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback_corrections")),
        sa.ForeignKeyConstraint(["sha256"], ["feedback_photos.sha256"], name=op.f("fk_feedback_corrections_sha256")),
        sa.CheckConstraint("status IN ('new', 'accepted', 'rejected')", name=op.f("ck_feedback_corrections_status")),
        sa.UniqueConstraint("sha256", "client", "nameplate", name=op.f("uq_feedback_corrections_sha256")),
    )
    op.create_index(op.f("ix_feedback_corrections_time"), "feedback_corrections", ["time"])
    op.create_index(op.f("ix_feedback_corrections_client"), "feedback_corrections", ["client"])
