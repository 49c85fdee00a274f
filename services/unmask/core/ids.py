"""Identifiers: opaque, unique without a coordinator, in the order of time."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# By itself, so that a test of every order can have the same one again.
_random: Callable[[int], bytes] = os.urandom


def new_case_id(now: datetime) -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, opaque otherwise."""
    return _uuid7(now, int.from_bytes(_random(10), "big"))


def first_case_id(moment: datetime) -> str:
    """The lowest id that a case of that millisecond can have: no case from then on sorts before it."""
    return _uuid7(max(moment, _EPOCH), 0)


def _uuid7(time: datetime, random: int) -> str:
    milliseconds = int(time.timestamp() * 1000) & ((1 << 48) - 1)
    value = milliseconds << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return str(UUID(int=value))
