"""The transport to Valkey: a worker whose messages could not be acknowledged goes on once the server is back."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection, Queue
from redis.exceptions import RedisError

from unmask.adapters.celery_app import make_app


@pytest.mark.parametrize("how", ["ack", "requeue"])
def test_what_could_not_be_acknowledged_is_in_hand_no_more(valkey: Any, valkey_url: str, how: str) -> None:
    taken: list[Any] = []
    app = make_app(valkey_url)
    connection: Connection = app.connection_for_read()
    consumer = connection.Consumer([Queue("q")], on_message=taken.append, prefetch_count=1)
    connection.Producer().publish(b"1", routing_key="q")
    with consumer:
        connection.drain_events(timeout=5)
        assert not consumer.channel.qos.can_consume()
        valkey.kill()
        with pytest.raises(RedisError):
            getattr(taken[0], how)()
        assert consumer.channel.qos.can_consume()
        valkey.start()
    connection.release()
    app.close()
