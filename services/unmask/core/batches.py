"""How far a batch is: its cases by state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unmask.core.domain import State


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Cases of the batch in each state; a state that has none may be left out."""

    name: str
    states: Mapping[State, int]

    @property
    def total(self) -> int:
        """Cases accepted so far."""
        return sum(self.states.values())

    @property
    def ended(self) -> int:
        """Those for which nothing more will happen by itself."""
        return self.total - self.states.get(State.OPEN, 0)

    @property
    def done(self) -> float | None:
        """Share of the cases that have ended; None without any."""
        return self.ended / self.total if self.total else None
