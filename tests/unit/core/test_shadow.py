"""Shadow scoring: which cases, what is kept, and that nothing of it reaches a case."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.test_cards import RELEASE
from tests.unit.core.test_runner import PNG, drain, now, submit
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.database import Database
from unmask.adapters.releases_sql import SqlReleases, SqlShadows
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import AuditEntry
from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, Message, Priority, State, Step, Verdict
from unmask.core.errors import BadModel, BadRequest, Unavailable
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.releases import (
    Cell,
    Label,
    Pointers,
    ShadowScore,
    StoredRelease,
    disagreement,
    is_chosen,
    named,
    promoted,
    rolled_back,
    shadowed,
    without_shadow,
)
from unmask.core.runner import run
from unmask.core.world import World

FIRST, TRIAL = (json.dumps(RELEASE | {"name": name}).encode() for name in ("first", "trial"))
TRIAL_SHA = hashlib.sha256(TRIAL).hexdigest()


@dataclass
class TrialHandlers(ChosenHandlers):
    """Says something else, or raises, under the release on trial."""

    under_trial: Any = 0.98
    judged_under: list[str] = field(default_factory=list)

    def align(self, picture: Any, release: Release) -> Any:
        self.judged_under.append(release.name)
        return super().align(picture, release)

    def classify(self, picture: Any, faces: Any, release: Release) -> tuple[Classified, ...]:
        found = super().classify(picture, faces, release)
        if release.name != "trial":
            return found
        if isinstance(self.under_trial, Exception):
            raise self.under_trial
        return tuple(Classified(self.under_trial) for _ in faces)


@dataclass
class Counts:
    """An observer that remembers."""

    duties: list[str] = field(default_factory=list)
    comparisons: list[tuple[str, ShadowScore]] = field(default_factory=list)

    def stepped(self, case: Case, step: Step, seconds: float | None, verdict: Verdict | None = None) -> None:
        assert step is not Step.SHADOW

    def compared(self, score: ShadowScore, release: str) -> None:
        self.comparisons.append((release, score))

    def counted(self, duty: str, count: int) -> None:
        self.duties += [duty] * count


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def handlers() -> TrialHandlers:
    return TrialHandlers()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def world(handlers: TrialHandlers, queue: ListQueue, counts: Counts, tmp_path: Path) -> Any:
    """A world over a database, with a release on trial for all cases."""
    with closing(Database(f"sqlite:///{tmp_path / 'cases.sqlite3'}")) as database:
        catalogue = SqlCatalogue(database, lambda: FIRST, lambda: parse_policy(DEFAULT_POLICY), seconds=0.0)
        catalogue.active_release()
        plain = make_world(handlers, queue, StillClock())
        yield replace(plain, store=SqlStore(database), catalogue=catalogue, shadows=SqlShadows(database), observer=counts)


def database_of(world: World) -> Database:
    assert isinstance(world.store, SqlStore)
    return world.store.database


def try_out(world: World, share: float = 1.0) -> None:
    store = SqlReleases(database_of(world))
    entry = AuditEntry(world.clock.now(), "", "cli:tester", "release.shadow", TRIAL_SHA)
    store.put_release(Release.parse(TRIAL, TRIAL_SHA), TRIAL.decode(), entry)
    assert store.move(store.pointers(), shadowed(store.pointers(), TRIAL_SHA, share), entry)


def compared(world: World) -> list[Cell]:
    assert world.shadows is not None
    return list(world.shadows.compared(TRIAL_SHA, world.catalogue.active_release().sha256))


def test_a_decided_case_is_scored_beside_its_verdict(
    world: World, queue: ListQueue, handlers: TrialHandlers, counts: Counts
) -> None:
    try_out(world)
    case = submit(world)
    assert drain(world, queue) == [Step.INGEST, Step.ALIGN, Step.CLASSIFY, Step.LOCALIZE, Step.DECIDE, Step.SHADOW]
    ended = now(world, case)
    verdict = world.store.verdict_of("default", case.id)
    assert (ended.state, ended.revision, ended.attempts) == (State.DECIDED, 5, 0)
    assert verdict is not None and verdict.label is Label.REAL and verdict.release.name == "first"
    (cell,) = compared(world)
    assert (cell.active, cell.shadow, cell.cases, cell.scored) == (Label.REAL, Label.SYNTHETIC, 1, 1)
    assert cell.difference > 0.5
    assert handlers.judged_under == ["first", "trial"] and counts.duties == ["shadow_scored"]
    assert len(world.store.outbox(10)) == 1 and len(world.store.decisions("default", case.id)) == 1
    assert world.store.findings("default", case.id).classified is None, "the shadow left findings"


def test_its_work_is_of_the_batch_lane(world: World, queue: ListQueue) -> None:
    try_out(world)
    submit(world)
    for _ in range(5):
        run(world, queue.messages.pop(0))
    assert [(message.step, message.priority) for message in queue.messages] == [(Step.SHADOW, Priority.BATCH)]


@pytest.mark.parametrize("error", [BadModel("broken"), Unavailable("slow"), BadRequest("what"), ZeroDivisionError("ours")])
def test_a_broken_shadow_touches_nothing_and_is_counted(
    error: Exception, world: World, queue: ListQueue, handlers: TrialHandlers, counts: Counts
) -> None:
    try_out(world)
    handlers.under_trial = error
    cases = [submit(world, PNG + bytes([number])) for number in range(3)]
    drain(world, queue)
    assert {now(world, case).state for case in cases} == {State.DECIDED}
    assert {event.kind for event in world.store.outbox(10)} == {"verdict.decided"}
    assert [(cell.shadow, cell.cases) for cell in compared(world)] == [(None, 3)]
    assert counts.duties == ["shadow_failed"] * 3


def test_a_store_of_scores_that_breaks_touches_nothing(world: World, queue: ListQueue, counts: Counts) -> None:
    try_out(world)
    with closing(Database.in_memory()) as gone:
        elsewhere = SqlShadows(gone)
        with gone.transaction() as connection:
            connection.exec_driver_sql("DROP TABLE shadow_scores")
        case = submit(world)
        own = replace(world, shadows=elsewhere)
        drain(own, queue)
    assert now(world, case).state is State.DECIDED and counts.duties == ["shadow_lost"]


def test_a_queue_that_takes_no_shadow_work_touches_nothing(world: World, queue: ListQueue) -> None:
    try_out(world)
    case = submit(world)
    for _ in range(4):
        run(world, queue.messages.pop(0))
    last = queue.messages.pop(0)
    queue.down = Unavailable("no broker")
    run(world, last)
    assert now(world, case).state is State.DECIDED and compared(world) == []


def test_repeated_late_and_stale_work_is_left_out(world: World, queue: ListQueue, handlers: TrialHandlers) -> None:
    try_out(world)
    case = submit(world)
    early = Message("default", case.id, Step.SHADOW)
    run(world, early)
    assert handlers.judged_under == [], "an open case"
    drain(world, queue)
    run(world, early)
    run(world, Message("default", "nobody", Step.SHADOW))
    run(world, Message("other", case.id, Step.SHADOW))
    assert [cell.cases for cell in compared(world)] == [1]
    before = list(handlers.judged_under)
    run(world, early, redelivered=True)
    assert handlers.judged_under == before, "a picture that killed a worker goes round"
    ended = now(world, case)
    store = SqlReleases(database_of(world))
    store.move(store.pointers(), without_shadow(store.pointers()), AuditEntry(world.clock.now(), "", "me", "off", ""))
    run(world, early)
    assert handlers.judged_under == before and now(world, case) == ended


def test_no_trial_no_work(world: World, queue: ListQueue) -> None:
    submit(world)
    assert Step.SHADOW not in drain(world, queue)
    try_out(world)
    submit(world, PNG + b"2")
    assert Step.SHADOW not in drain(replace(world, shadows=None), queue)


def test_no_face_is_compared_too(world: World, queue: ListQueue, handlers: TrialHandlers) -> None:
    try_out(world)
    handlers.faces = ()
    submit(world)
    drain(world, queue)
    assert [(cell.active, cell.shadow, cell.scored) for cell in compared(world)] == [(Label.NO_FACE, Label.NO_FACE, 0)]


def test_the_share_is_of_the_ids(world: World, queue: ListQueue) -> None:
    try_out(world, 0.5)
    cases = [submit(world, PNG + bytes([number])) for number in range(40)]
    drain(world, queue)
    assert sum(cell.cases for cell in compared(world)) == sum(is_chosen(case.id, 0.5) for case in cases)


@given(st.lists(st.uuids().map(str), min_size=300, max_size=300, unique=True))
def test_a_share_is_about_that_many_and_holds_every_smaller_one(ids: list[str]) -> None:
    tenth, half = ({name for name in ids if is_chosen(name, share)} for share in (0.1, 0.5))
    assert tenth <= half and all(is_chosen(name, 1.0) for name in ids) and not any(is_chosen(name, 0.0) for name in ids)
    assert 90 < len(half) < 210


def test_pointers_move_as_said() -> None:
    start = Pointers("a")
    tried = shadowed(start, "b", 0.1)
    assert promoted(tried, "b") == Pointers("b", "a"), "what is active is no shadow"
    assert promoted(tried, "c") == Pointers("c", "a", "b", 0.1)
    assert promoted(start, "a") == start
    assert rolled_back(rolled_back(Pointers("b", "a"))) == Pointers("b", "a")
    assert tried.roles("b") == ("shadow",) and Pointers("b", "a").roles("a") == ("previous",)
    for wrong in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(BadRequest, match="share"):
            shadowed(start, "b", wrong)
    with pytest.raises(BadRequest, match="active"):
        shadowed(start, "a", 0.1)
    with pytest.raises(BadRequest, match="no previous"):
        rolled_back(start)


def test_a_release_is_found_by_name_and_sha256() -> None:
    at = StillClock().now()
    kept = [
        StoredRelease("r1", "ab" * 32, at),
        StoredRelease("r2", "abababab" + "c" * 56, at),
        StoredRelease("r2", "d" * 64, at),
    ]
    assert named(kept, "r1") is kept[0] and named(kept, "d" * 8) is kept[2]
    for word, told in (("r2", "say its sha256"), ("abababab", "say its sha256"), ("ddd", "no release"), ("", "no release")):
        with pytest.raises(BadRequest, match=told):
            named(kept, word)


def test_disagreement_is_counted() -> None:
    real, fake = Label.REAL, Label.SYNTHETIC
    found = disagreement([Cell(real, real, 6, 6, 0.3), Cell(real, fake, 2, 2, 1.3), Cell(fake, None, 3, 0, 0.0)])
    assert (found.cases, found.failed, found.differ, found.matrix) == (8, 3, 2, {real: {real: 6, fake: 2}})
    assert found.difference == pytest.approx(0.2) and found.differences[real] == pytest.approx(0.2)
    nothing = disagreement([Cell(Label.NO_FACE, Label.NO_FACE, 1, 0, 0.0)])
    assert (nothing.cases, nothing.difference, nothing.differences) == (1, None, {Label.NO_FACE: None})
