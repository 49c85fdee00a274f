"""Real servers on loopback for the tests, over the tiny models."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from unmask.alignment.server import AlignmentServer
from unmask.bootstrap import Parts
from unmask.classification.server import ClassificationServer
from unmask.cli.serve import SERVICES, wired
from unmask.core.domain import Message
from unmask.core.pipeline import RetryRule
from unmask.core.ports import CaseStore
from unmask.core.world import World
from unmask.ingestion.server import IngestionServer
from unmask.localization.server import LocalizationServer
from unmask.rpc.callers import CallerOf, local_caller
from unmask.rpc.serving import Server, ServerSettings, Service, started
from unmask.rpc.work import Changes, Workers
from unmask.settings import Settings

ANY_PORT = "127.0.0.1:0"


@asynccontextmanager
async def served(services: Sequence[Service], caller_of: CallerOf = local_caller, grace: float = 5.0) -> AsyncIterator[Server]:
    """A started server."""
    async with started(services, ServerSettings(ANY_PORT, grace=grace), caller_of) as server:
        yield server


@asynccontextmanager
async def all_served(models: Path, state: Path | None = None) -> AsyncIterator[str]:
    """The address of a server of all four services, wired as `unmask serve` does."""
    with wired(SERVICES, Settings(models=models, state=state)) as services:
        async with served(services) as server:
            yield server.address


class NoWorker:
    """A queue whose workers never come; the tests take the steps themselves."""

    def publish(self, message: Message) -> None:
        """Drops the hint."""


@dataclass
class Stuck:
    """A world in which nothing moves by itself, and what serves it."""

    world: World
    parts: Parts
    changes: Changes
    workers: Workers
    readers: Workers

    def services(self) -> list[Service]:
        """All four."""
        return [
            IngestionServer(self.world, self.parts.models, self.workers, self.readers, self.changes),
            AlignmentServer(self.world, self.parts.models, self.workers),
            ClassificationServer(self.world, self.parts.models, self.workers),
            LocalizationServer(self.world, self.parts.models, self.workers),
        ]

    def with_store(self, store: CaseStore) -> Stuck:
        """The same over another store."""
        return dataclasses.replace(self, world=dataclasses.replace(self.world, store=store))


@asynccontextmanager
async def stuck(models: Path) -> AsyncIterator[Stuck]:
    """A world without workers."""
    parts = Parts(Settings(models=models))
    workers, readers = Workers(2, 8), Workers(1, 0)
    try:
        yield Stuck(parts.world(NoWorker(), RetryRule()), parts, Changes(), workers, readers)
    finally:
        for pool in (workers, readers):
            await asyncio.to_thread(pool.close)
