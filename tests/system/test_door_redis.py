"""The queue's doors on Valkey: what was taken and not settled comes back, whatever it is and whoever pushed it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kombu import Connection

from unmask.adapters import door_kombu, door_redis
from unmask.adapters.celery_app import CELERY_DOOR, JSON_DOOR
from unmask.adapters.door_redis import RedisDoors
from unmask.core.errors import BadRequest, CallerError, Unavailable

DEADLINE = 20.0


class Kept:
    """Takes everything, as it is told to; remembers it."""

    def __init__(self, do: Callable[[bytes], None] = lambda body: None) -> None:
        self.do = do
        self.taken: list[tuple[bytes, str]] = []
        self.buried: list[tuple[str, bytes, str]] = []

    def take(self, body: bytes, default_key: str) -> object:
        self.do(body)
        self.taken.append((body, default_key))
        return None

    def bury(self, door: str, body: bytes, error: CallerError) -> None:
        self.buried.append((door, body, error.detail))


@contextmanager
def open_doors(url: str, taker: Kept) -> Iterator[RedisDoors]:
    doors = RedisDoors(url, taker)
    thread = threading.Thread(target=doors.run)
    thread.start()
    try:
        yield doors
    finally:
        doors.stop()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def until(check: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def client(valkey_url: str) -> redis.Redis:
    return redis.Redis.from_url(valkey_url)


def waiting(client: redis.Redis, door: str = JSON_DOOR) -> tuple[int, int]:
    """Messages on the list, and in hand."""
    return int(client.llen(door)), int(client.zcard(f"{door}.in_hand"))


def publish(url: str, body: bytes, **how: Any) -> None:
    with Connection(url) as connection:
        connection.Producer().publish(body, routing_key=JSON_DOOR, content_type="application/json", **how)


def test_kombu_s_messages_and_bare_ones_are_taken_under_what_stays_the_same(valkey_url: str, client: redis.Redis) -> None:
    taker = Kept()
    publish(valkey_url, b'{"n": 1}', message_id="mine")
    publish(valkey_url, b'{"n": 2}', priority=9)
    client.lpush(JSON_DOOR, '{"n": 3}')
    with open_doors(valkey_url, taker):
        until(lambda: len(taker.taken) == 3, "three submissions")
        until(lambda: waiting(client) == (0, 0), "nothing in hand")
    keys = dict(taker.taken)
    assert keys[b'{"n": 1}'] == f"{JSON_DOOR}:mine"
    assert len(keys[b'{"n": 2}']) > len(JSON_DOOR) + 10 and keys[b'{"n": 3}'].startswith(f"{JSON_DOOR}:")


@pytest.mark.parametrize("raw", [b"", b"no JSON \xff", b"[]", b'{"body": 7, "properties": {}}', b'{"properties": []}'])
def test_what_is_no_message_at_all_is_handed_on_as_it_is_and_closes_no_door(
    valkey_url: str, client: redis.Redis, raw: bytes
) -> None:
    def refuse(body: bytes) -> None:
        if body == raw:
            raise BadRequest("not JSON")

    taker = Kept(refuse)
    client.lpush(JSON_DOOR, raw)
    with open_doors(valkey_url, taker):
        until(lambda: taker.buried, "its letter")
        client.lpush(JSON_DOOR, "{}")
        until(lambda: taker.taken, "the next one")
        until(lambda: waiting(client) == (0, 0), "nothing in hand")
    assert taker.buried == [(JSON_DOOR, raw, "not JSON")]


def test_what_a_dead_taker_had_in_hand_is_another_s_after_the_lease(
    valkey_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_redis, "_LEASE_SECONDS", 2)
    dead = RedisDoors(valkey_url, Kept())
    client.lpush(CELERY_DOOR, json.dumps({"n": 1}))
    keys = [f"{CELERY_DOOR}.in_hand", CELERY_DOOR]
    assert dead._take(keys=keys, args=[2]) is not None  # and is never heard of again
    assert waiting(client, CELERY_DOOR) == (0, 1)
    taker = Kept()
    with open_doors(valkey_url, taker):
        until(lambda: taker.buried, "the message again")  # a letter: it is no task of Celery's
        until(lambda: waiting(client, CELERY_DOOR) == (0, 0), "nothing in hand")
    assert len(taker.buried) == 1


def test_a_message_is_held_beyond_its_lease_while_the_store_is_away_and_given_back_at_the_end(
    valkey_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_redis, "_LEASE_SECONDS", 2)
    monkeypatch.setattr(door_kombu, "_LONGEST_PAUSE", 0.5)  # of the lease a sixth as in earnest
    tries: list[tuple[float, int]] = []

    def away(body: bytes) -> None:
        tries.append((time.monotonic(), threading.get_ident()))
        raise Unavailable("the store is away")

    client.lpush(JSON_DOOR, "{}")
    with open_doors(valkey_url, Kept(away)), open_doors(valkey_url, Kept(away)):
        until(lambda: tries and tries[-1][0] - tries[0][0] > 4.0, "tries beyond the lease")
        assert waiting(client) == (0, 1)
        assert len({thread for _, thread in tries}) == 1  # the other one left it alone
    assert waiting(client) == (1, 0)


def test_a_server_that_was_killed_is_met_again_with_everything(valkey: Any, valkey_url: str, client: redis.Redis) -> None:
    taker = Kept()
    with open_doors(valkey_url, taker):
        client.lpush(JSON_DOOR, '{"n": 1}')
        until(lambda: len(taker.taken) == 1, "the first")
        valkey.kill()
        valkey.start()
        redis.Redis.from_url(valkey_url).lpush(JSON_DOOR, '{"n": 2}')
        until(lambda: len(taker.taken) == 2, "the second")
