"""`unmask db …`: the schema of the database."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `db upgrade|version`."""
    parser = subparsers.add_parser("db", help="bring the database to this program's schema", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, run, what in (
        ("upgrade", _upgrade, "run the migrations that are missing, all of them or none"),
        ("version", _version, "print the schema's version and the one this program needs"),
    ):
        verb = verbs.add_parser(name, help=what, description=f"{what}; the database is the one that UNMASK_DATABASE names")
        verb.set_defaults(run=run)


def _database() -> Any:
    from unmask.adapters.database import Database
    from unmask.core.errors import BadConfig
    from unmask.settings import Settings

    settings = Settings.from_environment()
    if not settings.database:
        raise BadConfig("db: say which database, e.g. UNMASK_DATABASE=postgresql://user:password@host/unmask")
    return Database(settings.database, check=False)


def _upgrade(args: argparse.Namespace) -> int:
    from unmask.adapters.migrate import upgrade

    before, after = upgrade(_database())
    print(f"schema {after}: as it should be" if before == after else f"schema {before or 'none'} -> {after}")
    return 0


def _version(args: argparse.Namespace) -> int:
    from unmask.adapters.store_tables import SCHEMA_VERSION

    print(f"schema {_database().version() or 'none'}, needed {SCHEMA_VERSION}")
    return 0
