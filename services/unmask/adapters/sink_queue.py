"""EventSink over the broker: each event a persistent message on an exchange, confirmed before it counts as taken."""

from __future__ import annotations

from typing import Any, Final

from kombu import Connection, Exchange, Queue
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from unmask.adapters.celery_app import is_amqp, transport_options
from unmask.adapters.sink_webhook import event_body
from unmask.core.domain import Event
from unmask.core.errors import Unavailable

_SECONDS: Final = 5.0


class QueueSink:
    """The port `EventSink`: a topic exchange, and a durable queue of its name bound to everything, so that no event is
    lost before anybody listens.  Routing key `<tenant>.<kind>`, message id the event's: receivers drop what they had before.
    """

    name: Final = "queue"

    def __init__(self, broker: str, exchange: str) -> None:
        arguments: dict[str, Any] | None = {"x-queue-type": "quorum"} if is_amqp(broker) else None
        self._exchange = Exchange(exchange, type="topic", durable=True)
        self._queue = Queue(exchange, self._exchange, routing_key="#", durable=True, queue_arguments=arguments)
        # A broker that hangs is given up well within the lease of an event.
        options = transport_options(broker) | ({} if is_amqp(broker) else {"socket_timeout": _SECONDS})
        self._connection = Connection(broker, transport_options=options, connect_timeout=_SECONDS)
        self._pool = ProducerPool(self._connection.Pool(4), limit=4)
        errors = (*self._connection.connection_errors, *self._connection.channel_errors)
        self._broken: tuple[type[BaseException], ...] = (*errors, KombuError, OSError)

    def takes(self, event: Event) -> bool:
        """Every event."""
        return True

    def endpoint(self, event: Event) -> str:
        """The exchange."""
        return f"queue:{self._exchange.name}"

    def send(self, event: Event) -> None:
        """See `EventSink.send`."""
        try:
            with self._pool.acquire(block=True, timeout=_SECONDS) as producer:
                try:
                    self._publish(producer, event)
                except BaseException:
                    # A confirm that comes late must not pass for that of the next event.
                    producer.connection.collect()
                    raise
        except self._broken as error:
            raise Unavailable(f"event queue: {type(error).__name__}: {error}") from error

    def _publish(self, producer: Any, event: Event) -> None:
        producer.publish(
            event_body(event),
            exchange=self._exchange,
            routing_key=f"{event.tenant}.{event.kind}",
            declare=[self._queue],
            content_type="application/json",
            content_encoding="utf-8",
            message_id=event.id,
            delivery_mode=2,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0.0},
            confirm_timeout=_SECONDS,
        )

    def close(self) -> None:
        """Gives the connections back."""
        self._pool.force_close_all()
        self._connection.release()
