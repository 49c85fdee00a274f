"""What the SQL store does beyond the port: schema versions, broken files, several processes, a locked file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.samples import a_case, decided, moved
from unmask.adapters.database import Database
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import CaseUpdate, Stage
from unmask.core.errors import BadConfig, StoreCorrupt, Unavailable

_RACE = """
import sys
from dataclasses import replace
from tests.contract.samples import a_case, moved
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import CaseUpdate, Stage
store = SqlStore(sys.argv[1])
first = store.accept(a_case(id="00000000-0000-7000-8000-000000000000", idempotency_key="k"))
won = 0
for _ in range(40):
    case = store.case("default", first.id)
    won += store.commit(case, CaseUpdate(moved(case, Stage.ACCEPTED)))
print(won)
"""


def url(folder: Path) -> str:
    """A file in the folder."""
    return f"sqlite:///{folder / 'cases.sqlite3'}"


def test_another_schema_version_is_refused_by_number(tmp_path: Path) -> None:
    SqlStore(url(tmp_path)).close()
    with sqlite3.connect(tmp_path / "cases.sqlite3") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(BadConfig, match="version 9999, this program needs 0003: it was written by a newer Unmask"):
        SqlStore(url(tmp_path))


@pytest.mark.parametrize(
    ("url_", "why"),
    [("mysql://me:secret@host/db", "MySQLdb"), ("nosuch://me:secret@host/db", "nosuch"), ("me:secret@host", "parse")],
)
def test_another_kind_of_database_is_refused_without_telling_the_password(url_: str, why: str) -> None:
    with pytest.raises(BadConfig, match=why) as refused:
        SqlStore(url_)
    assert "secret" not in refused.value.detail


def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "cases.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreCorrupt, match="not a database"):
        SqlStore(url(tmp_path))


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="unable to open"):
        SqlStore(url(tmp_path / "none"))


def test_a_locked_file_is_unavailable_and_nothing_is_written(tmp_path: Path) -> None:
    store = SqlStore(Database(url(tmp_path), connect_args={"timeout": 0.05}))
    case = store.accept(a_case())
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    other = sqlite3.connect(tmp_path / "cases.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        store.commit(case, decided(case))
    other.execute("ROLLBACK")
    other.close()
    assert store.case("default", case.id) == case and store.commit(case, decided(case))
    store.close()


def test_a_decided_case_without_its_verdict_is_corrupt() -> None:
    store = SqlStore.in_memory()
    case = store.accept(a_case())
    update = decided(case)
    assert store.commit(case, CaseUpdate(update.case, decisions=update.decisions))
    with pytest.raises(StoreCorrupt, match="verdict is gone"):
        store.verdict_of("default", case.id)
    store.close()


def test_a_step_that_breaks_half_way_leaves_nothing() -> None:
    store = SqlStore.in_memory()
    case = store.accept(a_case())
    update = decided(case)
    assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=update.event))
    now = store.case("default", case.id)
    with pytest.raises(StoreCorrupt, match="UNIQUE"):  # the event's id is taken
        store.commit(now, CaseUpdate(moved(now, Stage.ALIGNED), update.picture, update.findings, event=update.event))
    assert store.case("default", case.id) == now and store.picture("default", "a" * 64) is None
    store.close()


def test_several_processes_open_one_new_file_at_once_and_race_fairly(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", _RACE, url(tmp_path)]
    paths = {"PYTHONPATH": f"{root}:{root / 'services'}"}
    runs = [subprocess.Popen(command, env=paths, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [int(run.communicate(timeout=60)[0]) for run in runs]
    store = SqlStore(url(tmp_path))
    assert store.case("default", "00000000-0000-7000-8000-000000000000").revision == sum(won) >= 40
    store.close()
