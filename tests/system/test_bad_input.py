"""Bad input through whole doors: what it ends in, and that nobody else is harmed.

Most of it is tried beside what refuses it (addresses, certificates, models, tokens); here is what crosses parts.
"""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import a_database
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.database import Database
from unmask.adapters.fetch_http import HttpFetcher
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_dead import SqlDead
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import Caller, Scope
from unmask.core.dead import DeadItem
from unmask.core.domain import BlobSource, BytesSource, Case, CaseUpdate, State, Step, Submission, UrlSource
from unmask.core.errors import BadRequest, IdempotencyConflict, StoreCorrupt, Unavailable, UnknownCase
from unmask.core.limits import Admission
from unmask.core.runner import advance, run
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.delivery.sweeper import sweep
from unmask.ingestion.door import Door

PNG = b"any bytes: these handlers do not look"


@pytest.fixture(params=["sqlite-file", "postgres"])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh database of either kind."""
    with closing(a_database(request.param, tmp_path, request)) as made:
        yield made


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def world(tables: Database, queue: ListQueue, clock: StillClock) -> World:
    return replace(make_world(ChosenHandlers(), queue, clock), store=SqlStore(tables), fetcher=HttpFetcher(seconds=5))


@pytest.fixture
def door(tables: Database, world: World) -> Door:
    """The queue's, for one token of tenant `acme`."""

    def authenticate(token: str) -> Caller:
        return Caller("acme", frozenset({Scope.SUBMIT}), "token:1")

    return Door(world, SqlDead(tables), authenticate)


def worked(world: World, queue: ListQueue, case: Case) -> Case:
    """The case once all messages are worked."""
    while queue.messages:
        run(world, queue.messages.pop(0))
    return world.store.case(case.tenant, case.id)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "169.254.169.254", "0.0.0.0", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:10.0.0.1]"],
)
def test_a_url_to_where_nobody_may_look_ends_its_case_as_failed(world: World, queue: ListQueue, host: str) -> None:
    case = worked(world, queue, accept(world, Submission("acme", UrlSource(f"https://{host}/a.png"))))
    assert case.state is State.FAILED and case.failure is not None
    assert case.failure.code == "bad_field" and "not a public address" in case.failure.detail


@pytest.mark.parametrize(
    "key",
    ["other/a.png", "acme/../other/a.png", "/other/a.png", "acmeevil/a.png", "acme\\..\\other", "acme/\0", "s3://other/a"],
)
def test_a_blob_of_somebody_else_by_any_spelling(world: World, key: str) -> None:
    with pytest.raises(BadRequest):
        accept(world, Submission("acme", BlobSource(key)))
    assert not world.store.claim_due(world.clock.now() + timedelta(days=1), 9, timedelta(minutes=1))


