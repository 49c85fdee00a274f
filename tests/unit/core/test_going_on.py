"""A worker of several stages: a case goes on in it without messages, and loses nothing when the worker is lost on the way."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from tests.unit.core.worlds import FACE, ChosenHandlers, ListQueue, StillClock, make_world
from unmask.core.domain import BytesSource, Case, Message, State, Step, Submission
from unmask.core.errors import Unavailable
from unmask.core.images import chips_of
from unmask.core.pipeline import RetryRule
from unmask.core.runner import run
from unmask.core.submit import accept
from unmask.core.world import World

EARLY, LATE = (Step.INGEST, Step.ALIGN), (Step.CLASSIFY, Step.LOCALIZE, Step.DECIDE)


class Killed(BaseException):
    """What no handler catches: the worker is gone."""


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
    return make_world(handlers, queue, clock, RetryRule(limit=3, first=timedelta(seconds=2)))


def submitted(world: World) -> Case:
    return accept(world, Submission("default", BytesSource(b"one")))


def test_two_workers_of_two_stages_need_two_messages(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    case = submitted(world)
    run(world, queue.messages.pop(), also=EARLY)
    assert [message.step for message in queue.messages] == [Step.CLASSIFY]
    run(world, queue.messages.pop(), also=LATE)
    ended = world.store.case("default", case.id)
    assert (ended.state, ended.revision, queue.messages) == (State.DECIDED, 5, [])
    assert handlers.calls == [*EARLY, *LATE]


def test_a_step_that_fails_waits_for_its_time(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    handlers.errors[Step.ALIGN] = Unavailable("Triton restarts")
    case = submitted(world)
    run(world, queue.messages.pop(), also=EARLY)
    waiting = world.store.case("default", case.id)
    assert (waiting.state, waiting.attempts, queue.messages) == (State.OPEN, 1, [])
    assert handlers.calls == [Step.INGEST, Step.ALIGN]


def test_a_repeated_message_of_a_case_that_is_elsewhere_does_nothing(
    world: World, queue: ListQueue, handlers: ChosenHandlers
) -> None:
    submitted(world)
    first = queue.messages.pop()
    run(world, first)
    run(world, first, also=EARLY)
    assert handlers.calls == [Step.INGEST] and [message.step for message in queue.messages] == [Step.ALIGN]


def test_a_worker_lost_on_the_way_is_taken_over_where_it_was(world: World, queue: ListQueue, handlers: ChosenHandlers) -> None:
    case = submitted(world)
    message = queue.messages.pop()
    handlers.errors[Step.ALIGN] = Killed()  # type: ignore[assignment]
    with pytest.raises(Killed):
        run(world, message, also=EARLY)
    del handlers.errors[Step.ALIGN]
    run(world, message, redelivered=True, also=EARLY)
    moved = world.store.case("default", case.id)
    assert (moved.attempts, moved.failure) == (0, None)
    assert [message.step for message in queue.messages] == [Step.CLASSIFY]
    assert handlers.calls == [Step.INGEST, Step.ALIGN, Step.ALIGN]


def test_a_picture_that_kills_workers_at_a_later_stage_ends_as_dead(
    world: World, queue: ListQueue, handlers: ChosenHandlers
) -> None:
    case = submitted(world)
    message = queue.messages.pop()
    handlers.errors[Step.ALIGN] = Killed()  # type: ignore[assignment]
    for redelivered in (False, True, True):
        with pytest.raises(Killed):
            run(world, message, redelivered=redelivered, also=EARLY)
    run(world, message, redelivered=True, also=EARLY)
    ended = world.store.case("default", case.id)
    assert ended.state is State.DEAD and ended.failure is not None and ended.failure.code == "worker_lost"


def test_a_message_of_a_stage_that_is_not_taken_here_is_published(world: World, queue: ListQueue) -> None:
    case = submitted(world)
    run(world, Message("default", case.id, Step.INGEST), also=(Step.INGEST,))
    assert [message.step for message in queue.messages][-1] is Step.ALIGN


def test_the_next_step_of_a_picture_is_given_the_chips_of_the_step_before() -> None:
    picture = np.zeros((200, 200, 3), dtype=np.uint8)
    first = chips_of(picture, (FACE,))
    assert chips_of(picture, (FACE,)) is not first, "who may still write to it gets chips of its own"
    picture.flags.writeable = False
    kept = chips_of(picture, (FACE,))
    assert chips_of(picture, [FACE]) is kept and len(chips_of(picture, ())) == 0
    assert chips_of(picture.copy(), (FACE,)) is not kept
