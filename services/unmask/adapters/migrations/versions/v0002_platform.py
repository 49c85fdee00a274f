"""The platform plane: lanes, batches, reviews, deliveries, dead letters, tenants, releases as rows, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Widens what is there, fills it from what is known, adds the new tables."""
    _widen_cases()
    _widen_outbox()
    op.add_column("pictures", sa.Column("phash", sa.String(64), nullable=False, server_default=""))
    op.add_column("decisions", sa.Column("generator", sa.String(64), nullable=False, server_default=""))
    _access()
    _records()
    op.execute("DROP TABLE IF EXISTS unmask_schema")


def _widen_cases() -> None:
    for column in (
        sa.Column("priority", sa.String(8), nullable=False, server_default="live"),
        sa.Column("batch", sa.String(255), nullable=False, server_default=""),
        sa.Column("label", sa.String(16)),
        sa.Column("action", sa.String(16)),
        sa.Column("truth", sa.String(16), nullable=False, server_default=""),
        sa.Column("reviewed", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("hint_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("hints", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column("cases", column)
    last = (
        "SELECT d.action FROM decisions d WHERE d.tenant = cases.tenant AND d.case_id = cases.id ORDER BY d.number DESC LIMIT 1"
    )
    op.execute(f"UPDATE cases SET hint_at = due_at, action = ({last})")
    op.drop_index("cases_due", "cases")
    op.create_index("cases_hint", "cases", ["state", "hint_at"])
    op.create_index("cases_batch", "cases", ["tenant", "batch", "state"])
    op.create_index("cases_picture", "cases", ["tenant", "sha256"])
    op.create_index("cases_review", "cases", ["tenant", "action", "reviewed", "id"])
    unread = sa.text("sha256 = '' AND source_kind = 'bytes' AND source_ref <> ''")
    op.create_index("cases_unread", "cases", ["tenant", "source_ref"], sqlite_where=unread, postgresql_where=unread)


def _widen_outbox() -> None:
    for column in (
        sa.Column("target", sa.Text, nullable=False, server_default=""),
        sa.Column("sequence", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.String(16), nullable=False, server_default="pending"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("taken_by", sa.JSON, nullable=False, server_default="[]"),
        sa.Column("failure", sa.JSON),
    ):
        op.add_column("outbox", column)
    op.execute("UPDATE outbox SET due_at = at")
    op.execute("UPDATE outbox SET state = 'sent' WHERE sent = 1")
    op.drop_index("outbox_unsent", "outbox")
    op.drop_column("outbox", "sent")
    op.create_index("outbox_due", "outbox", ["state", "due_at"])
    op.create_index("outbox_case", "outbox", ["tenant", "case_id", "number"])


def _tenant(*, key: bool = False) -> sa.Column[str]:
    return sa.Column("tenant", sa.String(255), primary_key=key, nullable=False)


def _access() -> None:
    op.create_table(
        "tenants",
        _tenant(key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("per_minute", sa.Integer),
        sa.Column("per_day", sa.Integer),
        sa.Column("keep_days", sa.Integer),
        sa.Column("keep_landmarks_days", sa.Integer, nullable=False),
        sa.Column("policy", sa.String(64)),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        _tenant(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Index("tokens_tenant", "tenant"),
    )
    op.create_table(
        "usage",
        _tenant(key=True),
        sa.Column("period", sa.String(32), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        _tenant(),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("act", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )


def _records() -> None:
    op.create_table(
        "known_fakes",
        _tenant(key=True),
        sa.Column("band", sa.String(8), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("phash", sa.String(64), nullable=False),
        sa.Index("known_fakes_picture", "tenant", "sha256"),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.String(36), primary_key=True),
        _tenant(),
        sa.Column("door", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "texts",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "pointers",
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "shadow_scores",
        _tenant(key=True),
        sa.Column("case_id", sa.String(36), primary_key=True),
        sa.Column("release", sa.String(64), primary_key=True),
        sa.Column("active", sa.String(64), nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("active_label", sa.String(16), nullable=False),
        sa.Column("active_score", sa.Float),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
