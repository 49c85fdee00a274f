"""The relay over real stores: in the order of each case, tried again, left alone for a while, dead with a reason."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.contract.samples import NOW
from tests.unit.delivery.outbox import (
    RULE,
    ListSink,
    Make,
    MovedClock,
    down,
    pending,
    tell,
)
from unmask.core.domain import Event, Failure
from unmask.core.errors import BadConfig, BadRequest, Unavailable, UnmaskError
from unmask.core.ports import CaseStore
from unmask.delivery.attempts import RetrySchedule
from unmask.delivery.breaker import BreakerRule


class TestAccepted:
    """On a good day."""

    def test_each_event_goes_once_to_every_sink_that_takes_it(self, store: CaseStore, relaying: Make) -> None:
        events = [tell(store)[0] for _ in range(9)]
        hook, queue, none = ListSink(), ListSink(name="queue"), ListSink(name="none", wanted=lambda _: False)
        relay = relaying(hook, queue, none)
        assert relay.run_once() == 9 and relay.run_once() == 0
        assert sorted(hook.tried) == sorted(queue.tried) == sorted(event.id for event in events)
        assert not none.tried and not store.outbox(9)

    def test_an_event_that_nobody_takes_is_done(self, store: CaseStore, relaying: Make) -> None:
        tell(store)
        assert relaying().run_once() == 1 and not store.outbox(9)

    def test_the_events_of_a_case_go_in_their_order_one_after_the_other(self, store: CaseStore, relaying: Make) -> None:
        cases = [tell(store, 4) for _ in range(5)]
        sink = ListSink()
        relay = relaying(sink)
        for number in range(4):
            assert relay.run_once() == 5
            assert {event.id for case in cases for event in case[: number + 1]} == set(sink.accepted)
        for case in cases:
            ids = {event.id for event in case}
            assert [told for told in sink.accepted if told in ids] == [event.id for event in case]


class TestTriedAgain:
    """Sinks that fail."""

    def test_the_same_id_until_it_is_taken_and_the_next_of_the_case_only_then(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        first, second = tell(store, 2)
        sink = ListSink(lambda event: down(event) if len(sink.tried) <= 3 else None)
        relay = relaying(sink)
        for _ in range(4):
            assert relay.run_once() == 1
            clock.pass_(minutes=1)
        assert sink.tried == [first.id] * 4 and sink.accepted == [first.id]
        relay.run_once()
        assert sink.accepted == [first.id, second.id]

    def test_not_before_its_time(self, store: CaseStore, clock: MovedClock, relaying: Make, monkeypatch: Any) -> None:
        monkeypatch.setattr(random, "random", lambda: 1.0)
        tell(store)
        sink = ListSink(down)
        relay = relaying(sink)
        relay.run_once()
        clock.pass_(seconds=4.9)
        assert relay.run_once() == 0
        clock.pass_(seconds=0.1)
        assert relay.run_once() == 1
        clock.pass_(seconds=9.9)
        assert relay.run_once() == 0

    def test_retry_after_is_honoured(self, store: CaseStore, clock: MovedClock, relaying: Make) -> None:
        def busy(_: Event) -> UnmaskError:
            error = Unavailable("the receiver answered 429")
            error.retry_after = 300.0
            return error

        tell(store)
        relay = relaying(ListSink(busy))
        relay.run_once()
        clock.pass_(seconds=299)
        assert relay.run_once() == 0
        clock.pass_(seconds=1)
        assert relay.run_once() == 1

    def test_only_those_who_have_not_taken_it_get_it_again(self, store: CaseStore, clock: MovedClock, relaying: Make) -> None:
        tell(store)
        broken = ListSink(down, name="broken")
        good, late = ListSink(name="good"), ListSink(name="late")
        relaying(good, broken, late).run_once()
        broken.do = lambda _: None
        clock.pass_(minutes=1)
        relaying(good, broken, late).run_once()  # another process
        assert [len(sink.tried) for sink in (good, broken, late)] == [1, 2, 1] and not store.outbox(9)

    def test_an_operators_error_and_a_defect_of_a_sink_are_tried_again_too(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        def broken(_: Event) -> UnmaskError:
            raise ZeroDivisionError

        tell(store)
        relay = relaying(ListSink(broken))
        relay.run_once()
        (out,) = pending(store, clock)
        assert out.attempts == 1 and out.failure == Failure("internal", "ZeroDivisionError in sink webhook; see the log")
        tell(store)
        relaying(ListSink(lambda _: BadConfig("no key"), name="x")).run_once()
        assert {out.failure.code for out in pending(store, clock) if out.failure} >= {"bad_config"}

    def test_over_three_days_of_failures_it_is_tried_often_and_ends_dead_with_its_reason(
        self, store: CaseStore, clock: MovedClock, relaying: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        (event,) = tell(store)
        sink = ListSink(down)
        relay = relaying(sink, rule=replace(RULE, breaker=BreakerRule(failures=10_000)))
        tried: list[timedelta] = []
        with caplog.at_level(logging.WARNING):
            while store.outbox(1):
                if relay.run_once():
                    tried.append(clock.now() - NOW)
                clock.pass_(minutes=1)
                assert clock.now() < NOW + timedelta(days=4)
        assert timedelta(days=3) - timedelta(minutes=46) < tried[-1] <= timedelta(days=3, minutes=1)
        assert 60 < len(tried) < 400 and set(sink.tried) == {event.id}
        assert event.id in caplog.text and "500" in caplog.text

    def test_the_next_event_of_a_case_goes_when_the_one_before_it_is_dead(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        first, second = tell(store, 2)
        sink = ListSink(lambda event: down(event) if event.id == first.id else None)
        relay = relaying(sink, rule=replace(RULE, schedule=RetrySchedule(window=timedelta(0), least=1)))
        relay.run_once()
        relay.run_once()
        assert sink.accepted == [second.id] and not store.outbox(9)

    def test_refused_for_good_is_dead_at_once(self, store: CaseStore, clock: MovedClock, relaying: Make) -> None:
        tell(store)
        sink = ListSink(lambda _: BadRequest("the receiver answered 410"))
        relaying(sink).run_once()
        assert len(sink.tried) == 1 and not store.outbox(9) and not pending(store, clock)


class TestBreaker:
    """Endpoints that keep failing are left alone."""

    RULE = replace(RULE, breaker=BreakerRule(failures=3, first=timedelta(minutes=1)))

    def test_what_is_behind_an_open_breaker_is_put_off_without_an_attempt_and_heals(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        for _ in range(9):
            tell(store, target="bad")
        (well,) = tell(store, target="good")
        sink = ListSink(lambda event: down(event) if event.target == "bad" else None)
        relay = relaying(sink, rule=replace(self.RULE, workers=1))
        assert relay.run_once() == 10
        assert len(sink.tried) == 3 + 1 and sink.accepted == [well.id]
        sink.do = lambda _: None
        clock.pass_(minutes=1)
        relay.run_once()
        assert len(sink.accepted) == 10, "the trial went well, and the rest followed"

    def test_a_trial_that_fails_keeps_the_others_waiting(self, store: CaseStore, clock: MovedClock, relaying: Make) -> None:
        for _ in range(9):
            tell(store)
        sink = ListSink(down)
        relay = relaying(sink, rule=replace(self.RULE, workers=1))
        relay.run_once()
        clock.pass_(minutes=1)
        relay.run_once()
        assert len(sink.tried) == 3 + 1
        # One trial after 2 minutes more, then 4, 8 and 10, for all of them together.
        for _ in range(24):
            clock.pass_(minutes=1)
            relay.run_once()
        assert len(sink.tried) == 3 + 1 + 4
        untried = [out for out in pending(store, clock) if not out.attempts]
        assert untried and not any(out.failure for out in untried)

    def test_a_sink_that_works_is_not_held_up_by_one_whose_breaker_is_open(
        self, store: CaseStore, clock: MovedClock, relaying: Make
    ) -> None:
        bad, good = ListSink(down, name="bad"), ListSink(name="good")
        relay = relaying(bad, good, rule=replace(self.RULE, workers=1))
        for _ in range(9):
            tell(store)
        relay.run_once()
        assert len(good.accepted) == 9 and len(bad.tried) == 3