class TestTheSameKeyWithAnotherBody:
    """Refused at every door, and the first case stays what it was."""

    @pytest.mark.parametrize(
        "other",
        [
            {"base64": base64.b64encode(b"another picture").decode()},
            {"blob": "acme/uploads/a.png"},
            {"url": "https://example.org/a.png"},
            {"base64": base64.b64encode(PNG).decode(), "labels": {"a": "b"}},
            {"base64": base64.b64encode(PNG).decode(), "callback": "https://example.org/hook"},
            {"base64": base64.b64encode(PNG).decode(), "parent": "post-2"},
        ],
    )
    def test_through_the_queue(self, door: Door, other: dict[str, Any]) -> None:
        first = {"token": "t", "base64": base64.b64encode(PNG).decode(), "idempotency_key": "k"}
        case = door.take(json.dumps(first).encode())
        with pytest.raises(IdempotencyConflict, match="'k'"):
            door.take(json.dumps({"token": "t", "idempotency_key": "k", **other}).encode())
        assert door.take(json.dumps(first).encode()) == case
        assert door.world.store.case("acme", case.id) == case

    def test_within_limits_and_for_another_tenant_it_is_another_key(self, tables: Database, world: World) -> None:
        admission = Admission(SqlAccess(tables), world.clock)
        case = admission.accept(world, Submission("acme", BytesSource(PNG), "k"))
        with pytest.raises(IdempotencyConflict):
            admission.accept(world, Submission("acme", BytesSource(b"other"), "k"))
        assert admission.accept(world, Submission("beta", BytesSource(b"other"), "k")).id != case.id

    def test_two_bodies_at_once_give_one_case(self, world: World) -> None:
        outcomes: list[object] = []

        def submit(body: bytes) -> None:
            try:
                outcomes.append(accept(world, Submission("acme", BytesSource(body), "k")).id)
            except IdempotencyConflict as error:
                outcomes.append(type(error))

        threads = [threading.Thread(target=submit, args=(bytes([n % 2]),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({outcome for outcome in outcomes if isinstance(outcome, str)}) == 1
        assert outcomes.count(IdempotencyConflict) == 4


class TestTextsThatADatabaseCannotHold:
    """Postgres has no NUL in a text, and no text is longer than its column."""

    def test_ids_are_unknown_and_not_an_error_of_the_store(self, world: World) -> None:
        for case_id in ("a\0b", "x" * 100_000, "\ud800"):
            with pytest.raises(UnknownCase):
                world.store.case("acme", case_id)
            with pytest.raises(UnknownCase):
                world.store.verdict_of("acme", case_id)

    @pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 3000])
    def test_what_is_submitted_is_refused_by_name(self, world: World, text: str) -> None:
        for field, submission in {
            "idempotency key": Submission("acme", BytesSource(PNG), text),
            "callback": Submission("acme", BytesSource(PNG), callback=text),
            "label": Submission("acme", BytesSource(PNG), labels={"a": text}),
            "batch": Submission("acme", BytesSource(PNG), batch=text),
            "source": Submission("acme", UrlSource("https://example.org/" + text)),
        }.items():
            with pytest.raises(BadRequest, match=field):
                accept(world, submission)

    def test_a_result_that_cannot_be_stored_ends_the_case_by_name(
        self, world: World, queue: ListQueue, clock: StillClock
    ) -> None:
        """Not one that is tried for ever: the update fails each time, the attempts are counted."""
        really = world.store.commit

        class Full:
            """A store that cannot hold what alignment found."""

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

            def commit(self, expected: Case, update: CaseUpdate) -> bool:
                if update.findings is not None:
                    raise StoreCorrupt("value too long")
                return really(expected, update)

        inner = world.store
        world = replace(world, store=Full())
        case = accept(world, Submission("acme", BytesSource(PNG)))
        for _ in range(world.retry.limit):
            case = worked(world, queue, case)
            clock.pass_(60)
            sweep(world)
        assert case.state is State.DEAD and case.failure is not None and case.failure.code == "store_corrupt"
        assert [event.kind for event in world.store.outbox(9)] == ["case.dead"]


class TestTheClockGoesBack:
    """By two hours, in the middle of everything."""

    def test_a_case_that_waits_for_its_next_attempt_goes_on(self, world: World, queue: ListQueue, clock: StillClock) -> None:
        world.handlers.errors[Step.ALIGN] = Unavailable("slow")  # type: ignore[attr-defined]
        case = worked(world, queue, accept(world, Submission("acme", BytesSource(PNG))))
        assert case.attempts == 1
        world.handlers.errors.clear()  # type: ignore[attr-defined]
        clock.pass_(-7200)
        assert sweep(world) == 1
        assert worked(world, queue, case).state is State.DECIDED

    def test_what_is_accepted_then_is_worked_then(self, world: World, queue: ListQueue, clock: StillClock) -> None:
        first = accept(world, Submission("acme", BytesSource(PNG), "k"))
        clock.pass_(-7200)
        assert accept(world, Submission("acme", BytesSource(PNG), "k")).id == first.id
        second = accept(world, Submission("acme", BytesSource(b"later, by an earlier clock")))
        assert advance(world, "acme", second.id, Step.INGEST).sha256
        assert worked(world, queue, first).state is State.DECIDED


@contextmanager
def rabbit_door(url: str, door: Door) -> Iterator[None]:
    """The door's consumer on a real RabbitMQ."""
    from unmask.adapters.door_kombu import DoorConsumer

    consumer = DoorConsumer(url, door)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        yield
    finally:
        consumer.stop()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("packed", [b"not zlib at all", zlib.compress(b"x" * 1000)[:-9]])
def test_a_message_that_cannot_be_unpacked_is_kept_and_the_door_stays_open(vhost_url: str, door: Door, packed: bytes) -> None:
    from kombu import Connection

    from unmask.adapters.celery_app import JSON_DOOR, transport_options
    from unmask_dev.process import wait_until

    good = json.dumps({"token": "t", "base64": base64.b64encode(PNG).decode(), "idempotency_key": "after"}).encode()
    with rabbit_door(vhost_url, door), Connection(vhost_url, transport_options=transport_options(vhost_url)) as connection:
        producer = connection.Producer()
        wait_until(lambda: _is_declared(connection, JSON_DOOR), 30, "the door's queue")
        headers = {"compression": "application/x-gzip"}
        producer.publish(packed, routing_key=JSON_DOOR, headers=headers, content_type="application/json")
        producer.publish(good, routing_key=JSON_DOOR, content_type="application/json")
        wait_until(lambda: bool(_letters(door)), 30, "the letter")
        (letter,) = _letters(door)
        assert "unpacked" in letter.detail
        later = world_due(door)
        wait_until(lambda: bool(later()), 30, "the message behind it")


def world_due(door: Door) -> Any:
    """Whether a case has come in."""
    return lambda: door.world.store.claim_due(door.world.clock.now() + timedelta(hours=1), 9, timedelta(0))


def _letters(door: Door) -> list[DeadItem]:
    return list(door.dead.list(None, None, 9, ""))


def _is_declared(connection: Any, queue: str) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue, passive=True)
    except connection.channel_errors:
        return False
    return True
