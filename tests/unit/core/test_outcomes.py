"""How cases end: near-duplicates of known fakes, landmarks, redelivered messages, the clock."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.core.test_cards import RELEASE
from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.catalogue import BlobCatalogue
from unmask.core.domain import Action, BytesSource, Case, Label, PictureInfo, State, Step, Submission
from unmask.core.errors import BadModel, Unavailable
from unmask.core.pipeline import RetryRule
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.runner import advance, run
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.delivery.sweeper import sweep


class Hashed(ChosenHandlers):
    """Handlers whose pictures have the perceptual hash that the test chose."""

    phash = "f" * 64

    def ingest(self, tenant: str, data: bytes) -> PictureInfo:
        """As chosen, with the hash."""
        return replace(super().ingest(tenant, data), phash=self.phash)


class Forgetting(BlobCatalogue):
    """A catalogue of tenants that keep no landmarks."""

    def keeps_landmarks(self, tenant: str) -> bool:
        """None does."""
        return False


@pytest.fixture
def handlers() -> Hashed:
    return Hashed()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def world(handlers: Hashed, queue: ListQueue, clock: StillClock) -> World:
    return make_world(handlers, queue, clock)


def judged(world: World, queue: ListQueue, data: bytes, tenant: str = "default") -> Case:
    """A picture's case, worked to its end."""
    case = accept(world, Submission(tenant, BytesSource(data)))
    while queue.messages:
        run(world, queue.messages.pop(0))
    return world.store.case(tenant, case.id)


def test_a_near_duplicate_of_a_known_fake_is_raised_to_review(world: World, queue: ListQueue, handlers: Hashed) -> None:
    handlers.synthetic = 0.99
    fake = judged(world, queue, b"fake")
    assert (fake.label, fake.action) == (Label.SYNTHETIC, Action.REVIEW)
    handlers.synthetic, handlers.phash = 0.02, "e" + "f" * 63
    near = judged(world, queue, b"the same, saved again")
    verdict = world.store.verdict_of("default", near.id)
    assert verdict is not None and (verdict.label, verdict.action) == (Label.REAL, Action.REVIEW)
    assert verdict.reasons[-1].code == "near_duplicate" and "1 of 256 bits" in verdict.reasons[-1].text
    assert [decision.actor for decision in world.store.decisions("default", near.id)] == ["policy", "near_duplicate"]
    told = json.loads(world.store.outbox(9)[-1].body)
    assert (told["label"], told["action"], told["score"]) == ("real", "review", verdict.score)


def test_the_verdict_itself_does_not_know_of_neighbours(world: World, queue: ListQueue, handlers: Hashed) -> None:
    """Replay: the same bytes, release and policy give the same verdict, whatever else was seen before."""
    alone = judged(world, queue, b"first")
    handlers.synthetic, handlers.phash = 0.99, "e" + "f" * 63
    judged(world, queue, b"fake")
    handlers.synthetic, handlers.phash = 0.02, "f" * 64
    again = judged(world, queue, b"first")
    stored = world.store.verdict("default", alone.sha256, alone.release, alone.policy)
    assert stored is not None and stored.action is Action.ALLOW
    assert (alone.action, again.action) == (Action.ALLOW, Action.REVIEW)


def test_neighbours_never_lower_and_never_judge(world: World, queue: ListQueue, handlers: Hashed) -> None:
    judged(world, queue, b"a known real picture")
    handlers.synthetic, handlers.phash = 0.99, "e" + "f" * 63
    fake = judged(world, queue, b"a fake that looks like it")
    assert (fake.label, fake.action) == (Label.SYNTHETIC, Action.REVIEW)
    assert len(world.store.decisions("default", fake.id)) == 1


@pytest.mark.parametrize("phash", ["", "0" * 64])
def test_far_pictures_and_those_without_a_hash_are_left_alone(
    phash: str, world: World, queue: ListQueue, handlers: Hashed
) -> None:
    handlers.synthetic = 0.99
    judged(world, queue, b"fake")
    handlers.synthetic, handlers.phash = 0.02, phash
    assert judged(world, queue, b"another").action is Action.ALLOW


def test_another_tenants_fakes_are_not_looked_at(world: World, queue: ListQueue, handlers: Hashed) -> None:
    handlers.synthetic = 0.99
    judged(world, queue, b"fake", "other")
    handlers.synthetic = 0.02
    assert judged(world, queue, b"the same, saved again").action is Action.ALLOW


