"""The doors of the queue on Valkey and Redis, taken from by a script that loses nothing to a kill -9.

kombu takes a message off its list first (BRPOP) and notes it as being in hand afterwards: a process that dies in between has
lost it, one that dies later holds it up for the whole visibility timeout, and what is no message of kombu's breaks the
consumer.  For steps that is well, the sweeper brings their cases back; of a submission nobody knows yet.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from unmask.adapters.celery_app import CELERY_DOOR, JSON_DOOR
from unmask.adapters.door_kombu import Arrived, Settler, Taker, message_id

_log = logging.getLogger(__name__)
# A message that its taker has not spoken of for so long is another's; a taker speaks up every five seconds or so.
_LEASE_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 1.0
# kombu keeps a list for each of its priorities.
_PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
# KEYS: messages in hand, then the lists.  ARGV: seconds of lease.
_TAKE: Final = """
local now = tonumber(redis.call('TIME')[1])
for _, late in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 10)) do
  redis.call('RPUSH', KEYS[2], late)
  redis.call('ZREM', KEYS[1], late)
end
for number = 2, #KEYS do
  local found = redis.call('RPOP', KEYS[number])
  if found then
    redis.call('ZADD', KEYS[1], now + ARGV[1], found)
    return found
  end
end
return false
"""
# KEYS: messages in hand.  ARGV: seconds of lease, the message.
_HOLD: Final = "return redis.call('ZADD', KEYS[1], 'XX', tonumber(redis.call('TIME')[1]) + ARGV[1], ARGV[2])"
# KEYS: messages in hand, the list.  ARGV: the message.
_BACK: Final = "if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then redis.call('RPUSH', KEYS[2], ARGV[1]) end"


class RedisDoors:
    """Takes from both doors until stopped.

    A message leaves the server only once its case or its dead letter is stored.  It is kombu's envelope (as Celery and kombu
    push it) or, on the door for JSON, the submission itself: `LPUSH unmask.submissions '{…}'` is enough.
    """

    def __init__(self, broker: str, taker: Taker) -> None:
        # No reading of its own takes long: the scripts do not wait.
        self._client = Redis.from_url(broker, socket_timeout=10, socket_connect_timeout=5, health_check_interval=25)
        self._take, self._hold, self._back = (self._client.register_script(text) for text in (_TAKE, _HOLD, _BACK))
        self._stop = threading.Event()
        self._settler = Settler(taker, self._stop)

    def stop(self) -> None:
        """Ends `run` after the message in hand; from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Takes; tries again whenever the server went away."""
        _log.info("door: taking submissions from %s and %s", CELERY_DOOR, JSON_DOOR)
        while not self._stop.is_set():
            try:
                if not any([self._one(CELERY_DOOR), self._one(JSON_DOOR)]):
                    self._stop.wait(_POLL_SECONDS)
            except RedisError as error:
                _log.warning("door: broker: %s: %s; trying again", type(error).__name__, error)
                self._stop.wait(_AGAIN_SECONDS)
            except Exception:  # the thread must outlive what it meets; the lease brings back what was in hand
                _log.exception("door: broke off; trying again")
                self._stop.wait(_AGAIN_SECONDS)
        self._client.close()

    def _one(self, door: str) -> bool:
        """Takes and settles a message, if there is one."""
        in_hand = f"{door}.in_hand"
        raw = self._take(keys=[in_hand, *(door + priority for priority in _PRIORITIES)], args=[_LEASE_SECONDS])
        if raw is None:
            return False
        if self._settler.settled(door, opened(raw), lambda: self._hold(keys=[in_hand], args=[_LEASE_SECONDS, raw])):
            self._client.zrem(in_hand, raw)
        else:
            self._back(keys=[in_hand, door], args=[raw])
        return True


def opened(raw: bytes) -> Arrived:
    """What is in kombu's envelope; anything else is the message itself."""
    try:
        envelope: Any = json.loads(raw)
        properties, headers = envelope["properties"], envelope.get("headers") or {}
        text = envelope["body"]
        body = base64.b64decode(text) if properties.get("body_encoding") == "base64" else text.encode()
        return Arrived(body, headers, message_id(properties, headers))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, binascii.Error):
        return Arrived(raw)
