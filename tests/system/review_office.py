"""A served deployment with tokens of several tenants: ingestion and review over the tiny models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.grpc_servers import served
from unmask.bootstrap import Parts, inline_world
from unmask.core.access import Scope, Tenant
from unmask.core.ports import BlobStore
from unmask.core.tokens import hashed, new_token
from unmask.ingestion.server import IngestionServer
from unmask.review.server import ReviewServer
from unmask.rpc.callers import token_callers
from unmask.rpc.client import AsyncClient
from unmask.rpc.work import Changes, Workers
from unmask.settings import Settings

EVERYTHING = frozenset(Scope)


@dataclass
class Office:
    """A served deployment, and its tokens."""

    address: str
    parts: Parts

    def token(self, tenant: str, name: str, scopes: Iterable[Scope] = EVERYTHING) -> str:
        """A new token of that tenant."""
        now = self.parts.desk.clock.now()
        self.parts.access.put_tenant(Tenant(tenant, now))
        token, text = new_token(tenant, name, scopes, now)
        self.parts.access.add_token(token, hashed(text))
        return text

    def client(self, tenant: str = "acme", name: str = "zoë", scopes: Iterable[Scope] = EVERYTHING) -> AsyncClient:
        """A client with a token of its own."""
        return AsyncClient(self.address, timeout=20, token=self.token(tenant, name, scopes))


@asynccontextmanager
async def served_office(tiny: Path, state: Path, blobs: BlobStore | None = None) -> AsyncIterator[Office]:
    """Ingestion and review; a case has come to its end when its submission is answered."""
    parts = Parts(Settings(models=tiny, state=state))
    if blobs is not None:
        parts.blobs = blobs
    workers, readers = Workers(2, 8), Workers(2, 0)
    services = [
        IngestionServer(inline_world(parts), parts.models, workers, readers, Changes()),
        ReviewServer(parts.desk, readers, parts.link_of),
    ]
    try:
        async with served(services, token_callers(parts.authenticator, readers)) as server:
            yield Office(server.address, parts)
    finally:
        for pool in (workers, readers):
            await asyncio.to_thread(pool.close)
        parts.database.close()
