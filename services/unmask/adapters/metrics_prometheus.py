"""What a process counts and times, as Prometheus metrics; the names are in `unmask.core.metrics`."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from unmask.core import metrics as names
from unmask.core.domain import Case, Step

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"


def share_over_processes() -> Path:
    """Lets child processes (Celery's pool) count into the parent's page; before prometheus_client is imported."""
    folder = Path(tempfile.mkdtemp(prefix="unmask-metrics-"))
    os.environ[_DIRECTORY] = str(folder)
    return folder


class PrometheusObserver:
    """The port `Observer` over prometheus_client; see `observer`."""

    def __init__(self) -> None:
        from prometheus_client import REGISTRY, Counter, Histogram

        self._registry = REGISTRY
        self._seconds = Histogram(names.STAGE_SECONDS, names.HELP[names.STAGE_SECONDS], ["step"], buckets=names.SECONDS)
        self._attempts = Counter(names.FAILED_ATTEMPTS, names.HELP[names.FAILED_ATTEMPTS], ["step", "code"])
        self._ends = Counter(names.CASES_ENDED, names.HELP[names.CASES_ENDED], ["state", "label", "action"])
        self._counts = Counter(names.DUTIES, names.HELP[names.DUTIES], ["duty"])

    def stepped(self, case: Case, step: Step, seconds: float) -> None:
        """See `Observer.stepped`."""
        self._seconds.labels(step.value).observe(seconds)
        if case.failure is not None:
            self._attempts.labels(step.value, case.failure.code).inc()
        if case.ended:
            self._ends.labels(case.state.value, case.label or "", case.action or "").inc()

    def counted(self, duty: str, count: int) -> None:
        """See `Observer.counted`."""
        self._counts.labels(duty).inc(count)

    def page(self) -> bytes:
        """The metrics of this process, and of its children where they share."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if _DIRECTORY not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


@cache
def observer() -> PrometheusObserver:
    """The one of this process: prometheus_client's registry takes each name once."""
    return PrometheusObserver()


def forget_processes(folder: Path) -> None:
    """Removes what `share_over_processes` made."""
    shutil.rmtree(folder, ignore_errors=True)
