"""Relays on their threads: slow endpoints, bursts, leases, processes that die, stores that go away."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.samples import a_case
from tests.unit.delivery.outbox import (
    DEADLINE,
    RULE,
    Faulty,
    ListSink,
    Make,
    MovedClock,
    accept_after,
    down,
    tell,
    until,
)
from unmask.core.domain import Event
from unmask.core.errors import BadRequest
from unmask.core.ports import CaseStore


class TestAtOnce:
    """Many endpoints, some of them slow."""

    def test_one_slow_endpoint_has_its_limit_in_hand_and_holds_up_no_other(self, store: CaseStore, relaying: Make) -> None:
        release, slow, most = threading.Event(), set[str](), [0]

        def do(event: Event) -> None:
            if event.target != "slow":
                return
            slow.add(event.id)
            most[0] = max(most[0], len(slow))
            release.wait(DEADLINE)
            slow.discard(event.id)

        for _ in range(20):
            tell(store, target="slow")
        quick = [tell(store, target=f"quick {number % 3}")[0].id for number in range(30)]
        sink = ListSink(do)
        relay = relaying(sink)
        relay.start()
        until(lambda: set(quick) <= set(sink.accepted))
        assert most == [2] and len(sink.accepted) == 30
        release.set()
        until(lambda: not store.outbox(1))
        assert most == [2] and len(sink.tried) == 50

    def test_a_burst_larger_than_the_memory_for_it_arrives_whole(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        for _ in range(600):
            tell(store, target="one")
        sink = ListSink()
        relay = relaying(sink)
        relay.start()
        deadline = time.monotonic() + 30
        while store.outbox(1):
            assert time.monotonic() < deadline
            clock.pass_(seconds=0.5)
            time.sleep(0.01)
        assert len(sink.accepted) == len(set(sink.accepted)) == 600

    def test_two_relays_share_the_work(self, store: CaseStore, relaying: Make) -> None:
        for _ in range(40):
            tell(store)
        sink = ListSink()
        relays = [relaying(sink), relaying(sink)]
        for relay in relays:
            relay.start()
        until(lambda: not store.outbox(1))
        assert len(sink.tried) == 40

    def test_events_written_while_it_runs_are_found(self, store: CaseStore, relaying: Make) -> None:
        sink = ListSink()
        relaying(sink, rule=replace(RULE, period=0.01)).start()
        for number in range(3):
            tell(store)
            until(lambda number=number: len(sink.accepted) == number + 1)  # type: ignore[misc]

    def test_who_watches_hears_of_every_attempt(self, store: CaseStore, relaying: Make) -> None:
        heard: list[tuple[str, str]] = []
        tell(store, target="bad")
        tell(store)
        sink = ListSink(lambda event: down(event) if event.target == "bad" else None)
        gone = ListSink(lambda _: BadRequest("gone"), name="gone", wanted=lambda event: event.target == "a")
        relay = relaying(sink, gone, watch=lambda name, outcome, seconds: heard.append((name, outcome)))
        relay.run_once()
        assert sorted(heard) == [("gone", "refused"), ("webhook", "accepted"), ("webhook", "failed")]


class TestLeases:
    """Processes that die, stores that go away."""

    def test_what_was_accepted_but_not_settled_comes_again_after_the_lease_with_the_same_id(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        first, second = tell(store, 2)
        sink = ListSink()
        relaying(sink, over=Faulty(store, "settle_event")).run_once()
        assert sink.accepted == [first.id]
        other = relaying(sink)
        clock.pass_(seconds=59)
        assert other.run_once() == 0
        clock.pass_(seconds=1)
        assert other.run_once() == 1 and other.run_once() == 1
        assert sink.accepted == [first.id, first.id, second.id] and not store.outbox(9)

    def test_a_store_that_is_away_is_asked_again(
        self, store: CaseStore, relaying: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        tell(store)
        sink = ListSink()
        relay = relaying(sink, over=Faulty(store, "claim_events", "claim_events"), rule=replace(RULE, period=0.01))
        relay.start()
        until(lambda: not store.outbox(1))
        assert sink.accepted and caplog.text.count("gone away") == 2

    def test_no_attempt_begins_late_in_a_lease(self, store: CaseStore, clock: MovedClock, relaying: Make) -> None:
        release = threading.Event()
        for _ in range(3):
            tell(store)
        sink, heard = ListSink(accept_after(release)), list[str]()
        rule = replace(RULE, per_endpoint=1, period=0.01)
        relay = relaying(sink, rule=rule, watch=lambda name, outcome, seconds: heard.append(outcome))
        relay.start()
        until(lambda: sink.tried)
        clock.pass_(seconds=61)
        release.set()
        until(lambda: len(heard) == 5)
        assert heard == ["accepted", "postponed", "postponed", "accepted", "accepted"] and len(sink.tried) == 3

    @pytest.mark.parametrize("closing", [True, False])
    def test_what_waited_beyond_its_lease_is_left_to_whoever_has_it_now(
        self, store: CaseStore, clock: MovedClock, relaying: Make, closing: bool
    ) -> None:
        release, held = threading.Event(), threading.Event()
        for _ in range(2):
            tell(store)
        slow, other = ListSink(accept_after(release)), ListSink(accept_after(held))
        heard: list[str] = []
        rule = replace(RULE, per_endpoint=1, period=1000.0)
        stuck = relaying(slow, rule=rule, watch=lambda name, outcome, seconds: heard.append(outcome))
        stuck.start()
        until(lambda: slow.tried)
        clock.pass_(seconds=120)
        relaying(other).start()
        until(lambda: len(other.tried) == 2)
        if closing:
            threading.Timer(0.05, release.set).start()
            stuck.close()
        else:
            release.set()
            until(lambda: heard == ["accepted", "postponed"])
        assert len(slow.tried) == 1 and not store.claim_events(clock.now(), 9, timedelta(0)), "it is in the other's hand"
        held.set()
        until(lambda: not store.outbox(1))

    def test_closing_ends_what_is_in_hand_and_puts_the_rest_back(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        release = threading.Event()
        for _ in range(5):
            tell(store)
        sink = ListSink(accept_after(release))
        relay = relaying(sink, rule=replace(RULE, per_endpoint=1))
        relay.start()
        until(lambda: sink.tried)
        closing = threading.Thread(target=relay.close)
        closing.start()
        until(lambda: len(store.claim_events(clock.now(), 1, timedelta(0))) == 1)  # put back at once, not after the lease
        release.set()
        closing.join(DEADLINE)
        assert not closing.is_alive() and len(sink.accepted) == 1 and len(store.outbox(9)) == 4
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("relay")]

    def test_nothing_is_lost_or_out_of_order_however_processes_die_and_sinks_fail(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        chance = random.Random(7)
        cases = [tell(store, 3, case=store.accept(a_case()), target=f"t{number % 4}") for number in range(12)]
        sink = ListSink(lambda event: down(event) if chance.random() < 0.3 else None)
        for _ in range(400):
            if not store.outbox(1):
                break
            died = chance.random() < 0.3
            relaying(sink, over=Faulty(store, *["settle_event"] * chance.randrange(1, 9)) if died else None).run_once()
            clock.pass_(minutes=chance.choice([1, 3, 10]))
        assert not store.outbox(1)
        for case in cases:
            ids = [event.id for event in case]
            firsts = list(dict.fromkeys(told for told in sink.accepted if told in ids))
            assert firsts == ids, "each arrived, in order"
            seen = [ids.index(told) for told in sink.accepted if told in ids]
            assert seen == sorted(seen), "none of an earlier one after a later one"
