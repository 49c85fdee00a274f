"""Databases of older releases: upgraded whole or not at all, with everything that was in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import alembic
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from unmask.adapters import migrate
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_tables import SCHEMA_VERSION, metadata
from unmask.core.domain import Label, Priority, Stage, State
from unmask.core.errors import BadConfig

# What the first release's `unmask check --state` left in its file: a case decided, one that took its verdict over, one
# failed, one open; as sqlite3's dump.
_FIRST = (Path(__file__).parent / "first_release.sql").read_text()
_DECIDED, _REUSED = "01a21e38-71a8-7162-b56a-474d91e0e4b7", "01a21e38-7209-74ea-8d43-127c6337022f"
_FAILED, _OPEN = "01a21e38-7206-7cd8-b43c-7aa16c4059cd", "01a21e38-7210-735f-a045-e601529e45e4"


def first_file(folder: Path) -> str:
    """The URL of a file of the first release."""
    with closing(sqlite3.connect(folder / "unmask.sqlite3")) as raw:
        raw.executescript(_FIRST)
    return f"sqlite:///{folder / 'unmask.sqlite3'}"


def first_on_postgres(url: str) -> str:
    """The same rows at the same version."""
    with closing(Database(url, check=False)) as database, database.transaction() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate._SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for line in _FIRST.splitlines():
            if line.startswith("INSERT") and "unmask_schema" not in line:
                connection.exec_driver_sql(line.replace("%", "%%"))
        for table in ("verdicts", "decisions", "outbox"):
            connection.exec_driver_sql(f"SELECT setval('{table}_number_seq', 100)")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of the first release, not upgraded yet."""
    url = first_file(tmp_path) if request.param == "sqlite" else first_on_postgres(request.getfixturevalue("database"))
    with closing(Database(url, check=False)) as database:
        yield database


def contents(database: Database) -> dict[str, Any]:
    """Every table's columns, indexes and rows."""
    with database.transaction() as connection:
        look, found = sa.inspect(connection), {}
        for name in sorted(look.get_table_names()):
            columns = [column["name"] for column in look.get_columns(name)]
            rows = connection.exec_driver_sql(f"SELECT * FROM {name}").all()
            found[name] = (columns, sorted(str(index["name"]) for index in look.get_indexes(name)), sorted(map(repr, rows)))
    return found


def differences(database: Database) -> list[Any]:
    """What Alembic would still change, to come to the tables that the program works with.

    The first release's files have their unique constraints without names, which Alembic does not see in SQLite.
    """
    with database.transaction() as connection:
        look = sa.inspect(connection)
        unique = {
            (table, *constraint["column_names"])
            for table in look.get_table_names()
            for constraint in look.get_unique_constraints(table)
        }
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
    return [
        one
        for one in found
        if one[0] != "add_constraint" or (one[1].table.name, *(column.name for column in one[1].columns)) not in unique
    ]


def check_all_is_there(store: SqlStore) -> None:
    """Of the four cases, and that they go on."""
    decided, reused = store.case("default", _DECIDED), store.case("default", _REUSED)
    assert (decided.state, decided.stage, decided.revision, decided.idempotency_key) == (
        State.DECIDED,
        Stage.DECIDED,
        5,
        "first",
    )
    assert decided.labels == {"uploader": "Zoë"} and decided.action == "review" and decided.priority is Priority.LIVE
    assert reused.state is State.DECIDED and reused.idempotency_key == ""
    for case in (decided, reused):
        verdict = store.verdict_of("default", case.id)
        assert verdict is not None and verdict.id == case.id and verdict.label is Label.SYNTHETIC
    failed = store.case("default", _FAILED)
    assert failed.state is State.FAILED and failed.failure is not None and failed.failure.code == "bad_image"
    faces = store.findings("default", _DECIDED).faces
    assert faces is not None and len(faces) == 1 and store.picture("default", decided.sha256) is not None
    now = datetime.now(UTC) + timedelta(days=400)
    assert [case.id for case in store.claim_due(now, 9, timedelta(minutes=1))] == [_OPEN]
    assert sorted(out.event.case_id for out in store.claim_events(now, 9, timedelta(minutes=1))) == [_DECIDED, _FAILED, _REUSED]


def test_a_file_of_the_first_release_is_upgraded_by_opening_it(tmp_path: Path) -> None:
    with closing(SqlStore(first_file(tmp_path))) as store:
        assert store.database.version() == SCHEMA_VERSION
        check_all_is_there(store)


def test_an_upgrade_keeps_everything(older: Database) -> None:
    assert upgrade(older) == ("0001", SCHEMA_VERSION)
    check_all_is_there(SqlStore(older))
    assert upgrade(older) == (SCHEMA_VERSION, SCHEMA_VERSION)


@pytest.mark.parametrize("breaks", ["create_index cases_review", "drop_column outbox", "create_table pointers", "execute DROP"])
def test_an_upgrade_that_breaks_half_way_leaves_the_old_version_and_a_second_one_completes(
    older: Database, breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, (operation, of) = contents(older), breaks.split()
    really = getattr(alembic.op, operation)

    def broken(what: str, *arguments: Any, **named: Any) -> Any:
        if str(what).startswith(of):
            raise OSError("the machine went away here")
        return really(what, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(alembic.op, operation, broken)
        with pytest.raises(OSError, match="went away here"):
            upgrade(older)
    assert older.version() == "0001" and contents(older) == before
    assert upgrade(older)[1] == SCHEMA_VERSION
    check_all_is_there(SqlStore(older))


def test_migrations_come_to_the_tables_that_the_program_works_with(older: Database) -> None:
    upgrade(older)
    assert differences(older) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_so_do_a_new_database_and_one_of_all_migrations(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite3'}" if kind == "sqlite" else request.getfixturevalue("database")
    with closing(Database(url, check=False)) as database:
        assert upgrade(database) == (None, SCHEMA_VERSION)
        assert differences(database) == []


def test_postgres_is_never_upgraded_by_itself(database: str) -> None:
    with pytest.raises(BadConfig, match="unmask db upgrade"):
        SqlStore(first_on_postgres(database))
