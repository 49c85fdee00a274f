"""StageQueue over Celery: a task a step on RabbitMQ (quorum queues) or Valkey/Redis, published with confirms."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from kombu.exceptions import KombuError, OperationalError

from unmask.adapters.celery_app import make_app, queue_name, task_name
from unmask.core.domain import Message
from unmask.core.errors import BadConfig, Unavailable

if TYPE_CHECKING:
    from celery import Celery

# One more try on a connection that had died; a broker that is down must not hold a step up.
_RETRY: Final = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}
_CONFIRM_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 1.0


class CeleryQueue:
    """The port `StageQueue`; thread-safe, and made again by whoever forks.

    After a failure nothing is tried for a second: what is not published the sweeper publishes.
    """

    def __init__(self, broker: str) -> None:
        self.app: Celery = make_app(broker)
        self._broken: tuple[type[BaseException], ...] = ()
        self._resume = 0.0
        try:
            connection = self.app.connection_for_write()
            self._broken = (*connection.connection_errors, *connection.channel_errors, KombuError, OperationalError, OSError)
        except (ImportError, KeyError, ValueError) as error:
            raise BadConfig(f"broker: {error}; expected amqp://… or redis://…") from error

    def publish(self, message: Message) -> None:
        """See `StageQueue.publish`."""
        if time.monotonic() < self._resume:
            raise Unavailable("the broker did not answer a moment ago")
        try:
            self._send(message)
        except self._broken as error:
            self._resume = time.monotonic() + _PAUSE_SECONDS
            raise Unavailable(f"broker: {type(error).__name__}: {error}") from error

    def _send(self, message: Message) -> None:
        queue = self.app.amqp.queues[queue_name(message.step, message.priority)]
        with self.app.producer_pool.acquire(block=True, timeout=_CONFIRM_SECONDS) as producer:
            self.app.amqp.send_task_message(
                producer,
                task_name(message.step),
                self._task(message),
                queue=queue,
                retry=True,
                retry_policy=_RETRY,
                confirm_timeout=_CONFIRM_SECONDS,
            )

    def _task(self, message: Message) -> Any:
        """Celery's own message (protocol 2): ids only, never pixels."""
        return self.app.amqp.create_task_message(
            task_id=str(uuid4()),
            name=task_name(message.step),
            args=(message.tenant, message.case_id),
            # What nobody reads: else Celery writes both out for people.
            argsrepr="",
            kwargsrepr="",
            ignore_result=True,
        )

    def probe(self) -> None:
        """Connects and goes; raises `Unavailable` when the broker does not answer."""
        try:
            with self.app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
        except self._broken as error:
            raise Unavailable(f"broker: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Gives the connections back."""
        self.app.close()
