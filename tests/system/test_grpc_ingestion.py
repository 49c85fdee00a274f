"""Ingestion over gRPC: real servers on loopback, the whole pipeline behind them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import png
from tests.system.grpc_servers import Stuck, all_served, served, stuck
from tests.system.tiny_models import dark_picture, face_picture
from unmask.core.domain import Action, BlobSource, BytesSource, Label, Stage, State, UrlSource, Verdict
from unmask.core.errors import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    IdempotencyConflict,
    Unavailable,
    UnknownCase,
    UnmaskError,
)
from unmask.embedded import Unmask
from unmask.rpc.asking import Answer, Request
from unmask.rpc.client import AsyncClient, Client
from unmask.rpc.convert import CaseStatus

MIB = 1024 * 1024


@pytest.fixture
async def address(tiny: Path) -> AsyncIterator[str]:
    async with all_served(tiny) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, timeout=20) as client:
        yield client


@pytest.fixture
async def still(tiny: Path) -> AsyncIterator[Stuck]:
    async with stuck(tiny) as world:
        yield world


def without_its_own(verdict: Verdict) -> Verdict:
    return dataclasses.replace(verdict, id="", timings_ms={}, path=None)


def noise(size: int) -> bytes:
    """A PNG of about `size` bytes."""
    side = int((size / 3) ** 0.5)
    return png(np.random.default_rng(7).integers(0, 60, (side, side, 3), dtype=np.uint8), compress_level=0)


@pytest.mark.parametrize(
    ("picture", "label", "action"),
    [
        (face_picture(red=60, blue=60), Label.REAL, Action.ALLOW),
        (face_picture(red=255, blue=60), Label.SYNTHETIC, Action.REVIEW),
        (face_picture(red=60, blue=255), Label.MANIPULATED, Action.REVIEW),
        (dark_picture(), Label.NO_FACE, Action.ALLOW),
    ],
)
async def test_check_says_what_the_library_says(
    client: AsyncClient, tiny: Path, picture: bytes, label: Label, action: Action
) -> None:
    verdict = await client.check(picture)
    assert (verdict.label, verdict.action) == (label, action)
    assert without_its_own(verdict) == without_its_own(Unmask(models=tiny).check(picture))
    assert verdict.timings_ms["total"] > 0


async def test_submit_wait_and_get(client: AsyncClient) -> None:
    case = await client.submit(Request(face_picture(), labels={"post": "71"}, callback="https://platform.example/hook"))
    seen = [progress async for progress in client.wait_verdict(case.id)]
    assert [progress.case.ended for progress in seen] == [False] * (len(seen) - 1) + [True]
    last = seen[-1]
    assert (last.case.state, last.case.stage) == (State.DECIDED, Stage.DECIDED)
    assert last.verdict is not None and last.verdict.id == case.id
    assert await client.get_verdict(case.id) == last
    assert [progress async for progress in client.wait_verdict(case.id)] == [last]


async def test_a_picture_that_is_none_fails_its_case_and_its_check(client: AsyncClient) -> None:
    with pytest.raises(BadImage, match="not an image") as caught:
        await client.check(b"just some words, saved as photo.jpg")
    case_id = caught.value.detail.split()[1].rstrip(":")
    progress = await client.get_verdict(case_id)
    assert (progress.case.state, progress.verdict) == (State.FAILED, None)
    assert progress.case.failure is not None and progress.case.failure.code == "bad_image"
    assert [p async for p in client.wait_verdict(case_id)] == [progress]


async def test_an_idempotency_key_names_one_case_and_one_body(client: AsyncClient) -> None:
    first = await client.submit(Request(face_picture(seed=1), idempotency_key="once"))
    again = await client.submit(Request(face_picture(seed=1), idempotency_key="once"))
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict, match="once"):
        await client.submit(Request(face_picture(seed=2), idempotency_key="once"))


async def test_the_same_bytes_make_a_new_case_that_reuses_the_verdict(client: AsyncClient) -> None:
    one, two = await client.check(face_picture()), await client.check(face_picture())
    assert one.id != two.id and without_its_own(one) == without_its_own(two)
    assert set(two.timings_ms) == {"ingest", "total"}
    # What its stages "stored" is what that verdict says.
    aligned, faces = await client.align(case_id=two.id), (await client.align(case_id=one.id)).faces
    assert [(face.box, face.landmarks) for face in aligned.faces] == [(face.box, face.landmarks) for face in faces]
    assert (await client.classify(case_id=two.id)).classified[0].synthetic == one.faces[0].synthetic
    assert (await client.localize(case_id=two.id)).localized[0].manipulated == one.faces[0].manipulated


async def test_what_is_refused_at_the_door(client: AsyncClient) -> None:
    for asked, says in (
        (Request(UrlSource("https://platform.example/a.jpg")), "switched off"),
        (Request(BlobSource("other/pictures/1")), "not this tenant's"),
        (Request(face_picture(), idempotency_key="k" * 300), "at most 255"),
        (Request(face_picture(), callback="\udcff"), "not Unicode"),
    ):
        with pytest.raises(BadRequest, match=says):
            await client.submit(asked)
    with pytest.raises(UnknownCase):
        await client.get_verdict("no-such-case")
    with pytest.raises(UnknownCase):
        [p async for p in client.wait_verdict("no-such-case")]


async def test_ten_megabytes_pass_and_more_than_the_limit_does_not(client: AsyncClient) -> None:
    assert (await client.check(noise(10 * MIB))).label is Label.NO_FACE
    with pytest.raises(BadImage, match="at most 20971520"):
        await client.submit(bytes(20 * MIB + 1))
    with pytest.raises(BadRequest, match="larger than"):
        await client.submit(bytes(21 * MIB))
    assert (await client.check(dark_picture())).label is Label.NO_FACE  # the connection lives on


async def test_submit_many_answers_each_once(client: AsyncClient, tmp_path: Path) -> None:
    asked: list[tuple[str, Request | bytes | Path]] = [(f"good-{i}", face_picture(seed=i)) for i in range(150)]
    asked += [(f"url-{i}", Request(UrlSource("https://platform.example/a.jpg"))) for i in range(20)]
    await client.submit(Request(face_picture(seed=999), idempotency_key="r"))
    asked += [("repeated", Request(face_picture(seed=999), idempotency_key="r")) for _ in range(20)]
    asked += [(f"conflict-{i}", Request(face_picture(seed=i), idempotency_key="r")) for i in range(5)]
    asked += [("", dark_picture()), ("missing-file", tmp_path / "none.jpg"), ("not-a-picture", b"words")]
    random.Random(3).shuffle(asked)

    async def requests() -> AsyncIterator[tuple[str, Request | bytes | Path]]:
        for one in asked:
            yield one

    answers: list[tuple[str, Answer]] = [answer async for answer in client.submit_many(requests())]
    assert Counter(name for name, _ in answers) == Counter(name for name, _ in asked)
    kinds = {name: type(answer) for name, answer in answers}
    assert all(kinds[f"good-{i}"] is CaseStatus for i in range(150))
    assert all(kinds[f"url-{i}"] is BadRequest for i in range(20))
    assert len({answer.id for name, answer in answers if name == "repeated" and isinstance(answer, CaseStatus)}) == 1
    assert all(kinds[f"conflict-{i}"] is IdempotencyConflict for i in range(5))
    assert (kinds[""], kinds["missing-file"], kinds["not-a-picture"]) == (BadRequest, BadImage, CaseStatus)
    ids = [answer.id for name, answer in answers if isinstance(answer, CaseStatus)]
    ends = [[p async for p in client.wait_verdict(case_id)][-1].case for case_id in ids]
    assert Counter(end.state for end in ends) == {State.DECIDED: 170, State.FAILED: 1}


async def test_submit_many_answers_while_the_stream_is_open(client: AsyncClient) -> None:
    go_on = asyncio.Event()

    async def requests() -> AsyncIterator[tuple[str, bytes]]:
        yield "first", dark_picture(1)
        await go_on.wait()
        yield "second", dark_picture(2)

    names = []
    async for name, answer in client.submit_many(requests()):
        assert isinstance(answer, CaseStatus)
        names.append(name)
        go_on.set()
    assert names == ["first", "second"]


async def test_submit_many_reads_no_further_while_enough_is_in_flight(still: Stuck) -> None:
    gate, taken, answered = threading.Event(), 0, 0

    async def requests() -> AsyncIterator[tuple[str, bytes]]:
        nonlocal taken
        for i in range(200):
            taken = i + 1
            yield str(i), dark_picture(i) + bytes(MIB)

    async with served(still.services()) as server, AsyncClient(server.address) as client:
        held = [asyncio.create_task(still.workers.run_when_free(gate.wait)) for _ in range(2)]  # all threads there are
        answers = client.submit_many(requests())
        first = asyncio.ensure_future(anext(answers))
        try:
            await asyncio.sleep(1.0)
            in_flight = taken
        finally:
            gate.set()
        await asyncio.gather(first, *held)
        answered = 1 + len([answer async for answer in answers])
    assert 16 <= in_flight < 40  # those in flight, and what the transport holds
    assert (taken, answered) == (200, 200)


async def test_a_stream_that_is_given_up_leaves_the_server_well(client: AsyncClient) -> None:
    async def requests() -> AsyncIterator[tuple[str, bytes]]:
        for i in range(10_000):
            yield str(i), face_picture(seed=i % 3)

    answers = client.submit_many(requests())
    await anext(answers)
    await answers.aclose()  # type: ignore[attr-defined]
    assert (await client.check(face_picture())).label is not None


async def test_an_error_of_the_callers_own_requests_reaches_it(client: AsyncClient) -> None:
    async def requests() -> AsyncIterator[tuple[str, bytes]]:
        yield "one", dark_picture()
        raise LookupError("the caller's database is gone")

    with pytest.raises(LookupError, match="database is gone"):
        [answer async for answer in client.submit_many(requests())]


async def test_waiting_ends_with_the_deadline_and_names_the_case(still: Stuck) -> None:
    async with served(still.services()) as server, AsyncClient(server.address, timeout=0.6) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="goes on"):
            await client.check(dark_picture())
        assert 0.3 < time.monotonic() - started < 2.0
        case = await client.submit(dark_picture(1))
        with pytest.raises(DeadlineExceeded, match=case.id):
            [p async for p in client.wait_verdict(case.id)]


async def test_waiting_holds_no_thread_and_cancelling_leaves_nothing(still: Stuck) -> None:
    async with served(still.services()) as server, AsyncClient(server.address) as client:
        case = await client.submit(dark_picture())

        async def wait() -> None:
            async for _ in client.wait_verdict(case.id):
                pass

        waiting = [asyncio.create_task(wait()) for _ in range(100)]
        await asyncio.sleep(0.5)
        # A hundred wait, one thread looks: others are answered at once.
        assert (await asyncio.wait_for(client.get_verdict(case.id), 2)).case.id == case.id
        assert len(still.changes._waiting[case.id]) == 100
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for _ in range(100):
            if not still.changes._waiting:
                break
            await asyncio.sleep(0.05)
        assert still.changes._waiting == {}


async def test_a_server_that_is_not_there(tiny: Path) -> None:
    async with all_served(tiny) as address:
        pass
    async with AsyncClient(address, timeout=5) as client:
        with pytest.raises(Unavailable):
            await client.check(dark_picture())


async def test_the_synchronous_client(address: str, tmp_path: Path) -> None:
    file = tmp_path / "a face.png"
    file.write_bytes(face_picture(red=255, blue=60))

    def requests() -> Iterator[tuple[str, bytes | Path]]:
        yield "file", file
        yield "none", tmp_path / "none.png"
        yield "bytes", dark_picture()

    def use() -> None:
        with Client(address) as client:
            verdict = client.check(file)
            assert (verdict.label, verdict.path) == (Label.SYNTHETIC, str(file))
            answers = dict(client.submit_many(requests()))
            assert set(answers) == {"file", "none", "bytes"} and isinstance(answers["none"], BadImage)
            case = client.submit(Request(BytesSource(face_picture(seed=5))))
            assert list(client.wait_verdict(case.id))[-1].verdict == client.get_verdict(case.id).verdict
            with pytest.raises(BadImage):
                client.check(b"words")
            with pytest.raises(ZeroDivisionError):
                list(client.submit_many((str(i), bytes(1 // i)) for i in (1, 0)))
            with pytest.raises(BadImage, match="cannot be read"):
                client.check(tmp_path / "none.png")
        with Client("127.0.0.1:1", timeout=5) as client, pytest.raises(UnmaskError):
            client.get_verdict("x")

    await asyncio.to_thread(use)
