"""What is published while the broker is down, and after it came back; on RabbitMQ and on Valkey."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection, Queue

from tests.contract.samples import a_case, an_event
from tests.system.backends import alive
from unmask.adapters.celery_app import queue_name, transport_options
from unmask.adapters.queue_celery import CeleryQueue
from unmask.adapters.sink_queue import QueueSink
from unmask.core.domain import Event, Message, Priority, Step
from unmask.core.errors import BadConfig, Unavailable

if TYPE_CHECKING:
    from unmask_dev.process import Server

HINT = Message("acme", "case-1", Step.ALIGN, Priority.BATCH)
# Of one refused publish, its second try included.
PATIENCE = 12.0


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Server]:
    server: Server = request.getfixturevalue(request.param)
    yield alive(server)
    alive(server)


def bodies(url: str, name: str) -> list[Any]:
    """What waits on a queue, oldest first; it is taken."""
    taken: list[Any] = []
    with Connection(url, transport_options=transport_options(url)) as connection:
        bound = Queue(name, no_declare=True)(connection.default_channel)
        while (message := bound.get(accept=["json"])) is not None:
            taken.append((message.headers, message.properties, json.loads(message.body)))
            message.ack()
    return taken


def refused(send: Callable[[], None]) -> float:
    """Seconds until `Unavailable`."""
    started = time.monotonic()
    with pytest.raises(Unavailable):
        send()
    return time.monotonic() - started


def recovered(send: Callable[[], None]) -> None:
    """Tries until it goes through."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return send()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_hint_is_ids_only_and_on_its_lanes_queue(broker: Server) -> None:
    with closing(CeleryQueue(broker.url)) as queue:
        queue.publish(HINT)
        queue.probe()
    ((headers, _, body),) = bodies(broker.url, queue_name(Step.ALIGN, Priority.BATCH))
    assert headers["task"] == "unmask.align" and body[0] == ["acme", "case-1"] and body[1] == {}


def test_a_broker_that_is_down_is_unavailable_soon_and_used_again_when_it_is_back(broker: Server) -> None:
    with closing(CeleryQueue(broker.url)) as queue:
        queue.publish(HINT)
        if hasattr(broker, "sync"):
            broker.sync()
        broker.kill()
        assert refused(lambda: queue.publish(HINT)) < PATIENCE
        assert refused(lambda: queue.publish(HINT)) < 0.5, "while it is known to be down nothing is waited for"
        broker.start()
        recovered(lambda: queue.publish(HINT))
    assert len(bodies(broker.url, queue_name(Step.ALIGN, Priority.BATCH))) == 2


def test_an_event_waits_for_whoever_comes_to_read_it(broker: Server) -> None:
    sent: Event = an_event(a_case("acme"), body='{"label": "real"}')
    with closing(QueueSink(broker.url, "unmask.events")) as sink:
        assert sink.takes(sent)
        sink.send(sent)
        if hasattr(broker, "sync"):
            broker.sync()
        broker.kill()
        assert refused(lambda: sink.send(sent)) < PATIENCE
        broker.start()
        recovered(lambda: sink.send(sent))
    got = bodies(broker.url, "unmask.events")
    assert [properties["message_id"] for _, properties, _ in got] == [sent.id, sent.id]
    assert got[0][2]["type"] == sent.kind and got[0][2]["data"]["tenant"] == "acme"


@pytest.mark.parametrize("url", ["nonsense", "kafka://127.0.0.1", "amqp://127.0.0.1:notaport"])
def test_a_broker_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="broker"):
        CeleryQueue(url)
