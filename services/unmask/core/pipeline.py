"""The one place that knows the order of the stages, and when a failed step is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from unmask.core.domain import Case, Findings, Stage, State, Step

ORDER: Final[tuple[tuple[Step, Stage], ...]] = (
    (Step.INGEST, Stage.INGESTED),
    (Step.ALIGN, Stage.ALIGNED),
    (Step.CLASSIFY, Stage.CLASSIFIED),
    (Step.LOCALIZE, Stage.LOCALIZED),
    (Step.DECIDE, Stage.DECIDED),
)
_STAGES: Final = (Stage.ACCEPTED, *(stage for _, stage in ORDER))
_AFTER: Final = dict(ORDER)
# No wait is as long: a case that is due later than this was written before the clock went back.
CLOCK_WENT_BACK: Final = timedelta(hours=1)


def next_step(stage: Stage) -> Step | None:
    """The step that a case at `stage` waits for, or None when it is decided."""
    index = _STAGES.index(stage)
    return ORDER[index][0] if index < len(ORDER) else None


def stage_after(step: Step, findings: Findings | None = None) -> Stage:
    """The stage that `step` brings a case to; with no face there is nothing to classify or localize."""
    if step is Step.ALIGN and findings is not None and not findings.faces:
        return Stage.LOCALIZED
    return _AFTER[step]


def reached(case: Case, stage: Stage) -> bool:
    """Whether the case has completed `stage`."""
    return _STAGES.index(case.stage) >= _STAGES.index(stage)


def waits_for(case: Case) -> Step | None:
    """The step that an open case waits for; None once it has ended."""
    return None if case.state is not State.OPEN else next_step(case.stage)


def too_early(case: Case, now: datetime) -> bool:
    """Whether a case that failed before still waits for its next attempt."""
    return case.attempts > 0 and timedelta(0) < case.due_at - now <= CLOCK_WENT_BACK


@dataclass(frozen=True, slots=True)
class RetryRule:
    """When a failed step is tried again: `first` after the first failure, twice as long after each further one, to `longest`.

    A step that breaks by itself (a defect, a worker that dies of it) has `limit` attempts in a row.  What waits for somebody
    else, a server that is away or an operator's repair, has as many, and all that `outage` gives time for since the case came:
    an outage ends no case.  One that nobody has moved for `stuck` is published again: its message or its process was lost.
    """

    limit: int = 6
    first: timedelta = timedelta(seconds=2)
    longest: timedelta = timedelta(minutes=2)
    outage: timedelta = timedelta(hours=24)
    stuck: timedelta = timedelta(minutes=1)

    def is_spent(self, attempts: int, age: timedelta, *, outage: bool) -> bool:
        """Whether a case of that age is given up after so many failed attempts; `outage` says what the last one was.

        Past seven times `outage` it is, whatever failed: nothing goes round for ever.
        """
        if self.outage and age >= 7 * self.outage:
            return True
        return attempts >= self.limit and (not outage or age >= self.outage)

    def delay(self, attempts: int) -> timedelta:
        """How long to wait after `attempts` (>= 1) failed attempts."""
        return min(self.first * (1 << min(attempts - 1, 20)), self.longest)
