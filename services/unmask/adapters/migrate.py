"""Brings a database to this program's schema, by Alembic; all of it or nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from unmask.adapters.database import Database
from unmask.adapters.store_tables import SCHEMA_VERSION
from unmask.core.errors import BadConfig

_SCRIPTS: Final = Path(__file__).resolve().parent / "migrations"
# Any number, the same for all: two upgrades at once take turns.
_LOCK: Final = 0x756E6D61


def upgrade(database: Database) -> tuple[str | None, str]:
    """Runs what is missing in one transaction; returns the versions before and after.

    Raises `BadConfig` when Alembic is not installed or the database is newer than this program, else what `Database` raises.
    """
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise BadConfig(
            "the case store needs an upgrade by alembic, which is not installed: pip install 'unmask[service]'"
        ) from error
    before = database.version()
    if before is not None and before > SCHEMA_VERSION:
        raise BadConfig(f"the case store has schema version {before}, newer than this program's {SCHEMA_VERSION}")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    with database.transaction() as connection:
        if database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        if before == "0001" and not sa.inspect(connection).has_table("alembic_version"):
            command.stamp(config, "0001")
        command.upgrade(config, "head")
    return before, SCHEMA_VERSION
