"""The two doors of the queue: a Celery task by name and plain JSON, consumed by one loop that loses nothing it cannot read."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kombu import Connection, Consumer
from kombu.message import Message as Delivery

from unmask.adapters.celery_app import CELERY_DOOR, JSON_DOOR, door_queue, transport_options
from unmask.core.errors import BadRequest, CallerError, UnmaskError

_log = logging.getLogger(__name__)
_PREFETCH: Final = 8
_POLL_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 5.0


class Taker(Protocol):
    """Who takes submissions (`unmask.ingestion.door.Door` behind bootstrap)."""

    def take(self, body: bytes, default_key: str) -> object:
        """Accepts one, `default_key` being its idempotency key where it has none; raises a `CallerError` or `Unavailable`."""

    def bury(self, door: str, body: bytes, error: CallerError) -> None:
        """Keeps what was refused as a dead letter; raises `Unavailable`."""


class DoorConsumer:
    """Consumes both doors on one connection to RabbitMQ until stopped (Valkey and Redis: `door_redis`).

    A message is acknowledged only once its case or its dead letter is stored, and held while neither can be.
    """

    def __init__(self, broker: str, taker: Taker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self._settler = Settler(taker, self._stop)

    def stop(self) -> None:
        """Ends `run` after the message in hand; from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Consumes; connects again whenever the broker went away."""
        while not self._stop.is_set():
            connection = Connection(self._broker, transport_options=transport_options(self._broker), connect_timeout=5)
            try:
                with connection:
                    self._consume(connection)
            except (*connection.connection_errors, *connection.channel_errors, OSError) as error:
                _log.warning("door: broker: %s: %s; connecting again", type(error).__name__, error)
                self._stop.wait(_POLL_SECONDS)
            except Exception:  # the door stays open; what was in hand goes back with the connection
                _log.exception("door: broke off; connecting again")
                self._stop.wait(_POLL_SECONDS)

    def _consume(self, connection: Connection) -> None:
        channel = connection.channel()
        consumers = [
            Consumer(
                channel,
                queues=[door_queue(name, self._broker)],
                on_message=self._handler(name),
                on_decode_error=self._handler(name),
                prefetch_count=_PREFETCH,
                auto_declare=True,
            )
            for name in (CELERY_DOOR, JSON_DOOR)
        ]
        for consumer in consumers:
            consumer.consume()
        _log.info("door: taking submissions from %s and %s", CELERY_DOOR, JSON_DOOR)
        while not self._stop.is_set():
            try:
                connection.drain_events(timeout=_POLL_SECONDS)
            except TimeoutError:
                connection.heartbeat_check()
        for consumer in consumers:
            consumer.cancel()

    def _handler(self, door: str) -> Callable[..., None]:
        """Settles a delivery, also one that came with an error: kombu could not even unpack it."""

        def handle(delivery: Delivery, error: Exception | None = None) -> None:
            if self._settler.settled(door, _arrived(delivery, error)):
                delivery.ack()
            else:
                delivery.requeue()

        return handle


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as a door took it; `id` stays the same when it is delivered again, and is empty where nothing says one."""

    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    # Why it could not be unpacked, where it could not.
    unread: Exception | None = None


class Settler:
    """Makes a case or a dead letter of each message, and says when that is stored."""

    def __init__(self, taker: Taker, stop: threading.Event) -> None:
        self._taker, self._stop = taker, stop

    def settled(self, door: str, message: Arrived, hold: Callable[[], object] = lambda: None) -> bool:
        """Whether the message's case or dead letter is stored; False when it goes back because the consumer stops.

        While neither can be stored the message is held (`hold` is called before each try) and not handed back: a broker may
        drop what it handed out too often.
        """
        pause = 0.2
        while True:
            hold()
            try:
                self._take(door, message)
                return True
            except UnmaskError as error:
                _log.warning("door %s: %s", door, error.detail)
            except Exception:  # a defect of ours where the letter should be stored: still not to be lost
                _log.exception("door %s: a message is held", door)
            if self._stop.wait(pause):
                return False
            pause = min(2.0 * pause, _LONGEST_PAUSE)

    def _take(self, door: str, message: Arrived) -> None:
        body = message.body
        if message.unread is not None:
            why = BadRequest(f"the message cannot be unpacked ({type(message.unread).__name__})")
            return self._taker.bury(door, body, why)
        key = f"{door}:{message.id or hashlib.sha256(body).hexdigest()}"
        try:
            if door == CELERY_DOOR:
                body = celery_fields(body, message.headers)
            self._taker.take(body, key)
        except CallerError as error:
            self._taker.bury(door, body, error)
        except UnmaskError:  # of time, or of an operator (no release is active): it is held until that is repaired
            raise
        except Exception as error:  # a defect of ours: the message is kept, and the door stays open
            _log.exception("door %s: a submission was not taken", door)
            self._taker.bury(
                door, body, BadRequest(f"an error inside Unmask ({type(error).__name__}); see the log, then requeue")
            )


def message_id(properties: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
    """What stays the same when a message is delivered again: Celery's task id, AMQP's message id, or kombu's tag on Redis."""
    tag = properties.get("delivery_tag")
    return str(headers.get("id") or properties.get("message_id") or (tag if isinstance(tag, str) else "") or "")[:150]


def _arrived(delivery: Delivery, error: Exception | None) -> Arrived:
    headers = delivery.headers or {}
    return Arrived(_raw(delivery), headers, message_id(delivery.properties or {}, headers), error)


def celery_fields(raw: bytes, headers: Mapping[str, Any]) -> bytes:
    """The submission in a Celery message of protocol 2: the keyword arguments of the task `unmask.submit`, as JSON."""
    task = headers.get("task")
    if task != CELERY_DOOR:
        raise BadRequest(f"unknown task {str(task)[:80]!r}: only {CELERY_DOOR} is taken here")
    try:
        arguments, fields, _ = json.loads(raw)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest(f"the task's body is not Celery's JSON [args, kwargs, embed] ({error})") from error
    if arguments or not isinstance(fields, dict):
        raise BadRequest(f"{CELERY_DOOR} takes keyword arguments only")
    return json.dumps(fields).encode()


def _raw(delivery: Delivery) -> bytes:
    """The body as it came, whatever it says of itself."""
    body = delivery.body
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    return str(body).encode("utf-8", "surrogatepass")
