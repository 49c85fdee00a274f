"""The tables of the store, for SQLite and Postgres alike; adapters/migrations brings an older database here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# The newest migration's name: what a database must be at.
SCHEMA_VERSION: Final = "0003"
# Only where Unmask itself made the key: a caller's may be too long for an index.
UNREAD: Final = "sha256 = '' AND source_kind = 'bytes' AND source_ref <> ''"
metadata = MetaData()

# Alembic's own table, so that a new database can be stamped without loading Alembic.
schema = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))


def _number() -> Column[int]:
    """Keeps the order in which rows came, also of those that share a microsecond."""
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _tenant(*, key: bool = False) -> Column[str]:
    return Column("tenant", String(255), primary_key=key, nullable=False)


# Times are whole microseconds since 1970 in UTC: exact, and the same on every database.
cases = Table(
    "cases",
    metadata,
    _tenant(key=True),
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
    Column("priority", String(8), nullable=False, server_default="live"),
    Column("batch", String(255), nullable=False, server_default=""),
    Column("label", String(16)),
    Column("action", String(16)),
    Column("truth", String(16), nullable=False, server_default=""),
    Column("reviewed", Boolean, nullable=False, server_default="0"),
    # When the sweeper may publish the case (again), and how often it has since the case moved.
    Column("hint_at", BigInteger, nullable=False, server_default="0"),
    Column("hints", Integer, nullable=False, server_default="0"),
    UniqueConstraint("tenant", "idempotency_key", name="cases_key"),
    Index("cases_hint", "state", "hint_at"),
    Index("cases_batch", "tenant", "batch", "state"),
    Index("cases_picture", "tenant", "sha256"),
    # Bytes that nobody has read yet, by their blob; `store_erase` names the same condition.
    Index("cases_unread", "tenant", "source_ref", sqlite_where=text(UNREAD), postgresql_where=text(UNREAD)),
    Index("cases_review", "tenant", "action", "reviewed", "id"),
)

pictures = Table(
    "pictures",
    metadata,
    _tenant(key=True),
    Column("sha256", String(64), primary_key=True),
    Column("blob_key", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("format", String(16), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("claims", JSON, nullable=False),
    Column("phash", String(64), nullable=False, server_default=""),
)

# Pictures found to be no photograph, a row for each band of the perceptual hash: near-duplicates share one.
known_fakes = Table(
    "known_fakes",
    metadata,
    _tenant(key=True),
    Column("band", String(8), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("phash", String(64), nullable=False),
    Index("known_fakes_picture", "tenant", "sha256"),
)

findings = Table(
    "findings",
    metadata,
    _tenant(key=True),
    Column("case_id", String(36), primary_key=True),
    Column("part", String(16), primary_key=True),
    Column("body", JSON, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    _number(),
    _tenant(),
    Column("sha256", String(64), nullable=False),
    Column("release", String(64), nullable=False),
    Column("policy", String(64), nullable=False),
    Column("body", JSON, nullable=False),
    UniqueConstraint("tenant", "sha256", "release", "policy", name="verdicts_key"),
)

decisions = Table(
    "decisions",
    metadata,
    _number(),
    _tenant(),
    Column("case_id", String(36), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("truth", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("generator", String(64), nullable=False, server_default=""),
    Index("decisions_case", "tenant", "case_id"),
)

outbox = Table(
    "outbox",
    metadata,
    _number(),
    Column("id", String(36), nullable=False, unique=True),
    _tenant(),
    Column("case_id", String(36), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("target", Text, nullable=False, server_default=""),
    Column("sequence", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", BigInteger, nullable=False, server_default="0"),
    Column("taken_by", JSON, nullable=False, server_default="[]"),
    Column("failure", JSON),
    Index("outbox_due", "state", "due_at"),
    Index("outbox_case", "tenant", "case_id", "number"),
)

# Submissions that no case could be made of, as they came.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", String(36), primary_key=True),
    # Empty where the message did not say, or could not prove, whose it is.
    _tenant(),
    Column("door", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("code", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    _tenant(key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("per_minute", Integer),
    Column("per_day", Integer),
    Column("keep_days", Integer),
    Column("keep_landmarks_days", Integer, nullable=False),
    Column("policy", String(64)),
    Column("discover", Boolean, nullable=False, server_default="0"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    _tenant(),
    Column("name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Index("tokens_tenant", "tenant"),
)

# Releases and policies are texts named by their sha256: immutable.
texts = Table(
    "texts",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

# Which release is `active`, `previous` and `shadow` (for which share of the cases), and which policy is the deployment's.
pointers = Table(
    "pointers",
    metadata,
    Column("role", String(16), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("share", Float, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    _tenant(key=True),
    # `minute` or `day`, and which one since 1970.
    Column("period", String(32), primary_key=True),
    Column("count", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    _number(),
    Column("at", BigInteger, nullable=False),
    _tenant(),
    Column("actor", String(255), nullable=False),
    Column("act", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)

shadow_scores = Table(
    "shadow_scores",
    metadata,
    _tenant(key=True),
    Column("case_id", String(36), primary_key=True),
    Column("release", String(64), primary_key=True),
    # What the case itself was judged by.
    Column("active", String(64), nullable=False),
    # `failed` where the shadow release broke on the case.
    Column("label", String(16), nullable=False),
    Column("score", Float),
    Column("active_label", String(16), nullable=False),
    Column("active_score", Float),
    Column("at", BigInteger, nullable=False),
)
