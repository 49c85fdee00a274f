"""On Postgres: the last case of a picture expires while another case of it is just being ingested."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.databases import a_database
from tests.contract.samples import NOW, SHA, a_case, a_picture, decided, moved
from unmask.adapters import store_rows as rows
from unmask.adapters import store_statements as sql
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import Stage
from unmask.core.erasing import ErasureOrder, Subject


def test_a_picture_that_another_case_is_just_storing_stays(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with closing(a_database("postgres", tmp_path, request)) as database:
        store, eraser = SqlStore(database), SqlEraser(database)
        old, new = store.accept(a_case()), store.accept(a_case(source_kind="url", source_ref="https://example.org/a.png"))
        assert store.commit(old, decided(old))
        order = ErasureOrder("retention", "retention", NOW)
        retire = threading.Thread(target=lambda: eraser.erase(Subject("default", case_id=old.id), order))
        before = {"old_tenant": "default", "old_id": new.id, "old_stage": new.stage.value, "old_revision": 0}
        # What `commit` writes of the step `ingest`, held open while the other transaction runs into it.
        with database.transaction() as connection:
            connection.execute(sql.MOVE, before | rows.case_row(moved(new, Stage.INGESTED, sha256=SHA)))
            connection.execute(sql.Upserts("postgresql").picture, rows.picture_row(a_picture()))
            retire.start()
            retire.join(0.5)
        retire.join()
        assert store.picture("default", SHA) is not None
