"""Identifiers: opaque, unique without a coordinator, in the order of time."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

# By itself, so that a test of every order can have the same one again.
_random: Callable[[int], bytes] = os.urandom


def new_case_id(now: datetime) -> str:
    """A UUIDv7 (RFC 9562 §5.7): sorts by time, opaque otherwise."""
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    random = int.from_bytes(_random(10), "big")
    value = milliseconds << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return str(UUID(int=value))
