"""Erasure while something else works, comes in or dies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.erasing import (
    BY_SHA,
    SECRETS,
    SHA,
    Erasing,
    by_me,
    decided,
    everything,
    objects,
    submit,
    work,
)
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock
from unmask.adapters.database import Database
from unmask.adapters.store_erase import SqlEraser
from unmask.core.domain import (
    Case,
    State,
    Step,
    UrlSource,
)
from unmask.core.erasing import Erased, EraseOffice, ErasureOrder, Selection, Subject, collect_orphans, erase
from unmask.core.errors import Unavailable
from unmask.core.runner import advance, run
from unmask.core.submit import picture_key
from unmask.core.world import World


class TestRaces(Erasing):
    """What works, comes in or dies meanwhile."""

    @pytest.mark.parametrize("step", [Step.INGEST, Step.ALIGN, Step.CLASSIFY, Step.LOCALIZE, Step.DECIDE])
    def test_a_worker_in_the_middle_of_a_step_brings_nothing_back(
        self, world: World, office: EraseOffice, queue: ListQueue, handlers: ChosenHandlers, tables: Database, step: Step
    ) -> None:
        case = submit(world)
        while queue.messages[0].step is not step:
            run(world, queue.messages.pop(0))
        name = "judge" if step is Step.DECIDE else step.value
        really = getattr(handlers, name)

        def overtaken(*arguments: Any) -> Any:
            found = really(*arguments)
            assert erase(office, "default", BY_SHA, by_me(office)).cases == 1
            return found

        setattr(handlers, name, overtaken)
        queue.messages.clear()
        assert advance(world, "default", case.id, step).state is State.ERASED
        assert not queue.messages and [event.kind for event in world.store.outbox(9)] == ["case.erased"]
        left = everything(tables, "default").replace("'target': 'https://hook.example.com/in'", "")
        assert not [secret for secret in SECRETS if secret in left]
        assert not objects(world)

    def test_an_open_case_of_bytes_that_nobody_read_yet_goes_by_its_hash(self, world: World, office: EraseOffice) -> None:
        case = submit(world)
        assert erase(office, "default", BY_SHA, by_me(office)).cases == 1
        work(world)
        assert world.store.case("default", case.id).state is State.ERASED and not objects(world)

    def test_a_url_that_is_being_read_while_its_case_is_erased(
        self, world: World, office: EraseOffice, handlers: ChosenHandlers, queue: ListQueue
    ) -> None:
        before = decided(world)
        case = submit(world, source=UrlSource("https://example.org/a.png"))
        listed = office.eraser.matching("default", Selection(case_id=case.id), "", 1)
        run(world, queue.messages.pop(0))
        assert world.store.case("default", case.id).sha256 == SHA

        class Late(SqlEraser):
            """Lists the case as it was before it was read."""

            def matching(self, *_: Any) -> Any:
                found = list(listed)
                listed.clear()  # type: ignore[attr-defined]
                return found

        late = replace(office, eraser=Late(office.eraser.database))  # type: ignore[attr-defined]
        erase(late, "default", Selection(case_id=case.id), by_me(office))
        assert {world.store.case("default", one.id).state for one in (before, case)} == {State.ERASED}

    def test_what_dies_between_rows_and_blobs_is_made_good_by_the_sweeper(
        self, world: World, office: EraseOffice, clock: StillClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = decided(world)
        with monkeypatch.context() as patch:
            patch.setattr(world.blobs, "delete", _dies)
            with pytest.raises(Unavailable, match="died"):
                erase(office, "default", Selection(case_id=case.id), by_me(office))
        assert world.store.case("default", case.id).state is State.ERASED
        assert objects(world) == [picture_key("default", SHA)]
        assert collect_orphans(office) == 0, "it may be about to get its row"
        clock.pass_(3700)
        assert collect_orphans(office) == 1 and not objects(world)

    def test_a_picture_that_comes_in_again_while_its_blob_is_about_to_go_keeps_it(
        self, world: World, office: EraseOffice
    ) -> None:
        decided(world)
        again: list[Case] = []

        class Slow(SqlEraser):
            """Another submission comes in right after the rows went."""

            def erase(self, subject: Subject, order: ErasureOrder) -> Erased:
                gone = super().erase(subject, order)
                if not again:
                    again.append(submit(world))
                return gone

        slow = replace(office, eraser=Slow(office.eraser.database))  # type: ignore[attr-defined]
        gone = slow.eraser.erase(Subject("default", SHA), by_me(office))
        assert gone.blobs and office.eraser.referenced("default", gone.blobs) == set(gone.blobs)
        work(world)
        assert world.store.case("default", again[0].id).state is State.DECIDED


def _dies(key: str) -> None:
    raise Unavailable("the process died here")
