"""Alignment, classification and localization over gRPC: inline calls store nothing, case ids read what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.grpc_servers import Stuck, served, stuck
from tests.system.tiny_models import dark_picture, face_picture
from unmask.core.domain import Label, Step
from unmask.core.errors import BadImage, BadRequest, NotReady, UnknownCase
from unmask.core.runner import advance
from unmask.embedded import Unmask
from unmask.rpc.client import AsyncClient

DOCTORED = face_picture(red=160, blue=255)


@pytest.fixture
async def still(tiny: Path) -> AsyncIterator[Stuck]:
    async with stuck(tiny) as world:
        yield world


@pytest.fixture
async def client(still: Stuck) -> AsyncIterator[AsyncClient]:
    async with served(still.services()) as server, AsyncClient(server.address) as client:
        yield client


async def test_inline_calls_say_what_the_pipeline_says_and_store_nothing(client: AsyncClient, still: Stuck, tiny: Path) -> None:
    before = list(still.world.blobs.keys(""))
    verdict = Unmask(models=tiny).check(DOCTORED)
    aligned = await client.align(DOCTORED)
    classified, localized = await client.classify(DOCTORED), await client.localize(DOCTORED)
    (face,) = verdict.faces
    assert verdict.label is Label.MANIPULATED and face.regions
    assert (aligned.width, aligned.height, aligned.chips) == (512, 480, ())
    assert [(found.box, found.landmarks) for found in aligned.faces] == [(face.box, face.landmarks)]
    assert aligned.faces == classified.faces == localized.faces and aligned.faces[0].confidence is not None
    assert classified.classified[0].generator == face.generator
    assert classified.classified[0].synthetic == pytest.approx(face.synthetic, abs=1e-4)
    assert classified.classified[0].doubt is None and classified.classified[0].defence is None
    assert localized.localized[0].manipulated == pytest.approx(face.manipulated, abs=1e-4)
    assert localized.localized[0].regions == face.regions
    assert aligned.release == classified.release == localized.release == verdict.release
    assert list(still.world.blobs.keys("")) == before
    assert not list(still.world.store.verdicts("default")) and not still.world.store.outbox(10)


async def test_chips_give_what_their_picture_gives(client: AsyncClient) -> None:
    aligned = await client.align(DOCTORED, with_chips=True)
    assert len(aligned.chips) == 1
    by_picture, by_chips = await client.classify(DOCTORED), await client.classify(chips=aligned.chips)
    assert (by_chips.classified, by_chips.faces) == (by_picture.classified, ())
    regions, same = await client.localize(DOCTORED), await client.localize(chips=aligned.chips)
    assert same.localized == regions.localized
    many = await client.classify(chips=list(aligned.chips) * 20)  # more than the model's batch
    assert many.classified == by_picture.classified * 20


async def test_heat_maps_are_given_where_they_are_asked_for(client: AsyncClient, still: Stuck) -> None:
    aligned, without = await client.align(DOCTORED, with_chips=True), await client.localize(DOCTORED)
    assert without.localized[0].heat is None
    found = await client.localize(DOCTORED, with_heat=True)
    by_chips = await client.localize(chips=aligned.chips, with_heat=True)
    heat = found.localized[0].heat
    assert heat is not None and len(heat.values) == heat.width * heat.height and found.localized == by_chips.localized
    assert found.localized[0].regions == without.localized[0].regions
    case = await client.submit(DOCTORED)
    for step in Step:
        advance(still.world, "default", case.id, step)
    assert (await client.localize(case_id=case.id)).localized == without.localized
    with pytest.raises(BadRequest, match="heat maps are not stored; send the picture"):
        await client.localize(case_id=case.id, with_heat=True)


async def test_a_picture_without_a_face(client: AsyncClient) -> None:
    assert (await client.align(dark_picture(), with_chips=True)).faces == ()
    assert (await client.classify(dark_picture())).classified == ()
    assert (await client.localize(dark_picture())).localized == ()
    assert (await client.classify(chips=[])).classified == ()


async def test_a_case_is_read_stage_by_stage(client: AsyncClient, still: Stuck) -> None:
    case = await client.submit(DOCTORED)
    readers = (client.align, client.classify, client.localize)
    for steps, ready in (((), 0), ((Step.INGEST, Step.ALIGN), 1), ((Step.CLASSIFY,), 2), ((Step.LOCALIZE, Step.DECIDE), 3)):
        for step in steps:
            advance(still.world, "default", case.id, step)
        for index, reader in enumerate(readers):
            if index < ready:
                await reader(case_id=case.id)
            else:
                with pytest.raises(NotReady, match="not yet"):
                    await reader(case_id=case.id)
    assert await client.align(case_id=case.id) == await client.align(DOCTORED)
    assert (await client.classify(case_id=case.id)).classified == (await client.classify(DOCTORED)).classified
    assert (await client.localize(case_id=case.id)).localized == (await client.localize(DOCTORED)).localized


async def test_a_failed_case_says_why_it_is_not_ready(client: AsyncClient, still: Stuck) -> None:
    case = await client.submit(b"words")
    advance(still.world, "default", case.id, Step.INGEST)
    with pytest.raises(NotReady, match="ended failed: not an image"):
        await client.align(case_id=case.id)


async def test_a_plainly_synthetic_face_is_skipped_in_a_case_and_looked_at_inline(client: AsyncClient, still: Stuck) -> None:
    picture = face_picture(red=255, blue=255)
    case = await client.submit(picture)
    for step in Step:
        advance(still.world, "default", case.id, step)
    assert (await client.localize(case_id=case.id)).localized[0].manipulated is None
    assert (await client.localize(picture)).localized[0].manipulated is not None


async def test_what_is_refused(client: AsyncClient) -> None:
    for call in (client.align, client.classify, client.localize):
        with pytest.raises(BadImage, match="not an image"):
            await call(b"words")
        with pytest.raises(UnknownCase):
            await call(case_id="none")
        with pytest.raises(BadRequest, match="exactly one"):
            await call()
    with pytest.raises(BadRequest, match="chips are cut of a picture only"):
        await client.align(case_id="none", with_chips=True)
    chip = (await client.align(DOCTORED, with_chips=True)).chips[0]
    chip.ClearField("to_unit")
    for ask in (client.classify, client.localize):
        with pytest.raises(BadRequest, match=r"chips\[0\]\.to_unit"):
            await ask(chips=[chip])
