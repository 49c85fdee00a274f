"""What every DeadStore promises, and what is done with dead things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import DATABASES, a_database
from tests.contract.samples import FINDINGS, NOW, a_case, an_event, moved
from tests.unit.core.worlds import ListQueue, StillClock
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_dead import SqlDead
from unmask.adapters.store_sql import SqlStore
from unmask.core.dead import (
    DeadFilter,
    DeadItem,
    DeadKind,
    DeadOffice,
    Letter,
    Revived,
    dead_items,
    drop,
    requeue,
    requeue_case,
)
from unmask.core.domain import Case, CaseUpdate, Event, EventState, Failure, Message, Priority, Stage, State, Step
from unmask.core.errors import BadImage, BadRequest, Unavailable, UnknownCase
from unmask.core.ids import new_case_id

LATER = NOW + timedelta(days=1)
WHY = Failure("unavailable", "triton: späť is not an answer")


@pytest.fixture(params=DATABASES)
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database of each kind."""
    with closing(a_database(request.param, tmp_path, request)) as made:
        yield made


@pytest.fixture
def store(tables: Database) -> SqlStore:
    return SqlStore(tables)


@pytest.fixture
def dead(tables: Database) -> SqlDead:
    return SqlDead(tables)


class Door:
    """Takes letters, or refuses them all."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.refuses, self.taken = store, False, list[tuple[bytes, str]]()

    def __call__(self, body: bytes, tenant: str) -> Case:
        if self.refuses:
            raise BadImage("still no picture")
        self.taken.append((body, tenant))
        return self.store.accept(a_case(tenant))


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def door(store: SqlStore) -> Door:
    return Door(store)


@pytest.fixture
def office(dead: SqlDead, tables: Database, queue: ListQueue, door: Door) -> DeadOffice:
    clock = StillClock()
    clock.time = LATER
    return DeadOffice(dead, SqlAccess(tables), clock, queue, door)


def dead_case(store: SqlStore, tenant: str = "default", stage: Stage = Stage.INGESTED, **fields: Any) -> Case:
    """A case that ran out of attempts behind `stage`."""
    case = a_case(tenant, state=State.DEAD, stage=stage, attempts=6, revision=9, failure=WHY)
    return store.accept(replace(case, **fields))


def dead_event(store: SqlStore, tenant: str = "default") -> Event:
    """An event that was given up, one sink having taken it."""
    case = store.accept(a_case(tenant))
    event = an_event(case, '{"label": "späť"}')
    assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=event))
    store.settle_event(event.id, EventState.DEAD, attempts=12, due_at=NOW, taken_by=["queue"], failure=WHY)
    return event


def dead_letter(dead: SqlDead, tenant: str = "default", body: bytes = b"\x00\xff{not json") -> Letter:
    """A submission that nobody could read."""
    letter = Letter(new_case_id(NOW), tenant, "unmask.submissions", body, "bad_field", "the message is not JSON", NOW)
    dead.bury(letter)
    return letter


def ids(items: Sequence[DeadItem]) -> list[str]:
    return [item.id for item in items]


class TestLooking:
    """One view over three kinds."""

    def test_lists_all_three_by_id_and_nothing_that_lives(self, store: SqlStore, dead: SqlDead) -> None:
        store.accept(a_case())
        made = [dead_case(store).id, dead_event(store).id, dead_letter(dead).id]
        assert ids(dead.list(None, None, 9)) == sorted(made)
        for kind, made_id in zip(DeadKind, made, strict=True):
            (item,) = dead.list(None, kind, 9)
            assert (item.kind, item.id, item.tenant) == (kind, made_id, "default")
            assert not item.labels and not item.body

    def test_pages_neither_skip_nor_repeat(self, store: SqlStore, dead: SqlDead) -> None:
        made = sorted([dead_case(store).id for _ in range(3)] + [dead_event(store).id for _ in range(3)])
        seen: list[str] = []
        while page := dead.list(None, None, 2, seen[-1] if seen else ""):
            assert len(page) <= 2
            seen += ids(page)
        assert seen == made

    def test_shows_the_whole_of_each(self, store: SqlStore, dead: SqlDead) -> None:
        case, event, letter = dead_case(store), dead_event(store), dead_letter(dead)
        shown = dead.show(case.id)
        assert (shown.code, shown.detail, shown.attempts, shown.about) == (WHY.code, WHY.detail, 6, "ingested")
        assert shown.labels == case.labels and shown.at == case.due_at
        shown = dead.show(event.id)
        assert (shown.code, shown.attempts, shown.about, shown.case_id) == (WHY.code, 12, event.kind, event.case_id)
        assert shown.body.decode() == event.body
        shown = dead.show(letter.id)
        assert (shown.body, shown.code, shown.detail, shown.about, shown.at) == (
            letter.body,
            letter.code,
            letter.detail,
            letter.door,
            NOW,
        )

    def test_no_tenant_sees_anothers(self, store: SqlStore, dead: SqlDead) -> None:
        theirs = [dead_case(store, "other").id, dead_event(store, "other").id, dead_letter(dead, "other").id]
        nobodys = dead_letter(dead, "")
        assert not dead.list("default", None, 9) and ids(dead.list("other", None, 9)) == sorted(theirs)
        assert ids(dead.list("", None, 9)) == [nobodys.id]
        for item_id in theirs:
            with pytest.raises(UnknownCase, match=item_id):
                dead.show(item_id, "default")
            assert dead.show(item_id, "other").id == item_id

    def test_filters_by_code_over_all_pages(self, store: SqlStore, dead: SqlDead) -> None:
        dead_case(store), dead_letter(dead)
        odd = dead_case(store, failure=Failure("bad_model", "x"))
        assert ids(list(dead_items(dead, DeadFilter(code="bad_model")))) == [odd.id]
        assert len(list(dead_items(dead, DeadFilter(code="unavailable", kind=DeadKind.CASE)))) == 1
        assert len(list(dead_items(dead, DeadFilter()))) == 3

    def test_a_letter_may_be_any_bytes_and_its_reason_any_text(self, dead: SqlDead) -> None:
        body = bytes(range(256)) * 5000
        letter = replace(dead_letter(dead, body=b""), id=new_case_id(NOW), body=body, detail="quotes \0 what it got: 'späť'")
        dead.bury(letter)
        shown = dead.show(letter.id)
        assert shown.body == body and "späť" in shown.detail


class TestRequeue:
    """Attempts again."""

    def test_a_case_is_open_at_its_stage_and_published(self, store: SqlStore, office: DeadOffice, queue: ListQueue) -> None:
        case = dead_case(store, priority=Priority.BATCH)
        assert requeue(office, office.dead.show(case.id), "cli:me") is Revived.PUBLISHED
        now = store.case("default", case.id)
        want = replace(case, state=State.OPEN, revision=10, attempts=0, failure=None, due_at=LATER)
        assert now == want and queue.messages == [Message("default", case.id, Step.ALIGN, Priority.BATCH)]
        assert not office.dead.list(None, None, 9)
        assert [due.id for due in store.claim_due(LATER, 9, timedelta(minutes=1))] == [case.id]

    def test_a_case_whose_faces_were_removed_meanwhile_looks_for_them_again(
        self, store: SqlStore, office: DeadOffice, queue: ListQueue
    ) -> None:
        case = store.accept(a_case())
        kept = moved(case, Stage.CLASSIFIED, state=State.DEAD, failure=WHY)
        assert store.commit(case, CaseUpdate(kept, findings=FINDINGS))
        gone = dead_case(store, stage=Stage.CLASSIFIED)
        for one in (kept, gone):
            requeue_case(office, "default", one.id, "cli:me")
        assert [store.case("default", one.id).stage for one in (kept, gone)] == [Stage.CLASSIFIED, Stage.INGESTED]
        assert [message.step for message in queue.messages] == [Step.LOCALIZE, Step.ALIGN]

    @pytest.mark.parametrize("down", [True, False])
    def test_without_a_broker_the_sweeper_finds_it(
        self, store: SqlStore, office: DeadOffice, queue: ListQueue, down: bool
    ) -> None:
        case = dead_case(store)
        queue.down = Unavailable("no broker")
        without = office if down else replace(office, queue=None)
        assert requeue_case(without, "default", case.id, "cli:me") is Revived.DUE
        assert [due.id for due in store.claim_due(LATER, 9, timedelta(minutes=1))] == [case.id]

    def test_an_event_goes_out_again_under_its_id_and_not_to_who_has_it(self, store: SqlStore, office: DeadOffice) -> None:
        event = dead_event(store)
        assert not store.claim_events(LATER, 9, timedelta(minutes=1))
        assert requeue(office, office.dead.show(event.id), "cli:me") is Revived.PENDING
        (out,) = store.claim_events(LATER, 9, timedelta(minutes=1))
        assert (out.event, out.attempts, out.taken_by, out.failure) == (event, 0, ("queue",), None)

    def test_a_letter_goes_through_its_door_and_is_gone_once_accepted(
        self, office: DeadOffice, dead: SqlDead, door: Door
    ) -> None:
        letter = dead_letter(dead, "acme")
        door.refuses = True
        with pytest.raises(BadImage, match="still no picture"):
            requeue(office, dead.show(letter.id), "cli:me")
        assert dead.show(letter.id).body == letter.body
        door.refuses = False
        assert requeue(office, dead.show(letter.id), "cli:me") is Revived.ACCEPTED
        assert door.taken == [(letter.body, "acme")] and not dead.list(None, None, 9)

    def test_a_letter_stays_where_no_door_is_open(self, office: DeadOffice, dead: SqlDead) -> None:
        letter = dead_letter(dead)
        with pytest.raises(BadRequest, match="no door"):
            requeue(replace(office, submit=None), dead.show(letter.id), "cli:me")
        with pytest.raises(BadRequest, match="door"):
            dead.requeue(dead.show(letter.id), LATER)
        assert dead.show(letter.id).id == letter.id

    def test_the_slower_of_two_is_told_and_changes_nothing(self, store: SqlStore, office: DeadOffice, queue: ListQueue) -> None:
        items = [office.dead.show(dead_case(store).id), office.dead.show(dead_event(store).id)]
        for item in items:
            requeue(office, item, "cli:me")
        before = [store.case("default", items[0].id), store.outbox(9)]
        for item in items:
            for act in (requeue, drop):
                with pytest.raises(UnknownCase, match="dead no more"):
                    act(office, item, "cli:you")
        assert [store.case("default", items[0].id), store.outbox(9)] == before and len(queue.messages) == 1


class TestDrop:
    """Given up."""

    def test_a_case_ends_as_failed_and_says_who_dropped_it(self, store: SqlStore, office: DeadOffice) -> None:
        case = dead_case(store)
        drop(office, office.dead.show(case.id), "cli:me")
        now = store.case("default", case.id)
        assert (now.state, now.revision) == (State.FAILED, case.revision + 1)
        assert now.failure == Failure(WHY.code, f"{WHY.detail} (dropped by cli:me)")
        assert not store.outbox(9), "its death was told already"

    def test_an_event_is_never_sent_and_a_letter_is_gone(self, store: SqlStore, office: DeadOffice, dead: SqlDead) -> None:
        event, letter = dead_event(store), dead_letter(dead)
        for item_id in (event.id, letter.id):
            drop(office, dead.show(item_id), "cli:me")
            with pytest.raises(UnknownCase):
                dead.show(item_id)
        assert not store.claim_events(LATER + timedelta(days=9), 9, timedelta(minutes=1)) and not store.outbox(9)


def test_everything_is_logged_before_it_is_done(
    store: SqlStore, office: DeadOffice, dead: SqlDead, tables: Database, door: Door
) -> None:
    case, event, letter = dead_case(store), dead_event(store, "acme"), dead_letter(dead, "acme")
    requeue(office, dead.show(case.id), "cli:me")
    drop(office, dead.show(event.id), "cli:you")
    door.refuses = True
    with pytest.raises(BadImage):
        requeue(office, dead.show(letter.id), "cli:me")
    entries = [(entry.tenant, entry.actor, entry.act, entry.subject) for entry in SqlAccess(tables).audited(None, 9)]
    assert entries == [
        ("acme", "cli:me", "dead.requeue", f"letter {letter.id}"),
        ("acme", "cli:you", "dead.drop", f"event {event.id}"),
        ("default", "cli:me", "dead.requeue", f"case {case.id}"),
    ]
