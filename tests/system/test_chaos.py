"""A short chaos run on the real platform; and the ledger itself, which has to see each way of breaking the promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.system.backends import open_folder
from tests.system.chaos.ledger import Books, audit
from tests.system.chaos.orders import QUEUES, Order, make_orders
from tests.system.chaos.producer import Sent, fields_of
from tests.system.chaos.receiver import Delivery
from tests.system.chaos.run import Plan, run
from tests.system.chaos.stores import Stored, read_rows
from unmask.bootstrap import Parts, inline_world
from unmask.core.access import Caller, Scope
from unmask.core.erasing import collect_orphans
from unmask.core.errors import CallerError
from unmask.ingestion.door import Door
from unmask.settings import Settings

SHORT = ("deliver", "ingest", "align", "classify", "localize", "submit", "broker", "postgres")


@pytest.mark.slow
def test_nothing_is_lost_while_every_worker_the_broker_and_the_database_are_killed() -> None:
    from unmask_dev.process import ServerMissing

    with open_folder() as folder:
        try:
            ledger = run(Plan(120, "valkey", SHORT), folder)
        except ServerMissing as error:
            missing(str(error))
    print(ledger.text())
    assert not ledger.broken, ledger.text()


class Office:
    """A real store in SQLite that every order of a plan went through, on one thread and without any fault."""

    def __init__(self, state: Path, models: Path) -> None:
        self.parts = Parts(Settings(state=state, models=models))
        self.door = Door(
            inline_world(self.parts), self.parts.dead, lambda token: Caller(token, frozenset({Scope.SUBMIT}), "chaos")
        )
        self.sent = [self._send(order) for order in make_orders(60, seed=5)]
        collect_orphans(self.parts.erasing, timedelta(0))

    def _send(self, order: Order) -> Sent:
        if order.blob:
            self.parts.blobs.put(order.blob, order.picture)
        fields = {"nonsense": order.mark} if order.kind == "unreadable" else fields_of(order, order.tenant, "https://x.test/")
        body = json.dumps(fields).encode()
        try:
            return Sent(order, True, 1, case=self.door.take(body, order.stored_key).id)
        except CallerError as error:
            if order.door == "grpc":
                return Sent(order, True, 1, refused=error.code)
            self.door.bury(QUEUES[order.door], body, error)
            return Sent(order, True, 1)

    def books(self, harm: str) -> Books:
        """What everybody would have written down, after the SQL `harm` was done to the store (and undone again)."""
        with self.parts.database.engine.connect() as connection, connection.begin() as transaction:
            events = read_rows(connection)["events"]
            connection.exec_driver_sql("UPDATE outbox SET state = 'sent'")
            if harm:
                assert connection.exec_driver_sql(harm).rowcount > 0, harm
            rows = read_rows(connection)
            transaction.rollback()
        keys = (key for key in self.parts.blobs.keys("") if "/pictures/" in key)
        stored = Stored(**rows, blobs=frozenset(keys), exchange=tuple(row["id"] for row in events))
        heard = [Delivery(row["id"], row["tenant"], row["case_id"], row["kind"], True, True, row["at"] / 1e6) for row in events]
        return Books(self.sent, heard, stored)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Office:
    return Office(tmp_path_factory.mktemp("ledger"), tiny)


def with_stored(**more: Callable[[Stored], object]) -> Callable[[Books], Books]:
    """Books whose stores hold something else."""

    def changed(books: Books) -> Books:
        made = {name: make(books.stored) for name, make in more.items()}
        return replace(books, stored=replace(books.stored, **made))  # type: ignore[arg-type]

    return changed


def with_delivery(**changes: object) -> Callable[[Books], Books]:
    """Books with one more delivery, of the first event but for the changes."""
    return lambda books: replace(books, deliveries=[*books.deliveries, replace(books.deliveries[0], **changes)])  # type: ignore[arg-type]


def with_sent(which: Callable[[Sent], bool], **changes: object) -> Callable[[Books], Books]:
    """Books in which the producer wrote something else about the first such order."""

    def changed(books: Books) -> Books:
        number = next(number for number, one in enumerate(books.sent) if which(one))
        sent = list(books.sent)
        sent[number] = replace(sent[number], **changes)  # type: ignore[arg-type]
        return replace(books, sent=sent)

    return changed


def same(books: Books) -> Books:
    return books


ONE = "(SELECT id FROM cases WHERE state = 'decided' ORDER BY id LIMIT 1)"
OUTBOX = "case_id, tenant, kind, body, at, target, sequence, state, attempts, due_at, taken_by"
HARMS: list[tuple[str, str, Callable[[Books], Books]]] = [
    ("every submission was acknowledged", "", with_sent(lambda one: True, acknowledged=False)),
    ("every acknowledged submission has its case", f"DELETE FROM cases WHERE id = {ONE}", same),
    ("gRPC told each caller its own case", "", with_sent(lambda one: bool(one.case), case="another")),
    (
        "a key has one case, and nobody else does",
        "",
        with_stored(cases=lambda stored: (*stored.cases, {**stored.cases[0], "id": "again"})),
    ),
    ("a key has one case, and nobody else does", f"UPDATE cases SET idempotency_key = 'strange' WHERE id = {ONE}", same),
    ("every case has exactly one end", f"UPDATE cases SET state = 'open' WHERE id = {ONE}", same),
    ("every case has exactly one end", f"DELETE FROM decisions WHERE case_id = {ONE}", same),
    ("every case has exactly one end", "DELETE FROM verdicts", same),
    ("every case has exactly one end", "UPDATE cases SET failure = NULL WHERE state = 'failed'", same),
    ("every case ended as its picture asks", "UPDATE cases SET label = 'real' WHERE label = 'synthetic'", same),
    ("no case is dead", f"UPDATE cases SET state = 'dead' WHERE id = {ONE}", same),
    (
        "a picture has one verdict a release and policy",
        "",
        with_stored(verdicts=lambda stored: (*stored.verdicts, stored.verdicts[0])),
    ),
    ("every end is told by an event", f"DELETE FROM outbox WHERE case_id = {ONE}", same),
    (
        "no case has two events",
        f"INSERT INTO outbox (id, {OUTBOX}) SELECT 'second', {OUTBOX} FROM outbox WHERE case_id = {ONE}",
        same,
    ),
    ("every event is sent", f"UPDATE outbox SET state = 'pending' WHERE case_id = {ONE}", same),
    ("every event is sent", f"UPDATE outbox SET state = 'dead' WHERE case_id = {ONE}", same),
    (
        "the receiver accepted an event of every case",
        "",
        lambda books: replace(books, deliveries=[replace(books.deliveries[0], answered=False), *books.deliveries[1:]]),
    ),
    ("a case's deliveries all have one id, the outbox's", "", with_delivery(event="another")),
    ("a case's deliveries all have one id, the outbox's", f"UPDATE outbox SET id = 'new' WHERE case_id = {ONE}", same),
    ("every delivery is signed", "", with_delivery(signed=False)),
    ("every event is on the exchange", "", with_stored(exchange=lambda stored: (stored.exchange or ())[1:])),
    ("dead letters are those that were meant", "DELETE FROM dead_letters", same),
    (
        "dead letters are those that were meant",
        "INSERT INTO dead_letters SELECT 'new', tenant, door, x'00', code, detail, at FROM dead_letters LIMIT 1",
        same,
    ),
    ("gRPC refused what was to be refused", "", with_sent(lambda one: bool(one.refused), refused="")),
    ("no blob is orphaned", "", with_stored(blobs=lambda stored: stored.blobs | {f"acme/pictures/{'0' * 64}"})),
    ("every picture has its blob", "", with_stored(blobs=lambda stored: frozenset(sorted(stored.blobs)[1:]))),
]


def test_the_ledger_of_a_run_without_faults_is_whole(office: Office) -> None:
    ledger = audit(office.books(""))
    assert not ledger.broken, ledger.text()
    kinds = {one.order.kind for one in office.sent}
    assert kinds >= {"face", "dark", "text", "again", "repeat", "other_body", "unreadable", "blob", "keyless"}


def test_a_second_delivery_under_the_same_id_is_no_breach(office: Office) -> None:
    assert not audit(with_delivery()(office.books(""))).broken


@pytest.mark.parametrize(("promise", "harm", "change"), HARMS, ids=[f"{n}-{harm[0]}" for n, harm in enumerate(HARMS)])
def test_the_ledger_sees_it_broken(office: Office, promise: str, harm: str, change: Callable[[Books], Books]) -> None:
    ledger = audit(change(office.books(harm)))
    assert promise in ledger.broken
    assert f"BROKEN  {promise}" in ledger.text()


def test_every_promise_can_be_broken(office: Office) -> None:
    assert {check.promise for check in audit(office.books("")).checks} == {promise for promise, _, _ in HARMS}
