"""What metrics tell of the store's rows, which no single process could count by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from unmask.core.domain import Label, Priority, Stage

# The act of the audit log that says what `unmask discover` came to.
DONE: Final = "discover.done"


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many wait, and when the oldest of them came."""

    count: int
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The open cases at one stage of one lane."""

    stage: Stage
    lane: Priority
    backlog: Backlog


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Cases with this verdict of which reviewers said that they are `truth` (`core.review.Truth`)."""

    label: Label
    truth: str
    cases: int


@dataclass(frozen=True, slots=True)
class Discovery:
    """A run of `unmask discover`: pictures in its largest cluster, 0 where it found none."""

    at: datetime
    largest: int
