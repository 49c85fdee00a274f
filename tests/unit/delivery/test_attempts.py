"""The schedule of retries, and what a round of attempts comes to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.samples import NOW, a_case, an_event
from unmask.core.domain import EventState, Failure, Outgoing
from unmask.core.errors import BadRequest, Unavailable
from unmask.core.pipeline import CLOCK_WENT_BACK
from unmask.delivery.attempts import RetrySchedule, Round

DAY = timedelta(days=1)
SCHEDULE = RetrySchedule()
WHY = Failure("unavailable", "before")


def a_round(attempts: int = 0, failure: Failure | None = None) -> Round:
    return Round(Outgoing(an_event(a_case()), attempts, NOW, (), failure), [])


def busy(seconds: float | None) -> Unavailable:
    error = Unavailable("busy")
    error.retry_after = seconds
    return error


@pytest.mark.parametrize(("failed", "seconds"), [(1, 5), (2, 10), (3, 20), (9, 1280), (10, 2560), (11, 2700), (500, 2700)])
def test_waits_double_to_a_limit(failed: int, seconds: float) -> None:
    assert SCHEDULE.wait(failed, None, 1.0) == timedelta(seconds=seconds)
    assert SCHEDULE.wait(failed, None, 0.25) == timedelta(seconds=seconds) / 4


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e9), st.floats(0, 1))
def test_no_wait_is_so_long_that_the_store_takes_it_for_a_clock_gone_back(
    failed: int, asked: float | None, share: float
) -> None:
    assert timedelta(0) <= SCHEDULE.wait(failed, asked, share) <= SCHEDULE.longest < CLOCK_WENT_BACK


def test_what_the_receiver_asks_for_is_waited_for_and_no_less_than_the_step() -> None:
    assert SCHEDULE.wait(1, 90.0, 1.0) == timedelta(seconds=90)
    assert SCHEDULE.wait(5, 1.0, 1.0) == timedelta(seconds=80)


def test_taken_by_all_or_wanted_by_none_is_sent() -> None:
    assert a_round(2, WHY).settlement(SCHEDULE, NOW, 1.0).state is EventState.SENT


def test_a_failure_uses_an_attempt() -> None:
    round_ = a_round(3)
    round_.failed.append(busy(None))
    what = round_.settlement(SCHEDULE, NOW, 1.0)
    assert (what.state, what.attempts, what.due_at) == (EventState.PENDING, 4, NOW + timedelta(seconds=40))
    assert what.failure == Failure("unavailable", "busy")


def test_the_receivers_wait_is_honoured() -> None:
    round_ = a_round()
    round_.failed += [busy(300.0), busy(None)]
    assert round_.settlement(SCHEDULE, NOW, 0.0).due_at == NOW + timedelta(minutes=5)


def test_after_the_window_it_is_dead_with_its_reason() -> None:
    round_ = a_round(40)
    round_.failed.append(busy(None))
    assert round_.settlement(SCHEDULE, NOW + 2 * DAY, 1.0).state is EventState.PENDING
    what = round_.settlement(SCHEDULE, NOW + 3 * DAY, 1.0)
    assert (what.state, what.attempts, what.failure) == (EventState.DEAD, 41, Failure("unavailable", "busy"))


def test_putting_off_uses_no_attempt_and_keeps_the_reason() -> None:
    round_ = a_round(3, WHY)
    round_.postpone(NOW + timedelta(minutes=9))
    round_.postpone(NOW + timedelta(minutes=7))
    round_.postpone(NOW + timedelta(minutes=8))
    what = round_.settlement(SCHEDULE, NOW, 1.0)
    assert (what.state, what.attempts, what.due_at) == (EventState.PENDING, 3, NOW + timedelta(minutes=7))
    assert what.failure == WHY


def test_after_the_window_it_is_dead_once_it_was_tried_often_enough() -> None:
    often, put_back = a_round(SCHEDULE.least, WHY), a_round(SCHEDULE.least - 1, WHY)
    for round_ in (often, put_back):
        round_.postpone(NOW)
    assert often.settlement(SCHEDULE, NOW + 4 * DAY, 1.0).state is EventState.DEAD
    assert put_back.settlement(SCHEDULE, NOW + 4 * DAY, 1.0).state is EventState.PENDING
    put_back.failed.append(busy(None))
    assert put_back.settlement(SCHEDULE, NOW + 4 * DAY, 1.0).state is EventState.DEAD


def test_nothing_dies_untried() -> None:
    round_ = a_round()
    round_.postpone(NOW + 9 * DAY)
    what = round_.settlement(SCHEDULE, NOW + 8 * DAY, 1.0)
    assert what.state is EventState.PENDING and what.due_at <= NOW + 8 * DAY + SCHEDULE.longest


def test_refused_is_dead_at_once_unless_another_sink_may_still_take_it() -> None:
    round_ = a_round()
    round_.refused.append(BadRequest("gone"))
    what = round_.settlement(SCHEDULE, NOW, 1.0)
    assert (what.state, what.attempts, what.failure) == (EventState.DEAD, 1, Failure("bad_field", "gone"))
    round_.failed.append(busy(None))
    assert round_.settlement(SCHEDULE, NOW, 1.0).state is EventState.PENDING
