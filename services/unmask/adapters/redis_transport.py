"""Kombu's Redis transport, quicker and more robust.

It makes a client for each command, which takes longer than the command.  And what could not be acknowledged counts as being in
hand for ever: a worker that meets a broken connection with all its messages in hand reads nothing any more, not even that the
connection is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import redis


class QoS(redis.QoS):  # type: ignore[misc]
    """Messages in hand; one that could not be acknowledged is in hand no more (the server hands it out again, later)."""

    def ack(self, delivery_tag: str) -> None:
        """See `kombu.transport.virtual.QoS.ack`."""
        with self._forgotten(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """See `kombu.transport.virtual.QoS.reject`."""
        with self._forgotten(delivery_tag):
            super().reject(delivery_tag, requeue)

    @contextmanager
    def _forgotten(self, delivery_tag: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._quick_ack(delivery_tag)
            raise


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel with one client a pool.  A client is thread-safe and holds nothing but its pool."""

    QoS = QoS
    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:  # those hold a connection of their own, and Kombu keeps them
            return super()._create_client(asynchronous=True)
        # After a broken connection the pool is another one.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept


class Transport(redis.Transport):  # type: ignore[misc]
    """The transport with those channels."""

    Channel = Channel
