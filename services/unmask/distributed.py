"""The parts of a process on the platform: Postgres, a broker, S3 and Triton behind the ports, where the settings name them."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.clock import SystemClock
from unmask.bootstrap import Parts
from unmask.core.errors import BadConfig, Unavailable
from unmask.core.limits import Admission
from unmask.core.metrics import MOST_TENANTS
from unmask.core.pipeline import RetryRule
from unmask.core.ports import BlobStore, EventSink, ModelServer
from unmask.core.world import World
from unmask.delivery.relay import Relay, RelayRule
from unmask.delivery.sweeper import Sweeper, slow_duties
from unmask.delivery.watching import Lookout, watch_duties
from unmask.ingestion.door import Door
from unmask.settings import Settings

if TYPE_CHECKING:
    from unmask.adapters.metrics_prometheus import PrometheusObserver
    from unmask.adapters.queue_celery import CeleryQueue
    from unmask.adapters.store_watch import SqlWatch


def parts_of(settings: Settings) -> Parts:
    """The parts that the settings ask for: those of one process, or the platform's."""
    return DistributedParts(settings) if settings.distributed else Parts(settings)


class DistributedParts(Parts):
    """`Parts` whose adapters other processes share; each is made when first needed, after any fork."""

    @cached_property
    def queue(self) -> CeleryQueue:
        """The broker."""
        from unmask.adapters.queue_celery import CeleryQueue

        if not self.settings.broker:
            raise BadConfig("UNMASK_BROKER is not set: amqp://… or redis://…")
        return CeleryQueue(self.settings.broker)

    @cached_property
    def blobs(self) -> BlobStore:
        """The S3 store, else what one process has (a folder that all processes see)."""
        told = self.settings.s3
        if not told.endpoint:
            return super().blobs
        from unmask.adapters.blobs_s3 import S3Blobs, S3Bucket

        return S3Blobs(S3Bucket(**{field.name: getattr(told, field.name) for field in fields(S3Bucket)}))

    @cached_property
    def models(self) -> ModelServer:
        """Triton, else ONNX Runtime in this process."""
        if not self.settings.triton:
            return super().models
        from unmask.adapters.models_triton import Tls, TritonModels

        told = self.settings
        tls = None if told.triton_ca is None else Tls(ca=told.triton_ca, key=told.tls.key, certificate=told.tls.cert)
        return TritonModels(self.repository, self.settings.triton, seconds=self.settings.triton_seconds, tls=tls)

    @cached_property
    def observer(self) -> PrometheusObserver:
        """Metrics of this process."""
        from unmask.adapters.metrics_prometheus import PrometheusObserver

        return PrometheusObserver(lambda: self.watched.first_tenants(MOST_TENANTS))

    @cached_property
    def watched(self) -> SqlWatch:
        """What is counted and timed of the store's rows."""
        from unmask.adapters.store_watch import SqlWatch

        return SqlWatch(self.database)

    @cached_property
    def sinks(self) -> tuple[EventSink, ...]:
        """Where events go: webhooks where there are keys to sign with, the broker's exchange where one is named."""
        told = self.settings
        found: list[EventSink] = []
        if told.webhook_keys:
            from unmask.adapters.sink_webhook import WebhookSink

            keys = [key.encode() for key in told.webhook_keys]
            found.append(WebhookSink(keys=keys, clock=SystemClock(), allowed=told.allow_private))
        if told.events:
            from unmask.adapters.sink_queue import QueueSink

            found.append(QueueSink(told.broker, told.events))
        return tuple(found)

    def door(self, world: World) -> Door:
        """What takes submissions from the queue."""
        quota = Admission(self.access, SystemClock(), rated=False)
        return Door(world, self.dead, self.authenticator.caller, quota.accept)

    def relay(self, workers: int) -> Relay:
        """What delivers events."""
        return Relay(self.store, self.sinks, SystemClock(), RelayRule(workers=workers), self.observer.delivered)

    def sweeper(self, world: World) -> Sweeper:
        """What publishes again, and does the slow duties."""
        # It looks at releases and never puts the first one into an empty store: it may have no models, or others than workers.
        catalogue = SqlCatalogue(self.database, none_yet, none_yet)
        look = Lookout(self.watched, catalogue, self.models, SystemClock(), self.observer)
        duties = (*watch_duties(look), *slow_duties(self.erasing))
        return Sweeper(world, duties=duties, report=self.observer.counted)

    def distributed_world(self) -> World:
        """A world whose messages go to the broker."""
        told = self.settings
        rule = RetryRule(
            told.attempts,
            first=timedelta(seconds=told.retry_seconds),
            outage=timedelta(seconds=told.outage_seconds),
            stuck=timedelta(seconds=told.stuck_seconds),
        )
        return replace(self.world(self.queue, rule), observer=self.observer)

    def probe(self) -> None:
        """Uses database, blob store and broker once; raises what they raise."""
        self.database.probe()
        probe_blobs(self.blobs)
        self.queue.probe()


def none_yet() -> NoReturn:
    """In place of a first release or policy, for who must not choose it."""
    raise Unavailable("no release is in the store yet: the first process that has models puts it there")


def probe_blobs(blobs: BlobStore) -> None:
    """Writes, reads and removes an object; raises what the store raises, `Unavailable` when it gives back something else."""
    key, data = f"_probe/{os.getpid()}", os.urandom(16)
    blobs.put(key, data)
    found = blobs.get(key)
    blobs.delete(key)
    if found != data:
        raise Unavailable("the blob store gave back other bytes than it was given")
