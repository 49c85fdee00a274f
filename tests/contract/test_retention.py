"""What goes by itself: what a tenant keeps no longer, and blobs that nobody refers to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.erasing import (
    OTHER,
    PICTURE,
    SHA,
    Erasing,
    Landmarks,
    count,
    decided,
    objects,
    submit,
    work,
)
from tests.contract.samples import FINDINGS
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock
from unmask.adapters.database import Database
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_tables import outbox, usage
from unmask.core.access import Tenant
from unmask.core.domain import (
    BlobSource,
    CaseUpdate,
    EventState,
    Failure,
    Stage,
    State,
    Step,
)
from unmask.core.erasing import EraseOffice, collect_orphans, expire
from unmask.core.errors import BadImage
from unmask.core.submit import picture_key
from unmask.core.world import World


class TestRetention(Erasing):
    """As the tenants have it."""

    @pytest.fixture(autouse=True)
    def tenants(self, office: EraseOffice, clock: StillClock) -> None:
        for name, days in (("default", 30), ("other", None)):
            office.access.put_tenant(Tenant(name, clock.now(), keep_days=days))

    def test_what_ended_long_ago_goes_and_all_else_stays(
        self, world: World, office: EraseOffice, clock: StillClock, queue: ListQueue, handlers: ChosenHandlers
    ) -> None:
        old, theirs = decided(world), decided(world, "other")
        handlers.errors[Step.INGEST] = BadImage("no picture")
        failed = submit(world, data=b"broken")
        work(world)
        del handlers.errors[Step.INGEST]
        clock.pass_(20 * 86_400)
        young = decided(world, data=OTHER)
        waiting = submit(world, data=b"waits")
        clock.pass_(10 * 86_400 + 120)
        assert expire(office) == 2
        states = [world.store.case(c.tenant, c.id).state for c in (old, failed, theirs, young, waiting)]
        assert states == [State.ERASED, State.ERASED, State.DECIDED, State.DECIDED, State.OPEN]
        assert world.store.case("default", old.id).failure == Failure("erased", "retention by retention")
        assert len(list(world.blobs.keys("default/"))) == 2 and len(list(world.blobs.keys("other/"))) == 1
        assert expire(office) == 0
        (entry,) = office.access.audited("default", 9)
        assert (entry.act, entry.actor, entry.detail["cases"]) == ("expire", "retention", "2")

    def test_a_picture_stays_as_long_as_one_case_of_it(
        self, world: World, office: EraseOffice, clock: StillClock, handlers: ChosenHandlers
    ) -> None:
        old = decided(world)
        clock.pass_(20 * 86_400)
        young = decided(world)
        clock.pass_(10 * 86_400 + 120)
        assert expire(office) == 1
        assert [world.store.case("default", c.id).state for c in (old, young)] == [State.ERASED, State.DECIDED]
        assert world.store.verdict_of("default", young.id) is not None and list(world.blobs.keys("default/"))
        third = submit(world)
        clock.pass_(30 * 86_400)
        assert expire(office) == 1
        assert world.store.picture("default", SHA) is not None, "the open case is about to read it"
        work(world)
        assert world.store.case("default", third.id).state is State.DECIDED
        clock.pass_(31 * 86_400)
        assert expire(office) == 1 and world.store.picture("default", SHA) is None
        assert not list(world.blobs.keys("default/")) and not list(world.store.verdicts("default"))

    def test_many_go_in_batches_and_a_halt_is_heeded(self, world: World, office: EraseOffice, clock: StillClock) -> None:
        for number in range(7):
            decided(world, data=b"%d" % number)
        clock.pass_(31 * 86_400)
        asked: list[int] = []

        def halt() -> bool:
            asked.append(1)
            return len(asked) > 2

        assert expire(office, batch=2, halt=halt) == 4
        assert expire(office, batch=2) == 3

    def test_landmarks_go_earlier_than_the_rest(self, world: World, office: EraseOffice, clock: StillClock) -> None:
        office.access.put_tenant(Tenant("default", clock.now(), keep_days=None, keep_landmarks_days=7))
        keeping = replace(world, catalogue=Landmarks(world.catalogue, keeps=True))
        case, dead = decided(keeping), submit(keeping, data=OTHER)
        lost = replace(dead, revision=1, state=State.DEAD, stage=Stage.ALIGNED, due_at=clock.now(), failure=Failure("x", "y"))
        assert world.store.commit(dead, CaseUpdate(lost, findings=FINDINGS))
        before = world.store.verdict_of("default", case.id)
        assert before is not None and before.faces[0].landmarks and world.store.findings("default", case.id).faces
        clock.pass_(6 * 86_400)
        assert expire(office) == 0 and world.store.verdict_of("default", case.id) == before
        clock.pass_(86_400 + 120)
        assert expire(office) == 2
        after = world.store.verdict_of("default", case.id)
        assert after == replace(before, faces=tuple(replace(face, landmarks=()) for face in before.faces))
        assert all(world.store.findings("default", one.id).faces is None for one in (case, dead))
        assert expire(office) == 0

    def test_old_events_and_counts_are_pruned(
        self, world: World, office: EraseOffice, clock: StillClock, tables: Database
    ) -> None:
        decided(world, "other"), decided(world, "other"), decided(world, "other")
        sent, dropped, _ = world.store.outbox(9)
        for event, state in ((sent, EventState.SENT), (dropped, EventState.DROPPED)):
            world.store.settle_event(event.id, state, attempts=1, due_at=clock.now())
        now = int(clock.now().timestamp())
        for period in (
            f"minute:{now // 60}",
            f"minute:{now // 60 - 2880 - 1}",
            f"day:{now // 86400}",
            f"day:{now // 86400 - 3}",
        ):
            with tables.transaction() as connection:
                connection.execute(sa.insert(usage).values(tenant="other", period=period, count=1))
        assert expire(office) == 2 and count(tables, usage) == 2 and count(tables, outbox) == 3
        clock.pass_(7 * 86_400 + 1)
        expire(office)
        assert count(tables, outbox) == 1 and len(world.store.outbox(9)) == 1


class TestOrphans(Erasing):
    """Blobs that nobody refers to."""

    def test_only_pictures_without_row_and_without_a_case_to_work_go(
        self, world: World, office: EraseOffice, clock: StillClock, handlers: ChosenHandlers
    ) -> None:
        decided(world)
        waiting, dead = submit(world, data=b"waits"), submit(world, data=b"dead")
        assert world.store.commit(dead, CaseUpdate(replace(dead, revision=1, state=State.DEAD)))
        by_key = submit(world, source=BlobSource(picture_key("default", "b" * 64)))
        for key in (
            picture_key("default", "b" * 64),
            picture_key("other", SHA),
            picture_key("nobody", "c" * 64),
            "default/uploads/" + "d" * 64,
            "default/pictures/own-name.png",
            "_catalogue/pictures/" + "e" * 64,
        ):
            world.blobs.put(key, b"x")
        before = set(world.blobs.keys(""))
        clock.pass_(3700)
        assert collect_orphans(office) == 2
        assert before - set(world.blobs.keys("")) == {picture_key("other", SHA), picture_key("nobody", "c" * 64)}
        work(world)
        for case in (waiting, by_key):
            assert world.store.case("default", case.id).state is State.DECIDED

    def test_what_nobody_could_read_goes_after_a_while(
        self, world: World, office: EraseOffice, clock: StillClock, handlers: ChosenHandlers
    ) -> None:
        handlers.errors[Step.INGEST] = BadImage("no picture")
        submit(world)
        work(world)
        assert collect_orphans(office) == 0
        clock.pass_(3700)
        assert collect_orphans(office, halt=lambda: True) == 0
        assert collect_orphans(office) == 1 and not objects(world)

    def test_one_that_is_sent_again_at_the_last_moment_stays(
        self, world: World, office: EraseOffice, clock: StillClock
    ) -> None:
        key = picture_key("default", SHA)
        world.blobs.put(key, PICTURE)
        clock.time = datetime.now(UTC)

        class Late(SqlEraser):
            """The door has written the blob again, and not its row yet, when references are looked for."""

            def referenced(self, tenant: str, keys: Any) -> Any:
                found = super().referenced(tenant, keys)
                world.blobs.put(key, PICTURE)
                return found

        late = replace(office, eraser=Late(office.eraser.database))  # type: ignore[attr-defined]
        assert collect_orphans(late, timedelta(0)) == 0 and world.blobs.get(key) == PICTURE

    def test_many_are_looked_up_in_pages(self, world: World, office: EraseOffice, clock: StillClock) -> None:
        keys = [picture_key(f"t{number % 3}", f"{number:064x}") for number in range(601)]
        for key in keys:
            world.blobs.put(key, b"x")
        clock.pass_(3700)
        assert collect_orphans(office) == 601
