"""The one place that knows the order of the stages, and when a failed step is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
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


@dataclass(frozen=True, slots=True)
class RetryRule:
    """At most `limit` attempts a step, `first` after the first failure and twice as long after each further one.

    A case that nobody has moved for `stuck` is published again: its message was lost, or its process died.
    """

    limit: int = 6
    first: timedelta = timedelta(seconds=2)
    longest: timedelta = timedelta(minutes=10)
    stuck: timedelta = timedelta(minutes=1)

    def delay(self, attempts: int) -> timedelta:
        """How long to wait after `attempts` (>= 1) failed attempts."""
        return min(self.first * (1 << min(attempts - 1, 20)), self.longest)
