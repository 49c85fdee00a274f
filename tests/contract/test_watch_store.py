"""What every WatchStore promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import DATABASES, a_database
from tests.contract.samples import NOW, a_case, a_decision, a_picture, a_verdict, an_event, decided
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_dead import SqlDead
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_watch import SqlWatch
from unmask.core.access import AuditEntry, Tenant
from unmask.core.dead import DeadKind, Letter
from unmask.core.domain import Action, CaseUpdate, Decision, EventState, Failure, Label, Priority, Stage, State
from unmask.core.ids import new_case_id
from unmask.core.watching import DONE, Backlog


@dataclass
class Rows:
    """The stores over one database."""

    database: Database

    def __post_init__(self) -> None:
        self.store, self.watch = SqlStore(self.database), SqlWatch(self.database)
        self.access, self.dead = SqlAccess(self.database), SqlDead(self.database)

    def tenant(self, name: str, day: int = 0) -> None:
        self.access.put_tenant(Tenant(name, NOW + timedelta(days=day)))

    def reviewed(self, label: Label, truth: str, tenant: str = "default", days: int = 0, action: Action = Action.BLOCK) -> None:
        at = NOW - timedelta(days=days)
        case = self.store.accept(a_case(tenant, id=new_case_id(at), created_at=at))
        sha256 = case.id.replace("-", "").ljust(64, "0")
        row = replace(
            case, stage=Stage.DECIDED, state=State.DECIDED, revision=1, sha256=sha256, label=label, action=Action.REVIEW
        )
        picture = a_picture(tenant, sha256=sha256, blob_key=f"{tenant}/pictures/{sha256}")
        verdict = a_verdict(case, sha256=sha256, label=label)
        assert self.store.commit(case, CaseUpdate(row, picture, None, verdict, (a_decision(row),), an_event(row)))
        said = Decision(case.id, tenant, "reviewer:z", action, "confirmed", truth, "", NOW)
        waits = action is Action.REVIEW
        again = replace(row, revision=2, action=action, truth=truth, reviewed=not waits)
        assert self.store.commit(row, CaseUpdate(again, decisions=(said,)))

    def audit(self, act: str, at: Any = NOW, **detail: Any) -> None:
        self.access.audit(AuditEntry(at, "default", "cli:z", act, "", detail))


@pytest.fixture(params=DATABASES)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rows]:
    """Fresh ones."""
    with closing(a_database(request.param, tmp_path, request)) as database:
        yield Rows(database)


def test_an_empty_store_has_nothing_to_tell(rows: Rows) -> None:
    assert rows.watch.waiting() == [] and rows.watch.outgoing() == Backlog(0)
    assert rows.watch.dead() == dict.fromkeys(DeadKind, 0)
    assert rows.watch.reviewed(NOW) == [] and rows.watch.discovery() is None and rows.watch.first_tenants(5) == []


def test_open_cases_are_counted_by_stage_and_lane_with_the_oldest(rows: Rows) -> None:
    for minutes, lane in ((5, Priority.LIVE), (9, Priority.LIVE), (50, Priority.BATCH)):
        rows.store.accept(a_case("acme", created_at=NOW - timedelta(minutes=minutes), priority=lane))
    done = rows.store.accept(a_case("other", created_at=NOW - timedelta(days=9)))
    assert rows.store.commit(done, decided(done))
    told = {(one.stage, one.lane): one.backlog for one in rows.watch.waiting()}
    assert told == {
        (Stage.ACCEPTED, Priority.LIVE): Backlog(2, NOW - timedelta(minutes=9)),
        (Stage.ACCEPTED, Priority.BATCH): Backlog(1, NOW - timedelta(minutes=50)),
    }


def test_events_wait_until_they_are_sent_and_the_dead_are_counted_by_kind(rows: Rows) -> None:
    cases = [rows.store.accept(a_case()) for _ in range(3)]
    for number, case in enumerate(cases):
        row = replace(case, revision=1, state=State.DEAD, failure=Failure("internal", "x"))
        assert rows.store.commit(case, CaseUpdate(row, event=replace(an_event(row), at=NOW + timedelta(seconds=number))))
    assert rows.watch.outgoing() == Backlog(3, NOW)
    events = rows.store.outbox(10)
    rows.store.settle_event(events[0].id, EventState.SENT, attempts=1, due_at=NOW)
    rows.store.settle_event(events[1].id, EventState.DEAD, attempts=8, due_at=NOW, failure=Failure("gone", "410"))
    rows.dead.bury(Letter(new_case_id(NOW), "", "json", b"x", "bad_field", "not JSON", NOW))
    assert rows.watch.outgoing() == Backlog(1, NOW + timedelta(seconds=2))
    assert rows.watch.dead() == {DeadKind.CASE: 3, DeadKind.EVENT: 1, DeadKind.LETTER: 1}


def test_reviews_are_counted_by_label_and_truth_over_all_tenants_since_a_day(rows: Rows) -> None:
    for tenant in ("acme", "other"):
        rows.tenant(tenant)
    rows.reviewed(Label.SYNTHETIC, "synthetic", "acme")
    rows.reviewed(Label.SYNTHETIC, "synthetic", "other", action=Action.ALLOW)
    rows.reviewed(Label.SYNTHETIC, "real", "other", action=Action.ALLOW)
    rows.reviewed(Label.REAL, "synthetic", "acme", days=40)
    # Sent back: somebody else is still to look.
    rows.reviewed(Label.SYNTHETIC, "real", "acme", action=Action.REVIEW)
    found = {(one.label, one.truth): one.cases for one in rows.watch.reviewed(NOW - timedelta(days=30))}
    assert found == {(Label.SYNTHETIC, "synthetic"): 2, (Label.SYNTHETIC, "real"): 1}
    assert len(rows.watch.reviewed(NOW - timedelta(days=50))) == 3


def test_the_last_discovery_is_told_and_an_older_log_without_a_size_is_none(rows: Rows) -> None:
    rows.audit(DONE, pictures=9, clusters=1)
    assert rows.watch.discovery() is None
    rows.audit(DONE, largest=31)
    rows.audit("review.decide", NOW + timedelta(days=1))
    rows.audit(DONE, NOW + timedelta(hours=1), largest=4)
    found = rows.watch.discovery()
    assert found is not None and (found.at, found.largest) == (NOW + timedelta(hours=1), 4)


def test_the_first_tenants_are_those_that_came_first(rows: Rows) -> None:
    for name, day in (("late", 9), ("b", 1), ("a", 1), ("first", 0)):
        rows.tenant(name, day)
    assert rows.watch.first_tenants(3) == ["first", "a", "b"]
