"""The step function: order, compare-and-set, retries as rows, one end for every case."""

from __future__ import annotations

import json

import pytest

from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.core.domain import Action, BlobSource, BytesSource, Case, Label, Message, Stage, State, Step, Submission, UrlSource
from unmask.core.errors import (
    BadImage,
    BadModel,
    BadRequest,
    IdempotencyConflict,
    Unavailable,
    UnknownCase,
)
from unmask.core.pipeline import ORDER
from unmask.core.runner import advance, run
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.delivery.sweeper import sweep

PNG = b"any bytes: these handlers do not look"


@pytest.fixture
def handlers() -> ChosenHandlers:
    return ChosenHandlers()


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def world(handlers: ChosenHandlers, queue: ListQueue, clock: StillClock) -> World:
    return make_world(handlers, queue, clock)


def submit(world: World, data: bytes = PNG, key: str = "") -> Case:
    return accept(world, Submission("default", BytesSource(data), key))


def drain(world: World, queue: ListQueue) -> list[Step]:
    """Works messages until there are none; returns the steps in order."""
    steps = []
    while queue.messages:
        message = queue.messages.pop(0)
        steps.append(message.step)
        run(world, message)
    return steps


def now(world: World, case: Case) -> Case:
    return world.store.case("default", case.id)


def test_a_case_goes_the_whole_way_with_one_message_a_step(world: World, queue: ListQueue) -> None:
    case = submit(world)
    assert drain(world, queue) == [Step.INGEST, Step.ALIGN, Step.CLASSIFY, Step.LOCALIZE, Step.DECIDE]
    ended = now(world, case)
    assert (ended.state, ended.stage, ended.revision) == (State.DECIDED, Stage.DECIDED, 5)
    verdict = world.store.verdict_of("default", case.id)
    assert verdict is not None and (verdict.label, verdict.action) == (Label.REAL, Action.ALLOW)
    assert set(verdict.timings_ms) == {*(step.value for step, _ in ORDER), "total"}
    (event,) = world.store.outbox(10)
    assert event.kind == "verdict.decided" and json.loads(event.body)["id"] == case.id
    (decision,) = world.store.decisions("default", case.id)
    assert decision.actor == "policy" and decision.action is Action.ALLOW


