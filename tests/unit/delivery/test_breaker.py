"""Circuit breakers: when they open, for how long, and the one trial that closes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.delivery.breaker import BreakerRule, Breakers

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RULE = BreakerRule(failures=3, first=10 * SECOND, longest=60 * SECOND)


@pytest.fixture
def breakers() -> Breakers:
    return Breakers(RULE)


def fail(breakers: Breakers, times: int, now: datetime = NOW, endpoint: str = "a") -> None:
    for _ in range(times):
        breakers.failed(endpoint, now)


def test_closed_until_so_many_fail_in_a_row(breakers: Breakers) -> None:
    fail(breakers, 2)
    assert breakers.admit("a", NOW) is None
    breakers.succeeded("a")
    fail(breakers, 2)
    assert breakers.admit("a", NOW) is None
    fail(breakers, 1)
    assert breakers.admit("a", NOW) == NOW + 10 * SECOND and breakers.open(NOW) == ["a"]


def test_each_endpoint_has_its_own(breakers: Breakers) -> None:
    fail(breakers, 3)
    assert breakers.admit("b", NOW) is None


def test_then_one_trial_at_a_time_that_closes_it(breakers: Breakers) -> None:
    fail(breakers, 3)
    later = NOW + 10 * SECOND
    assert breakers.admit("a", later - SECOND) == later
    assert breakers.admit("a", later) is None
    again = breakers.admit("a", later)
    assert again is not None and later < again <= later + 10 * SECOND, "the others wait for the trial"
    breakers.succeeded("a")
    assert breakers.admit("a", later) is None and not breakers.open(later)
    fail(breakers, 2, later)
    assert breakers.admit("a", later) is None, "it counts from the beginning"


def test_each_trial_that_fails_doubles_the_time_to_a_limit(breakers: Breakers) -> None:
    fail(breakers, 3)
    now, waited = NOW, []
    for _ in range(6):
        until = breakers.admit("a", now)
        assert until is not None
        waited.append((until - now) / SECOND)
        now = until
        assert breakers.admit("a", now) is None
        breakers.failed("a", now)
    assert waited == [10, 20, 40, 60, 60, 60]


def test_failures_that_were_under_way_do_not_lengthen_it(breakers: Breakers) -> None:
    fail(breakers, 3)
    fail(breakers, 5, NOW + 9 * SECOND)
    assert breakers.admit("a", NOW + 10 * SECOND) is None


def test_a_clock_that_goes_back_does_not_keep_it_open(breakers: Breakers) -> None:
    fail(breakers, 3)
    earlier = NOW - timedelta(days=9)
    assert breakers.admit("a", earlier) == earlier + 60 * SECOND


def test_threads_share_one_trial(breakers: Breakers) -> None:
    fail(breakers, 3)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: breakers.admit("a", NOW + 10 * SECOND), range(64)))
    assert told.count(None) == 1


def test_endpoints_that_nobody_comes_back_to_are_forgotten(breakers: Breakers) -> None:
    for number in range(10_001):
        breakers.failed(f"once {number}", NOW)
    fail(breakers, 3, endpoint="still bad")
    breakers.failed("one more", NOW)
    assert breakers.open(NOW) == ["still bad"] and len(breakers._states) < 100


@given(st.lists(st.tuples(st.sampled_from(["ok", "bad", "wait"]), st.integers(0, 70)), max_size=40))
def test_it_never_stays_open_for_longer_than_its_limit(steps: list[tuple[str, int]]) -> None:
    breakers, now = Breakers(RULE), NOW
    for what, seconds in steps:
        now += seconds * SECOND
        until = breakers.admit("a", now)
        if until is not None:
            assert now < until <= now + RULE.longest
        elif what == "bad":
            breakers.failed("a", now)
        else:
            breakers.succeeded("a")
            assert breakers.admit("a", now) is None
