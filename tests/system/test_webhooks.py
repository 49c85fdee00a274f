"""Webhooks from the store to a real https receiver, over a SQLite file and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.contract.samples import a_case
from tests.system import relay_process
from tests.system.command import environment
from tests.system.relay_process import LOOPBACK, MASTER
from tests.system.tiny_models import face_picture
from tests.unit.adapters.https_server import GIGABYTE, Post, Site, serving
from tests.unit.delivery.outbox import MovedClock, tell
from unmask.adapters.clock import SystemClock
from unmask.adapters.sink_webhook import WebhookSink, webhook_secret
from unmask.adapters.store_sql import SqlStore
from unmask.bootstrap import Parts, inline_world
from unmask.core.domain import BytesSource, Event, Submission
from unmask.core.ports import Clock
from unmask.core.submit import accept
from unmask.delivery.attempts import RetrySchedule
from unmask.delivery.breaker import BreakerRule
from unmask.delivery.relay import Relay, RelayRule
from unmask.settings import Settings

DEADLINE = 20.0
SOON = RetrySchedule(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=100))
RULE = RelayRule(workers=4, per_endpoint=2, period=0.02, schedule=SOON)


def check(post: Post) -> Any:
    """The payload, if the real library finds the signature good; the receiver answers 401 where it does not."""
    tenant = json.loads(post.body)["data"]["tenant"]
    return Webhook(webhook_secret(MASTER, tenant)).verify(post.body, post.headers)


@pytest.fixture
def site() -> Iterator[Site]:
    """A receiver that accepts nothing whose signature is wrong."""
    with serving() as running:
        running.check = check
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(SqlStore(f"sqlite:///{tmp_path / 'cases.sqlite3'}")) as made:
        yield made


def a_relay(site: Site, store: SqlStore, *, rule: RelayRule = RULE, clock: Clock | None = None, seconds: float = 0.5) -> Relay:
    """Of this process."""
    clock = clock or SystemClock()
    sink = WebhookSink(keys=[MASTER], clock=SystemClock(), seconds=seconds, allowed=LOOPBACK, context=site.trust)
    return Relay(store, [sink], clock, rule)


def until(condition: Callable[[], object]) -> None:
    """Waits for it."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def events(store: SqlStore, target: str, count: int = 1) -> list[Event]:
    """Events of one case, of now."""
    return tell(store, count, target=target, at=datetime.now(UTC))


def ids(posts: list[Post]) -> list[str]:
    return [post.id for post in posts]


class TestFromPictureToReceiver:
    """The whole way."""

    def test_a_submission_with_a_callback_is_told_of_its_verdict(self, tiny: Path, tmp_path: Path, site: Site) -> None:
        parts = Parts(Settings(models=tiny, state=tmp_path / "state"))
        world = inline_world(parts)
        picture = BytesSource(face_picture(red=210, blue=10))
        case = accept(world, Submission("acme", picture, callback=site.url("/hook/verdicts")))
        assert isinstance(world.store, SqlStore)
        with closing(world.store):
            with closing(a_relay(site, world.store)) as relay:
                assert relay.run_once() == 1
            (post,) = site.posts
            told, verdict = check(post), world.store.verdict_of("acme", case.id)
        assert told["type"] == "verdict.decided" and told["data"]["case_id"] == told["data"]["id"] == case.id
        assert verdict is not None and told["data"]["label"] == verdict.label and told["data"]["sha256"] == verdict.sha256
        assert told["data"]["sequence"] > 0 and told["data"]["schema"] == "unmask.verdict/1"


