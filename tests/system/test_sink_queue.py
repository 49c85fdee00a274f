"""Events on a real broker that stands still or dies: only what it confirmed counts as taken, and the next one goes through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from kombu import Connection

from tests.contract.samples import a_case, an_event
from unmask.adapters.sink_queue import QueueSink
from unmask.core.errors import Unavailable

if TYPE_CHECKING:
    from unmask_dev.process import Server


@pytest.mark.parametrize(
    ("server", "url", "dies"),
    [("valkey", "valkey_url", False), ("valkey", "valkey_url", True), ("rabbitmq", "vhost_url", False)],
    ids=["valkey-paused", "valkey-killed", "rabbitmq-paused"],
)
def test_only_what_was_confirmed_counts(server: str, url: str, dies: bool, request: pytest.FixtureRequest) -> None:
    address, broker = request.getfixturevalue(url), request.getfixturevalue(server)
    before, lost, after = (an_event(a_case()) for _ in range(3))
    with closing(QueueSink(address, "unmask.events")) as sink:
        sink.send(before)
        with _away(broker, dies), pytest.raises(Unavailable, match="event queue"):
            sink.send(lost)
        sink.send(after)
    found = set()
    with Connection(address) as connection, connection.channel() as channel:
        while (message := channel.basic_get("unmask.events")) is not None:
            found.add(message.properties["message_id"])
    assert {before.id, after.id} <= found <= {before.id, lost.id, after.id}


@contextmanager
def _away(server: Server, dies: bool) -> Iterator[None]:
    """Meanwhile the broker does not answer."""
    (server.kill if dies else server.process.pause)()
    try:
        yield
    finally:
        (server.start if dies else server.process.resume)()
