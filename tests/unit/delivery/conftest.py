"""Stores, a clock, and relays over them that are closed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.delivery.outbox import RULE, Make, MovedClock
from unmask.adapters.store_memory import MemoryStore
from unmask.adapters.store_sql import SqlStore
from unmask.core.ports import CaseStore, EventSink
from unmask.delivery.relay import Relay, RelayRule


@pytest.fixture(params=["dictionaries", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[CaseStore]:
    if request.param == "dictionaries":
        yield MemoryStore()
        return
    made = SqlStore.in_memory()
    yield made
    made.database.close()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def relaying(store: CaseStore, clock: MovedClock) -> Iterator[Make]:
    """Makes relays over the store and closes them."""
    made: list[Relay] = []

    def make(*sinks: EventSink, rule: RelayRule = RULE, over: CaseStore | None = None, **more: Any) -> Relay:
        made.append(Relay(over or store, sinks, clock, rule, **more))
        return made[-1]

    yield make
    for relay in made:
        relay.close()
