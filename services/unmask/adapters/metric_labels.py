"""Labels whose values come from outside: only so many get series of their own, the rest is `other`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from unmask.core.errors import UnmaskError
from unmask.core.metrics import MOST_TENANTS, OTHER

_log = logging.getLogger(__name__)
_SECONDS: Final = 60.0


class Bounded:
    """Values as they are, until a label has had `most` different ones; from then on new ones are `other`.  Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[str, set[str]] = {}
        self._turn = threading.Lock()

    def __call__(self, label: str, value: str) -> str:
        """What to write for that value of that label."""
        with self._turn:
            seen = self._seen.setdefault(label, set())
            if value not in seen and len(seen) < self._most:
                seen.add(value)
            return value if value in seen else OTHER


class NamedTenants:
    """Tenants by name if they are among those that `read` gives, which is asked once a minute at most; else `other`.

    All processes ask the same list, so that a tenant has the same name in each, whoever was seen first.  Thread-safe.
    """

    def __init__(self, read: Callable[[], Collection[str]]) -> None:
        self._read = read
        self._known: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._turn = threading.Lock()

    def __call__(self, tenant: str) -> str:
        """What to write for that tenant; never raises."""
        with self._turn:
            if tenant not in self._known and time.monotonic() - self._read_at >= _SECONDS:
                self._read_at = time.monotonic()
                self._known = self._asked()
        return tenant if tenant in self._known else OTHER

    def _asked(self) -> frozenset[str]:
        try:
            return frozenset(tuple(self._read())[:MOST_TENANTS])
        except UnmaskError as error:
            _log.warning("metrics: which tenants there are was not read (%s)", error.detail)
            return self._known
