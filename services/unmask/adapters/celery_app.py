"""The Celery application: queues and lanes by name, and the settings under which a kill -9 loses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery import Celery
from kombu import Exchange, Queue

from unmask.core.domain import Priority, Step
from unmask.core.errors import BadConfig

# Producers name these.
CELERY_DOOR: Final = "unmask.submit"
JSON_DOOR: Final = "unmask.submissions"
_EXCHANGE: Final = "unmask"
_REDIS: Final = "unmask.adapters.redis_transport:Transport"
# Kombu's file system and SQL transports lose what is in hand at a kill -9.
_SCHEMES: Final = ("amqp", "amqps", "redis", "rediss")
# Redis takes a message for lost after this; a step is killed long before.
VISIBILITY_SECONDS: Final = 300
STEP_SECONDS: Final = 120
_QUORUM: Final = {"x-queue-type": "quorum"}
# A hint that was handed out 20 times is dropped: the store is the truth, the sweeper brings its case back.  Submissions have no
# such limit; what they are declared with is what a producer's own Celery declares.
_HINTS: Final = {**_QUORUM, "x-delivery-limit": 20}


def queue_name(step: Step, priority: Priority) -> str:
    """`unmask.align`, and for the batch lane `unmask.align.batch`."""
    lane = "" if priority is Priority.LIVE else f".{priority.value}"
    return f"unmask.{step.value}{lane}"


def task_name(step: Step) -> str:
    """The task that works a step."""
    return f"unmask.{step.value}"


def is_amqp(broker: str) -> bool:
    """Whether the broker is RabbitMQ (or speaks as it does)."""
    return broker.startswith(("amqp://", "amqps://"))


def door_queue(name: str, broker: str) -> Queue:
    """The durable queue of a door."""
    return _queue(name, _QUORUM if is_amqp(broker) else None)


def _queue(name: str, arguments: Mapping[str, object] | None) -> Queue:
    """A durable queue bound under its own name."""
    exchange = Exchange(_EXCHANGE, type="direct", durable=True)
    return Queue(name, exchange, routing_key=name, durable=True, queue_arguments=None if arguments is None else dict(arguments))


def step_queues(broker: str) -> dict[str, Queue]:
    """The queue of every step and lane, by name."""
    names = [queue_name(step, priority) for step in Step for priority in Priority]
    return {name: _queue(name, _HINTS if is_amqp(broker) else None) for name in names}


def transport_options(broker: str) -> dict[str, Any]:
    """How to speak to the broker; without `confirm_publish` a publish that the broker never saw counts as sent."""
    if is_amqp(broker):
        return {"confirm_publish": True, "max_retries": 1, "read_timeout": 30, "write_timeout": 10}
    return {
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": "round_robin",
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "health_check_interval": 25,
    }


def checked_broker(broker: str) -> str:
    """The URL, if it is of a broker that loses nothing; raises `BadConfig` without telling its password."""
    scheme = broker.partition("://")[0]
    if scheme not in _SCHEMES or "://" not in broker:
        raise BadConfig(
            f"broker: {scheme[:20]!r} is not one of {', '.join(_SCHEMES)}; expected for example amqp://user:password@host/"
        )
    return broker


def make_app(broker: str) -> Celery:
    """An application of its own (never Celery's global one); nothing is connected yet."""
    checked_broker(broker)
    app = Celery("unmask", broker=broker, set_as_current=False, changes={})
    app.conf.update(
        task_queues=list(step_queues(broker).values()),
        task_create_missing_queues=False,
        task_default_queue=queue_name(Step.INGEST, Priority.LIVE),
        task_default_exchange=_EXCHANGE,
        task_default_queue_type="quorum" if is_amqp(broker) else "classic",
        broker_transport=None if is_amqp(broker) else _REDIS,
        broker_transport_options=transport_options(broker),
        broker_connection_timeout=5,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=16,
        # A worker that dies hands its message back; one that finished has written its result before it acknowledges.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure=True,
        task_acks_on_timeout=False,
        task_time_limit=STEP_SECONDS,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_consumer="unmask.adapters.celery_worker:StepConsumer",
        enable_utc=True,
    )
    return app
