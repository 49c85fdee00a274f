"""Who may do what over the wire: tokens, scopes, tenants that try to cross, limits; real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tests.system.grpc_servers import Stuck, served, stuck
from tests.system.tiny_models import dark_picture, face_picture
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.cli.serve import SERVICES, uses_tokens, wired_with_callers
from unmask.core.access import Scope, Tenant
from unmask.core.domain import BlobSource, CaseUpdate, State
from unmask.core.errors import BadConfig, BadRequest, Forbidden, QuotaExceeded, Unauthenticated, UnknownCase
from unmask.core.tokens import FRESH, Authenticator, hashed, new_token
from unmask.rpc.asking import Answer, Request
from unmask.rpc.callers import token_callers
from unmask.rpc.client import AsyncClient, Client
from unmask.settings import Settings
from unmask.v1 import ingestion_pb2
from unmask.v1.ingestion_pb2_grpc import IngestionServiceStub

ALL = frozenset(Scope)
Call = Callable[[AsyncClient], Awaitable[object]]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Issuer:
    """Makes tenants and tokens as `unmask tenant` and `unmask token` do."""

    access: SqlAccess

    def tenant(self, name: str, **fields: Any) -> Tenant:
        tenant = Tenant(name, now(), **fields)
        self.access.put_tenant(tenant)
        return tenant

    def token(self, tenant: str, *scopes: Scope, expires_at: datetime | None = None) -> str:
        token, text = new_token(tenant, "", scopes or ALL, now(), expires_at)
        self.access.add_token(token, hashed(text))
        return text

    def revoke(self, text: str) -> None:
        assert self.access.revoke(text.split("_")[1], now())


@dataclass
class Platform:
    """A server of all services, as `unmask serve` wires it, and its tenants."""

    address: str
    issuer: Issuer

    @asynccontextmanager
    async def client(self, tenant: str, *scopes: Scope, **more: Any) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(self.address, timeout=20, token=self.issuer.token(tenant, *scopes, **more)) as client:
            yield client


@contextmanager
def opened(state: Path) -> Iterator[Issuer]:
    state.mkdir(exist_ok=True)
    database = Database(f"sqlite:///{state / 'unmask.sqlite3'}")
    try:
        yield Issuer(SqlAccess(database))
    finally:
        database.close()


@pytest.fixture
async def platform(tiny: Path, tmp_path: Path) -> AsyncIterator[Platform]:
    state = tmp_path / "state"
    with opened(state) as issuer:
        for name in ("one", "two"):
            issuer.tenant(name)
        with wired_with_callers(SERVICES, Settings(models=tiny, state=state, auth="tokens")) as (services, caller_of):
            async with served(services, caller_of) as server:
                yield Platform(server.address, issuer)


async def checked(client: AsyncClient) -> object:
    return await client.check(face_picture())


async def waited(client: AsyncClient, case_id: str) -> list[object]:
    return [progress async for progress in client.wait_verdict(case_id)]


async def submitted(client: AsyncClient, *asked: Request | bytes) -> list[Answer]:
    async def requests() -> AsyncIterator[tuple[str, Request | bytes]]:
        for number, one in enumerate(asked):
            yield str(number), one

    return [answer async for _, answer in client.submit_many(requests())]


def reading(case_id: str) -> dict[str, Call]:
    """Every call that reads what is stored for a case."""
    return {
        "GetVerdict": lambda client: client.get_verdict(case_id),
        "WaitVerdict": lambda client: waited(client, case_id),
        "Align": lambda client: client.align(case_id=case_id),
        "Classify": lambda client: client.classify(case_id=case_id),
        "Localize": lambda client: client.localize(case_id=case_id),
    }


LOOKING: dict[str, Call] = {
    "Submit": lambda client: client.submit(face_picture()),
    "SubmitMany": lambda client: submitted(client, face_picture()),
    "Align": lambda client: client.align(face_picture()),
    "Classify": lambda client: client.classify(face_picture()),
    "Localize": lambda client: client.localize(face_picture()),
}


def flipped(text: str) -> str:
    """Another token of the same id."""
    return text[:-1] + ("A" if text[-1] != "A" else "B")


async def test_who_shows_no_good_token_gets_nothing(platform: Platform) -> None:
    issuer = platform.issuer
    revoked = issuer.token("one")
    issuer.revoke(revoked)
    bad = {
        "": "no token",
        "nonsense": "not valid",
        "unm_0123456789abcdef_" + "s" * 43: "not valid",
        flipped(issuer.token("one")): "not valid",
        issuer.token("one", expires_at=now() - timedelta(seconds=1)): "expired",
        revoked: "revoked",
    }
    for token, says in bad.items():
        async with AsyncClient(platform.address, token=token) as client:
            for call in (*LOOKING.values(), *reading("x").values(), checked):
                with pytest.raises(Unauthenticated, match=says):
                    await call(client)
    async with grpc.aio.insecure_channel(platform.address) as channel:
        stub: Any = IngestionServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetVerdict(ingestion_pb2.GetVerdictRequest(case_id="x"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_health_asks_for_no_token(platform: Platform) -> None:
    async with grpc.aio.insecure_channel(platform.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status in {1, 2}


async def test_a_token_does_what_its_scopes_say_and_no_more(platform: Platform) -> None:
    async with platform.client("one") as everything:
        case_id = (await everything.check(face_picture())).id
    async with platform.client("one", Scope.SUBMIT) as client:
        for call in LOOKING.values():
            await call(client)
        for call in (*reading(case_id).values(), checked):
            with pytest.raises(Forbidden, match="lacks the scope read"):
                await call(client)
    async with platform.client("one", Scope.READ) as client:
        for call in reading(case_id).values():
            await call(client)
        for call in (*LOOKING.values(), checked):
            with pytest.raises(Forbidden, match="lacks the scope submit"):
                await call(client)
    async with platform.client("one", Scope.REVIEW, Scope.ADMIN) as client:
        for call in (*LOOKING.values(), *reading(case_id).values()):
            with pytest.raises(Forbidden):
                await call(client)


async def test_a_synchronous_client_shows_its_token_too(platform: Platform) -> None:
    token = platform.issuer.token("one")

    def use() -> str:
        with Client(platform.address, token=token, timeout=20) as client:
            case = client.submit(face_picture())
            assert list(client.wait_verdict(case.id))[-1].case.state is State.DECIDED
            assert dict(client.submit_many([("a", face_picture())])).keys() == {"a"}
        with Client(platform.address) as nobody, pytest.raises(Unauthenticated):
            nobody.get_verdict(case.id)
        return case.id

    await asyncio.to_thread(use)


async def test_no_tenant_reaches_anothers_cases_by_any_call(platform: Platform) -> None:
    async with platform.client("one") as one, platform.client("two") as two:
        mine = await one.check(Request(face_picture(), idempotency_key="k", labels={"whose": "one"}))
        for call in reading(mine.id).values():
            await call(one)
            with pytest.raises(UnknownCase):
                await call(two)
        # The same bytes and key are another case, judged afresh, not an echo of the other tenant's.
        theirs = await two.check(Request(face_picture(), idempotency_key="k", labels={"whose": "two"}))
        assert theirs.id != mine.id and "align" in theirs.timings_ms and theirs.label == mine.label
        for call in reading(theirs.id).values():
            with pytest.raises(UnknownCase):
                await call(one)
        # And no blob of theirs.
        stolen = Request(BlobSource(f"one/pictures/{mine.sha256}"))
        with pytest.raises(BadRequest, match="not this tenant's"):
            await two.submit(stolen)
        with pytest.raises(BadRequest, match="not this tenant's"):
            await two.check(stolen)
        (answer,) = await submitted(two, stolen)
        assert isinstance(answer, BadRequest)


async def test_every_call_of_the_served_services_is_tried_across_tenants(platform: Platform) -> None:
    tried = {"Submit", "SubmitMany", "Check", *reading("x")}
    async with platform.client("one") as one, platform.client("two") as two:
        await one.submit(Request(dark_picture(), batch="b"))
        assert (await one.get_batch("b")).total == 1
        assert (await two.get_batch("b")).total == 0
        tried.add("GetBatch")
    protos = [f"{name}_pb2" for name in ("ingestion", "alignment", "classification", "localization")]
    modules = [__import__(f"unmask.v1.{name}", fromlist=["DESCRIPTOR"]) for name in protos]
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert {method.name for service in services for method in service.methods} == tried


async def test_limits_refuse_with_the_time_to_come_again(platform: Platform) -> None:
    platform.issuer.tenant("few", per_day=3)
    token = platform.issuer.token("few")
    async with AsyncClient(platform.address, token=token, timeout=20) as client:
        await client.submit(Request(dark_picture(), idempotency_key="k"))
        await client.submit(Request(dark_picture(), idempotency_key="k"))
        await client.check(dark_picture())
        answers = await submitted(client, *(dark_picture(number) for number in range(5)))
        refused = [answer for answer in answers if isinstance(answer, QuotaExceeded)]
        assert len(refused) == 4 and all("may submit 3 pictures a day" in error.detail for error in refused)
        for call in (client.submit(dark_picture()), client.check(dark_picture())):
            with pytest.raises(QuotaExceeded) as caught:
                await call
            assert caught.value.retry_after is not None and 1.0 <= caught.value.retry_after <= 86_400.0
        await client.align(dark_picture())  # nothing is submitted
    async with platform.client("one") as other:
        await other.submit(dark_picture())
    with pytest.raises(grpc.aio.AioRpcError) as said:
        async with grpc.aio.insecure_channel(platform.address) as channel:
            stub: Any = IngestionServiceStub(channel)  # type: ignore[no-untyped-call]
            request = ingestion_pb2.SubmitRequest(submission=Request(dark_picture()).message())
            await stub.Submit(request, metadata=[("authorization", f"Bearer {token}")])
    assert said.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    status = rpc_status.from_call(said.value)  # type: ignore[arg-type]
    assert status is not None and any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds >= 1


async def test_a_disabled_tenant_is_told_so(platform: Platform) -> None:
    platform.issuer.tenant("gone", disabled=True)
    async with platform.client("gone") as client:
        with pytest.raises(Forbidden, match="'gone' is disabled"):
            await client.submit(face_picture())


class Moved:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.by = timedelta()

    def now(self) -> datetime:
        return now() + self.by


async def test_a_token_revoked_in_the_middle_of_a_stream_ends_it(tiny: Path) -> None:
    async with stuck(tiny) as still:
        issuer, clock = Issuer(still.parts.access), Moved()
        issuer.tenant("one")
        token, reader = issuer.token("one"), issuer.token("one")
        caller_of = token_callers(Authenticator(still.parts.access, clock), still.readers)
        async with served(still.services(), caller_of) as server, AsyncClient(server.address, token=token) as client:
            case = await client.submit(dark_picture())
            await _stream_ends(client, issuer, clock, token)
            async with AsyncClient(server.address, token=reader) as watching:
                await _wait_ends(watching, issuer, clock, reader, still, case.id)


async def _stream_ends(client: AsyncClient, issuer: Issuer, clock: Moved, token: str) -> None:
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[tuple[str, bytes]]:
        yield "0", dark_picture(0)
        await answered.wait()
        issuer.revoke(token)
        clock.by += FRESH + timedelta(seconds=1)
        yield "1", dark_picture(1)

    seen = []
    with pytest.raises(Unauthenticated, match="revoked"):
        async for request_id, _ in client.submit_many(requests()):
            seen.append(request_id)
            answered.set()
    assert seen == ["0"]


async def _wait_ends(client: AsyncClient, issuer: Issuer, clock: Moved, token: str, still: Stuck, case_id: str) -> None:
    with pytest.raises(Unauthenticated, match="revoked"):
        async for _ in client.wait_verdict(case_id):
            issuer.revoke(token)
            clock.by += FRESH + timedelta(seconds=1)
            case = still.world.store.case("one", case_id)
            assert still.world.store.commit(case, CaseUpdate(replace(case, revision=case.revision + 1)))
            still.changes.changed(case_id)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (Settings(), False),
        (Settings(state=Path("x")), False),
        (Settings(state=Path("x"), auth="tokens"), True),
        (Settings(database="postgresql://x"), True),
        (Settings(database="postgresql://x", auth="none"), False),
    ],
)
def test_tokens_are_asked_for_where_there_is_a_database(settings: Settings, tokens: bool) -> None:
    assert uses_tokens(settings) is tokens


def test_tokens_that_nobody_could_hold_are_refused() -> None:
    with pytest.raises(BadConfig, match="UNMASK_AUTH=tokens"):
        uses_tokens(Settings(auth="tokens"))
