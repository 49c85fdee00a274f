"""What a process counts, times and shows, as Prometheus metrics; `unmask.core.metrics` declares them."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.adapters.metric_labels import Bounded, NamedTenants
from unmask.core import metrics as declared
from unmask.core.domain import Case, FaceVerdict, Label, State, Step, Verdict
from unmask.core.errors import CODES
from unmask.core.metrics import NONE, OTHER, Kind, Metric
from unmask.core.reasons import likeliest
from unmask.core.releases import ShadowScore

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
_DETECTOR: Final = "detector"
_turn: Final = threading.Lock()


def share_over_processes() -> Path:
    """Lets child processes (Celery's pool) count into the parent's page; before prometheus_client is imported."""
    folder = Path(tempfile.mkdtemp(prefix="unmask-metrics-"))
    os.environ[_DIRECTORY] = str(folder)
    return folder


def forget_processes(folder: Path) -> None:
    """Removes what `share_over_processes` made."""
    shutil.rmtree(folder, ignore_errors=True)


def _made(metric: Metric) -> Any:
    """The metric as it is in prometheus_client's registry, which takes each name once.

    Made at its first use: a process shows nothing of what is not its business, where a zero would be a claim.
    """
    with _turn:
        return _make(metric)


@cache
def _make(metric: Metric) -> Any:
    import prometheus_client

    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    if metric.kind is Kind.COUNTER:
        return prometheus_client.Counter(metric.name, metric.help, metric.labels)
    if metric.kind is Kind.HISTOGRAM:
        return prometheus_client.Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets)
    # Of several children the one that spoke last; in the page of one process the mode does nothing.
    return prometheus_client.Gauge(metric.name, metric.help, metric.labels, multiprocess_mode="mostrecent")


class PrometheusObserver:
    """The port `Observer` over prometheus_client.  All of a process count into the same metrics.

    `tenants` names those that have series of their own; without it all are `other`.
    """

    def __init__(self, tenants: Callable[[], Collection[str]] = tuple) -> None:
        self._tenant = NamedTenants(tenants)
        self._values = Bounded(declared.MOST_VALUES)
        self._gauges: dict[str, set[tuple[str, ...]]] = {}
        self._turn = threading.Lock()

    def stepped(self, case: Case, step: Step, seconds: float | None, verdict: Verdict | None = None) -> None:
        """See `Observer.stepped`."""
        if seconds is not None:
            _histogram(declared.STAGE_SECONDS, step.value).observe(seconds)
        _counter(declared.STAGE_OUTCOMES, step.value, *_outcome(case, step)).inc()
        if case.ended:
            lasted = (datetime.now(UTC) - case.created_at).total_seconds()
            _histogram(declared.CASE_SECONDS, case.priority.value, case.state.value).observe(max(lasted, 0.0))
        if verdict is not None:
            detector = self._detector(verdict)
            told = (self._tenant(case.tenant), verdict.label.value, (case.action or verdict.action).value, detector)
            _counter(declared.VERDICTS, *told).inc()
            if step is Step.DECIDE:  # a verdict that is told again says nothing new of the models
                self._judged(verdict, detector)

    def compared(self, score: ShadowScore, release: str) -> None:
        """See `Observer.compared`."""
        name = self._values("release", release)
        _counter(declared.SHADOW_CASES, name, score.active_label.value, score.label or State.FAILED.value).inc()
        if score.score is not None and score.active_score is not None:
            _histogram(declared.SHADOW_DIFFERENCE, name).observe(abs(score.score - score.active_score))

    def counted(self, duty: str, count: int) -> None:
        """See `Observer.counted`."""
        _counter(declared.DUTIES, self._values("duty", duty)).inc(count)

    def delivered(self, sink: str, outcome: str, lag: float) -> None:
        """See `Observer.delivered`."""
        name = self._values("sink", sink)
        _counter(declared.DELIVERIES, name, outcome).inc()
        if outcome == "accepted":
            _histogram(declared.DELIVERY_LAG, name).observe(max(lag, 0.0))

    def answered(self, method: str, code: str, seconds: float) -> None:
        """See `Observer.answered`."""
        _histogram(declared.RPC_SECONDS, self._values("method", method), _code(code)).observe(seconds)

    def gauged(self, metric: Metric, values: Mapping[tuple[str, ...], float]) -> None:
        """See `Observer.gauged`."""
        with self._turn:
            if not values and metric.name not in self._gauges:
                return
            gauge: Gauge = _made(metric)
            for labels, value in values.items():
                (gauge.labels(*labels) if labels else gauge).set(value)
            for labels in self._gauges.get(metric.name, set()) - values.keys():
                if labels:
                    gauge.remove(*labels)
                else:
                    gauge.set(math.nan)
            self._gauges[metric.name] = set(values)

    def page(self) -> bytes:
        """The metrics of this process, and of its children where they share."""
        from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if _DIRECTORY not in os.environ:
            return generate_latest(REGISTRY)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _detector(self, verdict: Verdict) -> str:
        return next((self._values("version", str(m.version)) for m in verdict.models if m.name == _DETECTOR), NONE)

    def _judged(self, verdict: Verdict, detector: str) -> None:
        _histogram(declared.PICTURE_FACES).observe(len(verdict.faces))
        _histogram(declared.PICTURE_REGIONS).observe(sum(len(face.regions) for face in verdict.faces))
        for face in verdict.faces:
            _counter(declared.FACES, face.label.value, self._values("family", _family(face)), detector).inc()
            if face.synthetic is not None:
                _histogram(declared.FACE_SCORE, detector).observe(face.synthetic)
            if face.doubt is not None:
                _histogram(declared.FACE_DOUBT, detector).observe(face.doubt)
            if face.defence is not None:
                _histogram(declared.DEFENCE_GAP, detector).observe(abs(face.defence.plain - face.defence.blurred))


def _counter(metric: Metric, *labels: str) -> Counter:
    made: Counter = _made(metric)
    return made.labels(*labels)


def _histogram(metric: Metric, *labels: str) -> Histogram:
    made: Histogram = _made(metric)
    return made.labels(*labels) if labels else made


def _outcome(case: Case, step: Step) -> tuple[str, str]:
    """What came of the step, and the failure's code."""
    if case.failure is None:
        is_reused = step is Step.INGEST and case.state is State.DECIDED
        return ("reused" if is_reused else "done"), NONE
    return ("retry" if case.state is State.OPEN else case.state.value), _code(case.failure.code)


def _code(code: str) -> str:
    return code if code in {*CODES, declared.OK, declared.CANCELLED} else OTHER


def _family(face: FaceVerdict) -> str:
    """Whom a face is attributed to; the shares say something only of one that is called synthetic."""
    return (likeliest(face) or NONE) if face.label is Label.SYNTHETIC else NONE