def test_landmarks_and_findings_are_gone_at_the_decision(world: World, queue: ListQueue, handlers: Hashed) -> None:
    text = json.dumps(RELEASE).encode()
    world = replace(world, catalogue=Forgetting(world.blobs, text, parse_policy(DEFAULT_POLICY, "default")))
    case = judged(world, queue, b"somebody")
    verdict = world.store.verdict_of("default", case.id)
    assert verdict is not None and verdict.faces[0].landmarks == () and verdict.faces[0].box
    assert world.store.findings("default", case.id).faces is None
    assert json.loads(world.store.outbox(9)[-1].body)["faces"][0]["landmarks"] == []


def test_a_message_that_kills_its_worker_ends_as_dead(world: World, queue: ListQueue) -> None:
    case = accept(world, Submission("default", BytesSource(b"poison")))

    class Killed(BaseException):
        """What no handler catches: the worker is gone."""

    def die(*_: object) -> PictureInfo:
        raise Killed

    world.handlers.ingest = die  # type: ignore[method-assign,assignment]
    for redelivered in (False, True, True):
        with pytest.raises(Killed):
            advance(world, "default", case.id, Step.INGEST, redelivered=redelivered)
    ended = advance(world, "default", case.id, Step.INGEST, redelivered=True)
    assert (ended.state, ended.attempts) == (State.DEAD, 3) and ended.failure is not None
    assert ended.failure.code == "worker_lost" and [event.kind for event in world.store.outbox(9)] == ["case.dead"]


def test_a_redelivered_message_of_a_worker_that_was_stopped_goes_on(world: World, queue: ListQueue) -> None:
    case = accept(world, Submission("default", BytesSource(b"fine")))
    moved = advance(world, "default", case.id, Step.INGEST, redelivered=True)
    assert (moved.attempts, moved.failure, moved.state) == (0, None, State.OPEN) and moved.revision == 2


def test_a_clock_that_goes_back_holds_nothing_up(world: World, queue: ListQueue, handlers: Hashed, clock: StillClock) -> None:
    handlers.errors[Step.INGEST] = Unavailable("a while")
    case = accept(world, Submission("default", BytesSource(b"one")))
    queue.messages.clear()
    advance(world, "default", case.id, Step.INGEST)
    del handlers.errors[Step.INGEST]
    clock.pass_(-7 * 24 * 3600)
    assert sweep(world) == 1
    while queue.messages:
        run(world, queue.messages.pop(0))
    assert world.store.case("default", case.id).state is State.DECIDED


@pytest.mark.parametrize("error", [Unavailable("Triton restarts"), BadModel("a model is being repaired")])
def test_an_outage_ends_no_case_and_does_not_count_against_it_later(error: Exception) -> None:
    handlers, queue, clock = Hashed(), ListQueue(), StillClock()
    world = make_world(handlers, queue, clock, RetryRule(limit=3, first=timedelta(seconds=2), outage=timedelta(hours=24)))
    case = accept(world, Submission("default", BytesSource(b"one")))
    handlers.errors[Step.INGEST] = error
    for _ in range(20):
        advance(world, "default", case.id, Step.INGEST)
        clock.pass_(121)
    waiting = world.store.case("default", case.id)
    assert (waiting.state, waiting.attempts) == (State.OPEN, 20)
    handlers.errors[Step.INGEST] = ZeroDivisionError("ours")
    assert advance(world, "default", case.id, Step.INGEST).attempts == 1
    handlers.errors[Step.INGEST] = error
    clock.pass_(24 * 3600)
    for _ in range(3):
        clock.pass_(121)
        advance(world, "default", case.id, Step.INGEST)
    assert world.store.case("default", case.id).state is State.DEAD


def test_nothing_goes_round_for_ever(world: World, clock: StillClock, handlers: Hashed) -> None:
    world = replace(world, retry=RetryRule(limit=3, outage=timedelta(hours=1)))
    case = accept(world, Submission("default", BytesSource(b"one")))
    clock.pass_(7 * 3600)
    handlers.errors[Step.INGEST] = ZeroDivisionError("ours")
    assert advance(world, "default", case.id, Step.INGEST).state is State.DEAD