def test_no_face_skips_the_models_and_ends_in_a_verdict(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    handlers.faces = ()
    case = submit(world)
    assert drain(world, queue) == [Step.INGEST, Step.ALIGN, Step.DECIDE]
    verdict = world.store.verdict_of("default", case.id)
    assert verdict is not None and verdict.label is Label.NO_FACE and verdict.score is None


def test_repeated_and_stale_messages_change_nothing(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    case = submit(world)
    first = queue.messages[0]
    run(world, first)
    before = now(world, case)
    run(world, first)
    run(world, Message("default", case.id, Step.DECIDE))
    assert now(world, case) == before
    drain(world, queue)
    run(world, first)
    assert handlers.calls.count(Step.INGEST) == 1 and len(world.store.outbox(10)) == 1


def test_the_slower_of_two_racers_writes_nothing(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    case = submit(world)
    real_ingest = handlers.ingest

    def overtaken(tenant: str, data: bytes) -> object:
        handlers.ingest = real_ingest  # type: ignore[method-assign]
        advance(world, "default", case.id, Step.INGEST)
        return real_ingest(tenant, data)

    handlers.ingest = overtaken  # type: ignore[method-assign,assignment]
    result = advance(world, "default", case.id, Step.INGEST)
    assert (result.stage, result.revision) == (Stage.INGESTED, 1)
    assert [m.step for m in queue.messages] == [Step.INGEST, Step.ALIGN]


def test_the_same_bytes_again_reuse_the_verdict(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    first, _ = submit(world), drain(world, queue)
    second = submit(world)
    assert drain(world, queue) == [Step.INGEST]
    assert handlers.calls.count(Step.CLASSIFY) == 1 and second.id != first.id
    again = world.store.verdict_of("default", second.id)
    assert again is not None and again.id == second.id and set(again.timings_ms) == {"ingest", "total"}
    assert len(world.store.outbox(10)) == 2


def test_one_idempotency_key_gives_one_case(world: World, queue: ListQueue) -> None:
    case = submit(world, key="k")
    assert submit(world, key="k").id == case.id and len(queue.messages) == 1
    with pytest.raises(IdempotencyConflict, match="'k'"):
        submit(world, b"another body", key="k")


def test_the_callers_fault_ends_the_case_as_failed(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    handlers.errors[Step.INGEST] = BadImage("not a picture")
    case = submit(world)
    drain(world, queue)
    ended = now(world, case)
    assert ended.state is State.FAILED and ended.failure is not None
    assert (ended.failure.code, ended.failure.detail) == ("bad_image", "not a picture")
    assert [event.kind for event in world.store.outbox(10)] == ["case.failed"]


@pytest.mark.parametrize("error", [Unavailable("slow"), BadModel("broken"), ZeroDivisionError("ours")])
def test_all_else_is_tried_again_when_due_and_then_dead(
    error: Exception, world: World, queue: ListQueue, handlers: ChosenHandlers, clock: StillClock
) -> None:
    handlers.errors[Step.CLASSIFY] = error
    case = submit(world)
    drain(world, queue)
    assert (now(world, case).state, now(world, case).attempts) == (State.OPEN, 1)
    assert sweep(world) == 0
    advance(world, "default", case.id, Step.CLASSIFY)
    assert now(world, case).attempts == 1, "an early message must not use up an attempt"
    for wait in (2.5, 4.5):
        clock.pass_(wait)
        assert sweep(world) == 1
        drain(world, queue)
    ended = now(world, case)
    assert (ended.state, ended.attempts, ended.stage) == (State.DEAD, 3, Stage.ALIGNED)
    assert [event.kind for event in world.store.outbox(10)] == ["case.dead"]
    assert "ours" not in (ended.failure.detail if ended.failure else "ours")


def test_a_recovered_step_goes_on(world: World, queue: ListQueue, handlers: ChosenHandlers, clock: StillClock) -> None:
    handlers.errors[Step.ALIGN] = Unavailable("restarting")
    case = submit(world)
    drain(world, queue)
    del handlers.errors[Step.ALIGN]
    clock.pass_(3)
    sweep(world)
    drain(world, queue)
    ended = now(world, case)
    assert (ended.state, ended.attempts, ended.failure) == (State.DECIDED, 0, None)


def test_a_queue_that_is_down_loses_nothing(world: World, queue: ListQueue, clock: StillClock) -> None:
    queue.down = Unavailable("no broker")
    case = submit(world)
    queue.down = None
    assert not queue.messages
    clock.pass_(world.retry.stuck.total_seconds() + 1)
    assert sweep(world) == 1
    drain(world, queue)
    assert now(world, case).state is State.DECIDED


def test_a_picture_that_vanished_is_no_fault_of_the_caller(world: World, queue: ListQueue) -> None:
    case = submit(world)
    run(world, queue.messages.pop(0))
    for key in list(world.blobs.keys("default/")):
        world.blobs.delete(key)
    drain(world, queue)
    failure = now(world, case).failure
    assert failure is not None and failure.code == "store_corrupt" and now(world, case).state is State.OPEN


def test_a_blob_reference_is_copied_and_another_tenants_is_refused(world: World, queue: ListQueue) -> None:
    world.blobs.put("default/uploads/a.png", PNG)
    case = accept(world, Submission("default", BlobSource("default/uploads/a.png")))
    drain(world, queue)
    world.blobs.delete("default/uploads/a.png")
    ended = now(world, case)
    assert ended.state is State.DECIDED and world.blobs.get(f"default/pictures/{ended.sha256}") == PNG
    with pytest.raises(BadRequest, match="not this tenant"):
        accept(world, Submission("default", BlobSource("other/uploads/a.png")))


@pytest.mark.parametrize("tenant", ["", "a/b", "..", "_catalogue", "a b", "é/"])
def test_tenant_names_that_could_leave_their_prefix_are_refused(world: World, tenant: str) -> None:
    with pytest.raises(BadRequest, match="tenant"):
        accept(world, Submission(tenant, BytesSource(PNG)))


def test_too_many_bytes_urls_without_fetcher_and_unknown_cases(world: World) -> None:
    with pytest.raises(BadImage, match="at most"):
        submit(world, bytes(world.limits.bytes + 1))
    with pytest.raises(BadRequest, match="switched off"):
        accept(world, Submission("default", UrlSource("https://example.org/a.png")))
    with pytest.raises(UnknownCase):
        advance(world, "default", "nobody", Step.ALIGN)
