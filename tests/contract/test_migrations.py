"""The migrations give the very schema that the code was written for, on either database."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.store_tables import SCHEMA_VERSION, metadata


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_migrations_and_tables_agree(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite3'}" if kind == "sqlite" else request.getfixturevalue("database")
    database = Database(url, check=False)
    try:
        assert upgrade(database) == (None, SCHEMA_VERSION)
        with database.engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), metadata)
    finally:
        database.close()
    assert found == []
