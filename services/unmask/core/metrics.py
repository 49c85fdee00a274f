"""The names of all metrics, with what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

STAGE_SECONDS: Final = "unmask_stage_seconds"
FAILED_ATTEMPTS: Final = "unmask_failed_attempts_total"
CASES_ENDED: Final = "unmask_cases_ended_total"
DUTIES: Final = "unmask_duties_total"
HELP: Final[Mapping[str, str]] = MappingProxyType(
    {
        STAGE_SECONDS: "Seconds that one step of one case took in a worker.",
        FAILED_ATTEMPTS: "Attempts at a step that failed, by the code of the failure.",
        CASES_ENDED: "Cases that ended, by their state, and by label and action where they were decided.",
        DUTIES: "What background duties did: cases published again or expired, orphans removed, events by sink, shadow scores.",
    }
)
# A pure step takes milliseconds, a model on a busy server seconds, a child is killed after two minutes.
SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
