"""The first release's tables, as its SQLite files have them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them in an empty database."""
    _pipeline()
    _records()


def _pipeline() -> None:
    op.create_table(
        "cases",
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("source_kind", sa.String(16), nullable=False),
        sa.Column("source_ref", sa.Text, nullable=False),
        sa.Column("media", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("callback", sa.Text, nullable=False),
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failure", sa.JSON),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("timings_ms", sa.JSON, nullable=False),
        sa.UniqueConstraint("tenant", "idempotency_key", name="cases_key"),
        sa.Index("cases_due", "state", "due_at"),
    )
    op.create_table(
        "pictures",
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("blob_key", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("claims", sa.JSON, nullable=False),
    )
    op.create_table(
        "findings",
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("case_id", sa.String(36), primary_key=True),
        sa.Column("part", sa.String(16), primary_key=True),
        sa.Column("body", sa.JSON, nullable=False),
    )


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True)


def _records() -> None:
    op.create_table(
        "verdicts",
        _number(),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("release", sa.String(64), nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.UniqueConstraint("tenant", "sha256", "release", "policy", name="verdicts_key"),
    )
    op.create_table(
        "decisions",
        _number(),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("case_id", sa.String(36), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("truth", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Index("decisions_case", "tenant", "case_id"),
    )
    op.create_table(
        "outbox",
        _number(),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("case_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.Integer, nullable=False),
        sa.Index("outbox_unsent", "sent", "number"),
    )