class TestReceivers:
    """One of every kind, each with its own end."""

    def test_each_attempt_has_the_same_id_and_body_and_the_next_event_waits(self, site: Site, store: SqlStore) -> None:
        told = events(store, site.url("/failing/4"), 3)
        with closing(a_relay(site, store)) as relay:
            relay.start()
            until(lambda: not store.outbox(1))
        assert ids(site.posts) == [told[0].id] * 5 + [told[1].id, told[2].id]
        assert len({post.body for post in site.posts[:5]}) == 1
        assert [check(post)["data"]["sequence"] for post in site.posts[4:]] == [1, 2, 3]

    def test_one_that_is_gone_is_left_alone_and_one_that_moved_is_not_followed(self, site: Site, store: SqlStore) -> None:
        events(store, site.url("/status/410"))
        events(store, site.url("/moved/301"))
        rule = replace(RULE, schedule=replace(SOON, window=timedelta(seconds=1), least=1))
        with closing(a_relay(site, store, rule=rule)) as relay:
            relay.start()
            until(lambda: not store.outbox(1))
        assert len(site.posted("/status/410")) == 1
        assert len(site.posted("/moved/301")) > 1 and not site.posted("/hook")

    def test_one_that_says_when_to_come_again(self, site: Site, store: SqlStore) -> None:
        events(store, site.url("/busy/429/1"))
        rule = replace(RULE, schedule=RetrySchedule(first=timedelta(milliseconds=1)))
        with closing(a_relay(site, store, rule=rule)) as relay:
            relay.start()
            until(lambda: len(site.posts) == 2)
        first, second = site.posts
        assert second.at - first.at >= 0.95

    @pytest.mark.parametrize("path", ["/late/5", "/drop", "/silent"])
    def test_one_that_does_not_answer_in_time_is_tried_again(self, site: Site, store: SqlStore, path: str) -> None:
        (event,) = events(store, site.url(path))
        with closing(a_relay(site, store)) as relay:
            relay.start()
            until(lambda: len(site.posts) >= 2)
        assert set(ids(site.posts)) == {event.id} and ids([*site.posts])[0] in [told.id for told in store.outbox(9)]

    def test_a_gigabyte_of_thanks_is_not_read(self, site: Site, store: SqlStore) -> None:
        events(store, site.url("/gigabyte"))
        with closing(a_relay(site, store)) as relay:
            relay.run_once()
        assert not store.outbox(9) and len(site.posts) == 1 and site.written < GIGABYTE / 30

    def test_one_with_the_wrong_secret_accepts_nothing(self, site: Site, store: SqlStore) -> None:
        site.check = lambda post: Webhook(webhook_secret(MASTER, "somebody else")).verify(post.body, post.headers)
        events(store, site.url("/hook"))
        with closing(a_relay(site, store)) as relay:
            relay.run_once()
        assert len(site.posts) == 1 and len(store.outbox(9)) == 1

    def test_a_slow_one_does_not_hold_up_the_others(self, site: Site, store: SqlStore) -> None:
        for _ in range(10):
            events(store, site.url("/late/9"))
        quick = [tell(store, case=store.accept(a_case("quick")), target=site.url("/hook"))[0].id for _ in range(10)]
        with closing(a_relay(site, store, seconds=3.0)) as relay:
            started = time.monotonic()
            relay.start()
            until(lambda: len(site.posted("/hook")) == 10)
            assert time.monotonic() - started < 2.5, "before the slow one's first limit"
        assert set(ids(site.posted("/hook"))) == set(quick) and len(site.posted("/late/9")) <= 4

    def test_the_breaker_opens_and_heals(self, site: Site, store: SqlStore) -> None:
        told = {events(store, site.url("/broken"))[0].id for _ in range(30)}
        rule = replace(RULE, workers=1, breaker=BreakerRule(failures=3, first=timedelta(seconds=60)))
        clock = MovedClock(datetime.now(UTC))
        with closing(a_relay(site, store, rule=rule, clock=clock)) as relay:
            for _ in range(5):
                relay.run_once()
                clock.pass_(seconds=1)
            assert len(site.posts) == 3, "thirty events wait, and the receiver has its peace"
            site.broken = False
            clock.pass_(seconds=60)
            relay.run_once()
            clock.pass_(seconds=60)
            relay.run_once()
        assert not store.outbox(9)
        assert set(ids(site.posts)) == told and len(site.posts) == 33

    def test_three_days_of_failures_end_dead(self, site: Site, store: SqlStore) -> None:
        (event,) = events(store, site.url("/status/503"))
        clock = MovedClock(datetime.now(UTC))
        rule = RelayRule(workers=1)
        with closing(a_relay(site, store, rule=rule, clock=clock)) as relay:
            while store.outbox(1):
                relay.run_once()
                clock.pass_(minutes=20)
                assert clock.now() - event.at < timedelta(days=4)
        assert set(ids(site.posts)) == {event.id} and len(site.posts) > 60
        (row,) = rows(store, event.id)
        assert row.state == "dead" and "the receiver answered 503" in json.dumps(row.failure)
        assert timedelta(days=2, hours=23) < clock.now() - event.at <= timedelta(days=3, hours=1)


def rows(store: SqlStore, event_id: str) -> list[Any]:
    """What the outbox has of the event."""
    with store.database.reading() as connection:
        return list(connection.exec_driver_sql("SELECT * FROM outbox WHERE id = ?", (event_id,)))


@contextmanager
def relay_in_a_process(database: Path, authority: Path, lease: float, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A relay that ends with the block, or with this process."""
    command = [sys.executable, "-m", relay_process.__name__, str(database), str(authority), str(lease), *more]
    own = environment()
    own["PYTHONPATH"] = f"{own['PYTHONPATH']}{os.pathsep}{Path(__file__).resolve().parents[2]}"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own) as process:
        try:
            yield process
        finally:
            process.kill()


class TestKilled:
    """kill -9 between a receiver's acceptance and the settlement."""

    def test_nothing_is_lost_and_the_same_event_id_comes_again(self, site: Site, store: SqlStore, tmp_path: Path) -> None:
        authority = tmp_path / "ca.pem"
        authority.write_bytes(site.authority)
        database = tmp_path / "cases.sqlite3"
        first, second = events(store, site.url("/hook"), 2)
        with relay_in_a_process(database, authority, 3.0, "hold") as process:
            assert process.stdout is not None and process.stdout.readline() == "accepted\n"
            process.send_signal(signal.SIGKILL)
            assert process.wait(DEADLINE) == -signal.SIGKILL
        assert ids(site.posts) == [first.id] and [event.id for event in store.outbox(9)] == [first.id, second.id]
        with relay_in_a_process(database, authority, 3.0):
            until(lambda: not store.outbox(1))
        assert ids(site.posts) == [first.id, first.id, second.id]
        assert site.posts[0].body == site.posts[1].body and check(site.posts[1])

    def test_a_process_killed_at_any_moment_of_a_hundred_events(self, site: Site, store: SqlStore, tmp_path: Path) -> None:
        authority = tmp_path / "ca.pem"
        authority.write_bytes(site.authority)
        cases = [events(store, site.url("/hook"), 4) for _ in range(25)]
        for killed_after in (10, 30, 55):
            with relay_in_a_process(tmp_path / "cases.sqlite3", authority, 1.0) as process:
                until(lambda most=killed_after: len(site.posts) >= most)  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
        with relay_in_a_process(tmp_path / "cases.sqlite3", authority, 1.0):
            until(lambda: not store.outbox(1))
        for case in cases:
            own = [event.id for event in case]
            seen = [own.index(told) for told in ids(site.posts) if told in own]
            assert seen == sorted(seen) and set(seen) == {0, 1, 2, 3}
        assert 100 <= len(site.posts) < 120, "a few were in hand at each death, and came twice"
