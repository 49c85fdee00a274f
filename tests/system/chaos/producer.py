"""A client of every door that does what clients have to: what was not acknowledged it sends again, under the same key."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery
from kombu import Connection, Queue

from tests.system.chaos.orders import QUEUES, Order
from unmask.adapters.celery_app import transport_options
from unmask.core.domain import BlobSource, Priority
from unmask.core.errors import CallerError, Unavailable
from unmask.rpc.asking import Request
from unmask.rpc.client import Client

_PAUSE: Final = 0.3
_THREADS: Final = 6


@dataclass(frozen=True)
class Sent:
    """What the producer knows of an order: whether it was acknowledged, the case that it was told (gRPC), or why refused."""

    order: Order
    acknowledged: bool
    attempts: int
    case: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Doors:
    """Where they are: gRPC's address, the broker's URL, a client of the blob store, the tenants' tokens, the callback."""

    grpc: str
    broker: str
    blobs: Any
    tokens: Mapping[str, str]
    callback: str


class Producer:
    """Sends orders from several threads as `allow` lets them go; `sent` is its own book."""

    def __init__(self, orders: Sequence[Order], doors: Doors, patience: float = 300.0) -> None:
        self._orders, self._doors, self._patience = list(orders), doors, patience
        self._allowed = threading.Semaphore(0)
        self._lock, self._next, self._stop = threading.Lock(), 0, threading.Event()
        self._taken = {order.number: threading.Event() for order in orders}
        self.sent: list[Sent] = []
        self._threads = [threading.Thread(target=self._work, name=f"producer-{n}", daemon=True) for n in range(_THREADS)]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def allow(self, count: int) -> None:
        """Lets so many more orders go."""
        self._allowed.release(count)

    def join(self, seconds: float) -> bool:
        """Waits until everything is sent or given up; whether it is."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._stop.set()
        return len(self.sent) == len(self._orders)

    def _work(self) -> None:
        client = _Sender(self._doors)
        while (order := self._take()) is not None:
            if order.after >= 0:
                self._taken[order.after].wait(self._patience)
            result = self._insist(client, order)
            self._taken[order.number].set()
            with self._lock:
                self.sent.append(result)
        client.close()

    def _take(self) -> Order | None:
        with self._lock:
            number, self._next = self._next, self._next + 1
        if number >= len(self._orders):
            return None
        while not self._allowed.acquire(timeout=0.5):
            if self._stop.is_set():
                return None
        return self._orders[number]

    def _insist(self, sender: _Sender, order: Order) -> Sent:
        deadline, attempts = time.monotonic() + self._patience, 0
        while time.monotonic() < deadline and not self._stop.is_set():
            attempts += 1
            try:
                return Sent(order, True, attempts, case=sender.send(order))
            except CallerError as error:
                return Sent(order, True, attempts, refused=error.code)
            except Unavailable:
                pass
            except Exception:  # a broker's or a blob store's client, broken off in any way: connect anew
                sender.close()
            self._stop.wait(_PAUSE)
        return Sent(order, False, attempts)


class _Sender:
    """The clients of one thread, connected when first needed."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._clients: dict[str, Client] = {}
        self._connection: Connection | None = None
        self._celery: Celery | None = None

    def close(self) -> None:
        """Forgets every connection."""
        for client in self._clients.values():
            client.close()
        with suppress(Exception):
            if self._connection is not None:
                self._connection.release()
        with suppress(Exception):
            if self._celery is not None:
                self._celery.close()
        self._clients, self._connection, self._celery = {}, None, None

    def send(self, order: Order) -> str:
        """Returns once it is acknowledged: the case's id, or nothing where a queue took it."""
        if order.blob:
            self._doors.blobs.put_object("unmask", order.blob, io.BytesIO(order.picture), len(order.picture))
        if order.door == "grpc":
            return self._by_grpc(order)
        if order.door == "json":
            self._by_json(order)
        else:
            self._by_celery(order)
        return ""

    def _fields(self, order: Order) -> dict[str, Any]:
        return fields_of(order, self._doors.tokens[order.tenant], self._doors.callback)

    def _by_grpc(self, order: Order) -> str:
        client = self._clients.get(order.tenant)
        if client is None:
            client = self._clients[order.tenant] = Client(self._doors.grpc, timeout=15, token=self._doors.tokens[order.tenant])
        lane = Priority.BATCH if order.batch else Priority.LIVE
        picture = BlobSource(order.blob) if order.blob else order.picture
        return client.submit(Request(picture, order.key, callback=self._doors.callback, priority=lane)).id

    def _by_json(self, order: Order) -> None:
        if self._connection is None:
            broker = self._doors.broker
            self._connection = Connection(broker, transport_options=transport_options(broker), connect_timeout=5)
        body = f"no JSON: {order.mark}" if order.kind == "unreadable" else json.dumps(self._fields(order))
        self._connection.default_channel  # noqa: B018 - raises at once when the broker is away
        self._connection.Producer().publish(
            body.encode(),
            routing_key=QUEUES["json"],
            content_type="application/json",
            content_encoding="binary",
            delivery_mode=2,
            message_id=order.message_id,
            confirm_timeout=5,
        )

    def _by_celery(self, order: Order) -> None:
        if self._celery is None:
            broker = self._doors.broker
            self._celery = Celery(broker=broker, set_as_current=False)
            self._celery.conf.update(broker_transport_options=transport_options(broker), task_publish_retry=False)
        fields = self._fields(order)
        if order.kind == "unreadable":
            fields = {"nonsense": order.mark}
        self._celery.send_task(
            QUEUES["celery"],
            kwargs=fields,
            queue=Queue(QUEUES["celery"], no_declare=True),
            task_id=order.message_id,
            ignore_result=True,
            confirm_timeout=5,
        )


def fields_of(order: Order, token: str, callback: str) -> dict[str, Any]:
    """The submission as the queue's doors take it."""
    source = {"blob": order.blob} if order.blob else {"base64": base64.b64encode(order.picture).decode()}
    told = {"token": token, "callback": callback, "idempotency_key": order.key}
    return {**source, **told, "priority": "batch" if order.batch else "live"}
