"""Tenants say whether their unexplained pictures may be looked through for new generators; none does so by default."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the column; tenants that are there have not agreed."""
    op.add_column("tenants", sa.Column("discover", sa.Boolean, nullable=False, server_default="0"))
