"""The tables of the case store, for SQLite and Postgres alike."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

SCHEMA_VERSION: Final = 1
metadata = MetaData()

schema = Table("unmask_schema", metadata, Column("version", Integer, primary_key=True))

# Times are whole microseconds since 1970 in UTC: exact, and the same on every database.
cases = Table(
    "cases",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("id", String(36), primary_key=True),
    Column("idempotency_key", String(255)),
    Column("body_sha256", String(64), nullable=False),
    Column("source_kind", String(16), nullable=False),
    Column("source_ref", Text, nullable=False),
    Column("media", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("callback", Text, nullable=False),
    Column("release", String(64), nullable=False),
    Column("policy", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failure", JSON),
    Column("sha256", String(64), nullable=False),
    Column("timings_ms", JSON, nullable=False),
    UniqueConstraint("tenant", "idempotency_key"),
    Index("cases_due", "state", "due_at"),
)

pictures = Table(
    "pictures",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("blob_key", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("format", String(16), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("claims", JSON, nullable=False),
)

findings = Table(
    "findings",
    metadata,
    Column("tenant", String(255), primary_key=True),
    Column("case_id", String(36), primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("body", JSON, nullable=False),
)

# `number`, here and below, keeps the order in which rows came, also of those that share a microsecond.
verdicts = Table(
    "verdicts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("release", String(64), nullable=False),
    Column("policy", String(64), nullable=False),
    Column("body", JSON, nullable=False),
    UniqueConstraint("tenant", "sha256", "release", "policy"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(255), nullable=False),
    Column("case_id", String(36), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("truth", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("decisions_case", "tenant", "case_id"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("tenant", String(255), nullable=False),
    Column("case_id", String(36), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("sent", Integer, nullable=False, default=0),
    Index("outbox_unsent", "sent", "number"),
)
