"""A watcher of cases on their way: how many there are, how long the slowest stood still, how many attempts were used."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from unmask.adapters.store_tables import cases

_PERIOD: Final = 0.5
_MOVING: Final = sa.select(cases.c.id, cases.c.stage, cases.c.revision, cases.c.attempts).where(cases.c.state == "open")


@dataclass
class Watch:
    """Looks twice a second, as far as Postgres answers."""

    engine: sa.Engine
    open: int = 0
    attempts: int = 0
    longest: float = 0.0
    where: str = ""
    _since: dict[str, tuple[int, float, str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Looks from now on."""
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(_PERIOD):
            try:
                with self.engine.connect() as connection:
                    rows = connection.execute(_MOVING).all()
            except sa.exc.SQLAlchemyError:
                continue
            self._look(rows, began)

    def _look(self, rows: Sequence[sa.Row[tuple[str, str, int, int]]], began: float) -> None:
        now, seen = time.monotonic(), dict[str, tuple[int, float, str]]()
        for row in rows:
            known = self._since.get(row.id)
            since = known[1] if known is not None and known[0] == row.revision else now
            seen[row.id] = (row.revision, since, row.stage)
            self.attempts = max(self.attempts, row.attempts)
            if now - since > self.longest:
                self.longest = now - since
                self.where = f"{row.stage}, from second {since - began:.0f} on"
        self._since, self.open = seen, len(seen)
