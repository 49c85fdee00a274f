"""Review and batches over gRPC: a real server, real tokens of several tenants, the whole pipeline behind it."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.adapters import s3
from tests.system.review_office import EVERYTHING, Office, served_office
from tests.system.tiny_models import dark_picture, face_picture
from unmask.core.access import Scope
from unmask.core.domain import Action, Label, Priority, Stage, State
from unmask.core.errors import BadRequest, Forbidden, NotReady, Overtaken, Unauthenticated, UnknownCase
from unmask.core.review import CaseFilter, Order, Ruling, Standing, Truth
from unmask.rpc.asking import Request
from unmask.rpc.client import AsyncClient, Client
from unmask.v1.review_pb2 import DecideRequest

FAKE = Ruling(Action.BLOCK, "confirmed", Truth.SYNTHETIC, "stylegan2", "a third ear")
REAL = Ruling(Action.ALLOW, "false_positive", Truth.REAL)
SYNTHETIC = {"red": 255, "blue": 60}


@pytest.fixture
async def office(tiny: Path, tmp_path: Path) -> AsyncIterator[Office]:
    async with served_office(tiny, tmp_path / "state") as office:
        yield office


async def test_a_case_is_listed_looked_at_decided_and_appealed(office: Office) -> None:
    async with office.client() as client:
        case = await client.submit(Request(face_picture(**SYNTHETIC), labels={"post": "71"}, batch="monday"))
        await client.submit(face_picture(red=60, blue=60))  # allowed: nobody has to look at it
        (waiting,) = (await client.list_cases()).cases
        assert (waiting.status.id, waiting.label, waiting.action) == (case.id, Label.SYNTHETIC, Action.REVIEW)
        assert (waiting.truth, waiting.reviewed, waiting.batch, waiting.labels) == (None, False, "monday", {"post": "71"})
        assert (waiting.status.state, waiting.status.stage) == (State.DECIDED, Stage.DECIDED)

        file = await client.get_case(case.id)
        assert file.case == waiting and file.verdict == (await client.get_verdict(case.id)).verdict
        assert [(one.actor, one.action) for one in file.decisions] == [("policy", Action.REVIEW)]
        assert file.picture_url == ""  # a folder gives no links

        after = await client.decide(case.id, FAKE)
        assert (after.action, after.truth, after.reviewed) == (Action.BLOCK, Truth.SYNTHETIC, True)
        assert after.revision == waiting.revision + 1
        assert await client.decide(case.id, FAKE) == after
        verdict = (await client.get_verdict(case.id)).verdict
        assert verdict is not None and verdict.action is Action.BLOCK and verdict.reasons[-1].code == "decided_by_reviewer"

        back = await client.appeal(case.id, "says_real", "it is my own face")
        assert (back.action, back.truth, back.reviewed) == (Action.REVIEW, None, False)
        assert [one.status.id for one in (await client.list_cases()).cases] == [case.id]
        said = (await client.get_case(case.id)).decisions
        assert [one.actor.partition(":")[0] for one in said] == ["policy", "reviewer", "appeal"]
        assert (said[1].truth, said[1].generator, said[1].note) == ("synthetic", "stylegan2", "a third ear")
        assert said[1].at.tzinfo is not None and said[0].at <= said[1].at <= said[2].at
    kinds = [event.kind for event in office.parts.store.outbox(99) if event.case_id == case.id]
    assert kinds == ["verdict.decided", "decision.made", "decision.made"]
    acts = [(entry.tenant, entry.act, entry.subject) for entry in office.parts.access.audited("acme", 99)]
    assert acts[::-1] == [("acme", f"review.{act}", case.id) for act in ("decide", "decide", "appeal")]


async def test_filters_and_pages(office: Office) -> None:
    async with office.client() as client:
        made = [(await client.submit(Request(face_picture(seed=n, **SYNTHETIC), batch="b" * (n % 2)))).id for n in range(5)]
        passed = (await client.submit(dark_picture())).id
        await client.decide(made[4], REAL)

        async def ids(**wanted: Any) -> list[str]:
            return [case.status.id for case in (await client.list_cases(CaseFilter(**wanted))).cases]

        assert await ids() == made[:4]
        assert await ids(order=Order.NEWEST) == made[3::-1]
        assert await ids(standing=Standing.DECIDED) == [made[4]]
        assert await ids(standing=Standing.ALL) == [*made, passed]
        assert await ids(standing=Standing.ALL, label=Label.NO_FACE, action=Action.ALLOW) == [passed]
        assert await ids(batch="b") == [made[1], made[3]]
        first = await client.list_cases(size=3)
        rest = await client.list_cases(size=3, token=first.next_token)
        assert [case.status.id for case in first.cases + rest.cases] == made[:4] and not rest.next_token
        with pytest.raises(BadRequest, match="page_token"):
            await client.list_cases(CaseFilter(Standing.ALL), token=first.next_token)
        with pytest.raises(BadRequest, match="page_size"):
            await client.list_cases(size=501)


async def test_what_cannot_be_decided(office: Office) -> None:
    async with office.client() as client:
        broken = await client.submit(b"words")
        assert (await client.get_verdict(broken.id)).case.state is State.FAILED
        for act in (client.decide(broken.id, FAKE), client.appeal(broken.id, "says_real")):
            with pytest.raises(NotReady, match="failed"):
                await act
        case = await client.submit(face_picture(**SYNTHETIC))
        with pytest.raises(BadRequest, match="expected one of"):
            await client.decide(case.id, Ruling(Action.BLOCK, "because", Truth.UNKNOWN))
        with pytest.raises(BadRequest, match="expected one of"):
            await client.appeal(case.id, "")
        with pytest.raises(BadRequest, match="action"):
            await client._call(client._stubs.review.Decide, DecideRequest(case_id=case.id, reason="confirmed"))
        assert len((await client.get_case(case.id)).decisions) == 1


async def test_no_method_crosses_tenants(office: Office) -> None:
    async with office.client() as ours, office.client("rival") as theirs:
        case = await ours.submit(Request(face_picture(**SYNTHETIC), batch="b"))
        await ours.submit(face_picture(seed=1, **SYNTHETIC))
        token = (await ours.list_cases(size=1)).next_token
        assert token
        for wanted in (CaseFilter(), CaseFilter(Standing.ALL), CaseFilter(Standing.ALL, batch="b")):
            assert (await theirs.list_cases(wanted)).cases == ()
        assert (await theirs.list_cases(size=1, token=token)).cases == ()
        for act in (
            theirs.get_case(case.id),
            theirs.decide(case.id, FAKE),
            theirs.appeal(case.id, "says_real"),
            theirs.get_verdict(case.id),
        ):
            with pytest.raises(UnknownCase):
                await act
        assert (await theirs.get_batch("b")).total == 0
        assert [one.actor for one in (await ours.get_case(case.id)).decisions] == ["policy"]


async def test_who_may_review(office: Office) -> None:
    async with office.client() as client:
        case = await client.submit(face_picture(**SYNTHETIC))
    lacking: list[Callable[[AsyncClient], Any]] = [
        lambda client: client.list_cases(),
        lambda client: client.get_case(case.id),
        lambda client: client.decide(case.id, FAKE),
        lambda client: client.appeal(case.id, "says_real"),
    ]
    async with office.client(scopes=EVERYTHING - {Scope.REVIEW}) as client:
        for act in lacking:
            with pytest.raises(Forbidden, match="review"):
                await act(client)
    async with AsyncClient(office.address, timeout=20) as client:
        for act in lacking:
            with pytest.raises(Unauthenticated):
                await act(client)
    async with office.client(scopes=[Scope.REVIEW]) as client:
        assert (await client.decide(case.id, FAKE)).reviewed
        with pytest.raises(Forbidden):
            await client.get_batch("b")


async def test_two_reviewers_at_once_lose_nothing(office: Office) -> None:
    async with office.client() as client:
        case = await client.submit(face_picture(**SYNTHETIC))
        seen = (await client.get_case(case.id)).case.revision
    clients = [office.client(name=str(n)) for n in range(6)]
    await asyncio.gather(*(client.decide(case.id, (FAKE, REAL)[n % 2]) for n, client in enumerate(clients)))
    said = (await clients[0].get_case(case.id)).decisions
    assert len(said) == 7 and len({one.actor for one in said}) == 7
    row = (await clients[0].get_case(case.id)).case
    assert (row.revision, row.action) == (seen + 6, said[-1].action)

    careful = Ruling(Action.BLOCK, "forbidden", Truth.UNKNOWN, revision=row.revision)
    answers = await asyncio.gather(*(client.decide(case.id, careful) for client in clients), return_exceptions=True)
    told = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(told) == 5 and {type(answer) for answer in told} == {Overtaken}
    assert len((await clients[0].get_case(case.id)).decisions) == 8
    for client in clients:
        await client.close()


async def test_a_batch_has_a_view(office: Office) -> None:
    async with office.client() as client:
        assert (await client.get_batch("friday")).done is None

        async def asked() -> AsyncIterator[tuple[str, Request]]:
            for n in range(5):
                picture = b"words" if n == 4 else face_picture(seed=n)
                yield str(n), Request(picture, priority=Priority.BATCH, batch="friday")

        ids = [answer.id async for _, answer in client.submit_many(asked())]  # type: ignore[union-attr]
        batch = await client.get_batch("friday")
        assert (batch.name, batch.states, batch.total, batch.ended, batch.done) == (
            "friday",
            {State.DECIDED: 4, State.FAILED: 1},
            5,
            5,
            1.0,
        )
        with pytest.raises(BadRequest, match="name"):
            await client.get_batch("")
    assert {office.parts.store.case("acme", case_id).priority for case_id in ids} == {Priority.BATCH}


async def test_a_picture_has_a_link_where_the_blob_store_gives_one(
    tiny: Path, tmp_path: Path, seaweedfs: Any, bucket: str
) -> None:
    async with served_office(tiny, tmp_path / "state", s3(seaweedfs, bucket)) as office, office.client() as client:
        picture = face_picture(**SYNTHETIC)
        file = await client.get_case((await client.submit(picture)).id)
        assert file.picture_url.startswith("http://127.0.0.1:")

        def read() -> bytes:
            with urllib.request.urlopen(file.picture_url, timeout=10) as answer:
                return bytes(answer.read())

        assert await asyncio.to_thread(read) == picture
        # A case without a picture has none.
        assert (await client.get_case((await client.submit(b"words")).id)).picture_url == ""


async def test_the_synchronous_client(office: Office) -> None:
    token = office.token("acme", "zoë")

    def use() -> None:
        with Client(office.address, timeout=20, token=token) as client:
            made = [client.submit(Request(face_picture(seed=n, **SYNTHETIC), batch="b")).id for n in range(3)]
            assert [case.status.id for case in client.cases()] == made
            assert [case.status.id for case in client.list_cases(size=2).cases] == made[:2]
            assert client.decide(made[0], FAKE).truth is Truth.SYNTHETIC
            assert client.appeal(made[0], "says_real").truth is None
            assert len(client.get_case(made[0]).decisions) == 3
            assert client.get_batch("b").total == 3

    await asyncio.to_thread(use)
