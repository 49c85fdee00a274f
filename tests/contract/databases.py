"""A fresh database of each kind, for adapters that share the tables of the case store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade

DATABASES = ("sqlite-memory", "sqlite-file", "postgres")


def a_database(kind: str, folder: Path, request: pytest.FixtureRequest) -> Database:
    """Opened; whoever asks closes it."""
    if kind == "sqlite-memory":
        return Database.in_memory()
    if kind == "sqlite-file":
        return Database(f"sqlite:///{folder / 'cases.sqlite3'}")
    url: str = request.getfixturevalue("database")
    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    return Database(url)
