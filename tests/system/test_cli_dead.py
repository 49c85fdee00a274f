"""`unmask dead` as a shell runs it, over a folder and over Postgres."""

from __future__ import annotations

import base64
import json
import os
import pwd
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.databases import a_database
from tests.contract.samples import a_case, an_event, moved
from tests.system.command import Ran, run
from tests.system.tiny_models import face_picture
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_dead import SqlDead
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import Tenant
from unmask.core.dead import Letter
from unmask.core.domain import CaseUpdate, EventState, Failure, Priority, Stage, State, Step
from unmask.core.ids import new_case_id

if TYPE_CHECKING:
    from unmask_dev.valkey import Valkey

ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
NOW = datetime.now(UTC)
WHY = Failure("unavailable", "triton: \x1b[31mno answer")


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment that says which database, with a folder for pictures."""
    state = tmp_path / "state"
    state.mkdir()
    if request.param == "sqlite":
        Database(f"sqlite:///{state / 'unmask.sqlite3'}").close()
        return {"UNMASK_STATE": str(state)}
    with closing(a_database("postgres", tmp_path, request)) as database:
        url = database.engine.url.render_as_string(hide_password=False)
    return {"UNMASK_STATE": str(state), "UNMASK_DATABASE": url}


def asked(where: dict[str, str], *words: str | Path) -> Ran:
    """What the command says in that environment."""
    return run(*words, **where)  # type: ignore[arg-type]


@contextmanager
def opened(where: dict[str, str]) -> Iterator[Database]:
    """The database that the command works on."""
    with closing(Database(where.get("UNMASK_DATABASE") or f"sqlite:///{where['UNMASK_STATE']}/unmask.sqlite3")) as database:
        yield database


def fill(database: Database, tenant: str = "acme") -> dict[str, str]:
    """Something dead of each kind; ids by kind."""
    store, dead = SqlStore(database), SqlDead(database)
    case = store.accept(
        a_case(tenant, state=State.DEAD, stage=Stage.INGESTED, failure=WHY, due_at=NOW, priority=Priority.BATCH)
    )
    about = store.accept(a_case(tenant, due_at=NOW + timedelta(days=1)))
    event = replace(an_event(about, '{"label": "späť"}'), id=new_case_id(NOW))
    assert store.commit(about, CaseUpdate(moved(about, Stage.INGESTED), event=event))
    store.settle_event(event.id, EventState.DEAD, attempts=9, due_at=NOW, failure=Failure("unavailable", "500"))
    letter = Letter(new_case_id(NOW), "", "unmask.submissions", b"\xff{", "bad_field", "the message is not JSON", NOW)
    dead.bury(letter)
    return {"case": case.id, "event": event.id, "letter": letter.id}


def test_from_a_list_to_nothing_dead(where: dict[str, str]) -> None:
    with opened(where) as database:
        made = fill(database)
    listed = asked(where, "dead", "list", "--json").lines
    assert {item["kind"]: item["id"] for item in listed} == made
    assert listed[[item["kind"] for item in listed].index("case")]["detail"] == WHY.detail
    table = asked(where, "dead", "list")
    assert table.code == 0 and b"\x1b" not in table.out and all(made_id.encode() in table.out for made_id in made.values())
    assert [item["kind"] for item in asked(where, "dead", "list", "--json", "--code", "bad_field").lines] == ["letter"]
    assert not asked(where, "dead", "list", "--json", "--tenant", "other").lines
    few = asked(where, "dead", "list", "--json", "--limit", "1")
    assert len(few.lines) == 1 and "--limit" in few.complaint
    shown = {kind: asked(where, "dead", "show", made_id, "--json").lines[0] for kind, made_id in made.items()}
    assert shown["case"]["labels"]["uploader"] == "Zoë 🦊" and shown["event"]["body"] == '{"label": "späť"}'
    assert base64.b64decode(shown["letter"]["body_base64"]) == b"\xff{"
    requeued = asked(where, "dead", "requeue", made["case"], made["event"])
    assert requeued.out.decode().splitlines() == [
        f"{made['case']}: open again; the sweeper publishes it",
        f"{made['event']}: pending again; the relay delivers it",
    ]
    assert asked(where, "dead", "drop", "--all", "--kind", "letter", "--json").lines == [
        {"kind": "letter", "id": made["letter"], "outcome": "dropped"}
    ]
    assert asked(where, "dead", "list", "--json").out == b""
    with opened(where) as database:
        case = SqlStore(database).case("acme", made["case"])
        acts = [(entry.actor, entry.act, entry.subject) for entry in SqlAccess(database).audited(None, 9)]
    assert (case.state, case.attempts, case.failure) == (State.OPEN, 0, None)
    assert acts == [
        (ME, "dead.drop", f"letter {made['letter']}"),
        (ME, "dead.requeue", f"event {made['event']}"),
        (ME, "dead.requeue", f"case {made['case']}"),
    ]


def test_of_many_one_that_is_refused_holds_up_no_other(where: dict[str, str]) -> None:
    with opened(where) as database:
        made = fill(database)
    ran = asked(where, "dead", "drop", "nobody", made["case"])
    assert ran.code == 1 and "nobody" in ran.complaint and ran.out.decode() == f"{made['case']}: dropped\n"
    with opened(where) as database:
        failure = SqlStore(database).case("acme", made["case"]).failure
    assert failure == Failure(WHY.code, f"{WHY.detail} (dropped by {ME})")


def test_a_letter_goes_through_the_door_again(where: dict[str, str], tiny: Path) -> None:
    body = {"base64": base64.b64encode(face_picture(red=10, blue=210)).decode(), "labels": {"from": "letter"}}
    letters = [
        # Ids of one moment have no order among themselves.
        Letter(new_case_id(at := NOW + timedelta(seconds=number)), tenant, "unmask.submissions", raw, "quota", "too many", at)
        for number, (tenant, raw) in enumerate(
            (tenant, json.dumps(body | more).encode()) for tenant, more in (("acme", {}), ("", {}), ("acme", {"colour": "red"}))
        )
    ]
    with opened(where) as database:
        SqlAccess(database).put_tenant(Tenant("acme", NOW))
        for letter in letters:
            SqlDead(database).bury(letter)
    ran = asked(where, "dead", "requeue", "--all", "--models", tiny)
    assert ran.code == 1 and ran.out.decode() == f"{letters[0].id}: accepted\n"
    complaints = [line for line in ran.err.splitlines() if line.startswith("unmask: ")]
    assert letters[1].id in complaints[0] and "no tenant" in complaints[0] and "'colour'" in complaints[1]
    assert {item["id"] for item in asked(where, "dead", "list", "--json").lines} == {letters[1].id, letters[2].id}
    with opened(where) as database:
        (case,) = SqlStore(database).claim_due(datetime.now(UTC) + timedelta(hours=1), 9, timedelta(minutes=1))
    assert (case.tenant, dict(case.labels), case.state) == ("acme", {"from": "letter"}, State.OPEN)


def test_with_a_broker_a_case_is_published(database: str, valkey: Valkey, valkey_url: str, tmp_path: Path) -> None:
    from unmask.adapters.celery_app import queue_name
    from unmask.adapters.migrate import upgrade

    with closing(Database(database, check=False)) as empty:
        upgrade(empty)
    where = {"UNMASK_DATABASE": database, "UNMASK_STATE": str(tmp_path)}
    with opened(where) as tables:
        made = fill(tables)
    ran = asked(where | {"UNMASK_BROKER": valkey_url}, "dead", "requeue", made["case"])
    assert ran.out.decode() == f"{made['case']}: open again, and published\n", ran.err
    with valkey.connect() as client:
        assert client.llen(queue_name(Step.ALIGN, Priority.BATCH)) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("list",), "say where cases are kept"),
        (("list", "--state", "nowhere"), "no store is there"),
        (("requeue", "--state", "STATE"), "name ids, or --all"),
        (("drop", "--all", "x", "--state", "STATE"), "name ids, or --all"),
        (("show", "x", "--state", "STATE"), "nothing dead has the id 'x'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path / 'unmask.sqlite3'}").close()
    ran = run("dead", *(str(tmp_path) if word == "STATE" else word for word in words))
    assert ran.code in {1, 2} and why in ran.complaint and not ran.out
