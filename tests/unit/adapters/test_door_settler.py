"""What a door does with a message: taken, buried, or held until whoever is away has come back."""

from __future__ import annotations

import threading

import pytest

from unmask.adapters.celery_app import CELERY_DOOR, JSON_DOOR
from unmask.adapters.door_kombu import Arrived, Settler
from unmask.core.errors import BadModel, BadRequest, CallerError, Unavailable

BODY = b'{"token": "t", "blob": "acme/x"}'


class Taker:
    """Takes submissions after it has raised what it was told to, in order."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.taken: list[tuple[bytes, str]] = []
        self.buried: list[tuple[str, bytes, str]] = []

    def take(self, body: bytes, default_key: str) -> None:
        """Raises the next error, or takes."""
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append((body, default_key))

    def bury(self, door: str, body: bytes, error: CallerError) -> None:
        """Keeps the letter."""
        self.buried.append((door, body, error.detail))


@pytest.mark.parametrize("error", [Unavailable("Postgres restarts"), BadModel("no release is active")])
def test_what_time_or_an_operator_repairs_holds_the_message(error: Exception) -> None:
    taker, holds = Taker(error, error), []
    assert Settler(taker, threading.Event()).settled(JSON_DOOR, Arrived(BODY, id="m-1"), lambda: holds.append(1))
    assert taker.taken == [(BODY, f"{JSON_DOOR}:m-1")] and not taker.buried and len(holds) == 3


@pytest.mark.parametrize(
    ("error", "said"),
    [(BadRequest("priority 'urgent'"), "priority 'urgent'"), (RuntimeError("ours"), "inside Unmask (RuntimeError)")],
)
def test_what_will_never_be_taken_is_buried_and_settled(error: Exception, said: str) -> None:
    taker = Taker(error)
    assert Settler(taker, threading.Event()).settled(JSON_DOOR, Arrived(BODY))
    ((door, body, detail),) = taker.buried
    assert (door, body) == (JSON_DOOR, BODY) and said in detail and not taker.taken


def test_a_consumer_that_stops_hands_back_what_it_holds() -> None:
    stop, taker = threading.Event(), Taker(*[Unavailable("away")] * 99)
    stop.set()
    assert not Settler(taker, stop).settled(JSON_DOOR, Arrived(BODY))
    assert not taker.taken and not taker.buried


def test_a_celery_message_is_its_keyword_arguments_under_its_task_id() -> None:
    taker = Taker()
    message = Arrived(b'[[], {"blob": "acme/x"}, {}]', {"task": "unmask.submit", "id": "task-1"}, "task-1")
    assert Settler(taker, threading.Event()).settled(CELERY_DOOR, message)
    assert taker.taken == [(b'{"blob": "acme/x"}', f"{CELERY_DOOR}:task-1")]


def test_what_cannot_be_unpacked_is_buried_as_it_came() -> None:
    taker = Taker()
    assert Settler(taker, threading.Event()).settled(JSON_DOOR, Arrived(b"\x00zip", unread=ValueError("zlib")))
    assert taker.buried == [(JSON_DOOR, b"\x00zip", "the message cannot be unpacked (ValueError)")]
