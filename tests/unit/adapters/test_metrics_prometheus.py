"""What metrics count, that labels stay few whatever comes, and that children count into their parent's page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.contract.samples import a_case, a_verdict
from unmask.adapters.metrics_prometheus import PrometheusObserver
from unmask.core import metrics
from unmask.core.domain import Action, Failure, Label, ModelVersion, State, Step
from unmask.core.errors import Unavailable
from unmask.core.releases import ShadowScore

EVIL = ('"} 1\n# HELP x', "a" * 300, "Zoë 🦊", "", "\\", "{label=~'.*'}")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def series(name: str) -> list[dict[str, str]]:
    return [s.labels for metric in REGISTRY.collect() for s in metric.samples if s.name == name]


def grew(name: str, labels: dict[str, str], act: Any) -> float:
    before = value(name, **labels)
    act()
    return value(name, **labels) - before


def test_names_and_labels_are_as_prometheus_wants_them() -> None:
    for metric in metrics.ALL:
        assert re.fullmatch(r"unmask_[a-z_]+", metric.name) and metric.help.endswith("."), metric
        assert (metric.kind is metrics.Kind.COUNTER) == metric.name.endswith("_total"), metric
        assert bool(metric.buckets) == (metric.kind is metrics.Kind.HISTOGRAM) and list(metric.buckets) == sorted(
            metric.buckets
        )
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)
    assert set(metrics.BINS) <= set(metrics.SCORES)


def test_a_decided_case_counts_its_verdict_and_its_faces_once() -> None:
    observer = PrometheusObserver(lambda: ["acme"])
    case = a_case("acme", state=State.DECIDED, label=Label.MANIPULATED, action=Action.BLOCK, created_at=datetime.now(UTC))
    verdict = a_verdict(case, models=(ModelVersion("detector", 7, "e" * 64),))
    told = {"tenant": "acme", "label": "manipulated", "action": "block", "detector": "7"}
    faces = {"label": "manipulated", "family": "none", "detector": "7"}
    before = value("unmask_faces_total", **faces)
    assert grew("unmask_verdicts_total", told, lambda: observer.stepped(case, Step.DECIDE, 0.1, verdict)) == 1
    assert value("unmask_faces_total", **faces) - before == 2
    assert value("unmask_defence_gap_sum", detector="7") == pytest.approx(0.1)
    # The same verdict for another case of these bytes is one more picture, and no more faces.
    assert grew("unmask_verdicts_total", told, lambda: observer.stepped(case, Step.INGEST, 0.1, verdict)) == 1
    assert value("unmask_faces_total", **faces) - before == 2
    assert value("unmask_stage_outcomes_total", step="ingest", outcome="reused", code="none") >= 1


def test_only_a_face_called_synthetic_is_attributed() -> None:
    observer = PrometheusObserver()
    case = a_case()
    face = replace(a_verdict(case).faces[0], label=Label.SYNTHETIC, generator={"stylegan9": 0.9, "unknown": 0.1})
    verdict = a_verdict(case, faces=(face, replace(face, label=Label.REAL)), models=())
    for family, label in (("stylegan9", "synthetic"), ("none", "real")):
        told = {"label": label, "family": family, "detector": "none"}
        assert grew("unmask_faces_total", told, lambda: observer.stepped(case, Step.DECIDE, 0.1, verdict)) == 1


def test_failures_are_counted_by_known_codes_only() -> None:
    observer = PrometheusObserver()
    for code, shown in (("bad_model", "bad_model"), ("worker_lost", "worker_lost"), (EVIL[0], "other")):
        case = a_case(failure=Failure(code, "x"))
        told = {"step": "align", "outcome": "retry", "code": shown}
        assert grew("unmask_stage_outcomes_total", told, lambda one=case: observer.stepped(one, Step.ALIGN, None)) == 1


def test_hostile_values_make_a_bounded_number_of_series() -> None:
    tenants = [f"tenant-{number}" for number in range(metrics.MOST_TENANTS)]
    observer = PrometheusObserver(lambda: tenants)
    strange = [*EVIL, *(f"made-up-{number}" for number in range(3000))]
    case = a_case(state=State.DECIDED)
    for one in strange:
        face = replace(a_verdict(case).faces[0], label=Label.SYNTHETIC, generator={one: 1.0})
        verdict = a_verdict(case, faces=(face,), models=(ModelVersion("detector", hash(one), "e" * 64),))
        observer.stepped(replace(case, tenant=one, failure=Failure(one, "x")), Step.DECIDE, 0.1, verdict)
        observer.compared(ShadowScore(one, "i", "r", "a", Label.REAL, 0.1, Label.REAL, 0.2, case.created_at), one)
        observer.delivered(one, "accepted", 1.0)
        observer.counted(one, 1)
        observer.answered(one, one, 0.1)
    # Values of earlier tests stay in the registry of this process, and each observer has its own list.
    most = metrics.MOST_VALUES + 16
    assert {told["tenant"] for told in series("unmask_verdicts_total")} <= {*tenants, "acme", "other"}
    for name, label in (
        ("unmask_faces_total", "family"),
        ("unmask_faces_total", "detector"),
        ("unmask_shadow_cases_total", "release"),
        ("unmask_deliveries_total", "sink"),
        ("unmask_duties_total", "duty"),
        ("unmask_rpc_seconds_count", "method"),
    ):
        values = {told[label] for told in series(name)}
        assert "other" in values and len(values) <= most, (name, label, len(values))
    assert {told["code"] for told in series("unmask_rpc_seconds_count")} == {"other"}
    page = observer.page().decode()
    assert page.count("\n") < 60_000 and "# HELP x" not in page.splitlines()


def test_tenants_beyond_the_first_are_other_and_a_store_that_is_away_names_none() -> None:
    many = [f"t{number:03}" for number in range(200)]
    observer = PrometheusObserver(lambda: many)
    verdict = a_verdict(a_case())
    for name, shown in (("t000", "t000"), ("t049", "t049"), ("t050", "other"), ("nobody", "other")):
        told = {"tenant": shown, "label": "manipulated", "action": "review", "detector": "1"}
        assert (
            grew("unmask_verdicts_total", told, lambda who=name: observer.stepped(a_case(who), Step.DECIDE, 0.1, verdict)) == 1
        )

    def away() -> list[str]:
        raise Unavailable("no database")

    PrometheusObserver(away).stepped(a_case("t000"), Step.DECIDE, 0.1, verdict)


def test_a_gauge_shows_what_it_was_told_last_and_nothing_else() -> None:
    observer = PrometheusObserver()
    observer.gauged(metrics.RELEASE_INFO, {("active", "one", "abc", "2"): 1.0, ("shadow", "two", "def", "3"): 1.0})
    observer.gauged(metrics.RELEASE_INFO, {("active", "two", "def", "3"): 1.0})
    assert [told["release"] for told in series("unmask_release_info")] == ["two"]
    observer.gauged(metrics.UNKNOWN_CLUSTER, {})
    assert series("unmask_largest_unknown_cluster") == []
    observer.gauged(metrics.UNKNOWN_CLUSTER, {(): 7.0})
    assert value("unmask_largest_unknown_cluster") == 7.0
    observer.gauged(metrics.UNKNOWN_CLUSTER, {})
    assert value("unmask_largest_unknown_cluster") != 7.0


def test_a_case_that_ends_tells_how_long_it_took() -> None:
    observer = PrometheusObserver()
    case = a_case(state=State.DEAD, created_at=datetime.now(UTC) - timedelta(seconds=90), failure=Failure("internal", "x"))
    told = {"lane": "live", "state": "dead"}
    assert grew("unmask_case_seconds_count", told, lambda: observer.stepped(case, Step.ALIGN, 0.1)) == 1
    assert (
        value("unmask_case_seconds_bucket", **told, le="60.0") == 0
        and value("unmask_case_seconds_bucket", **told, le="300.0") == 1
    )


CHILDREN = """
import os, sys
from unmask.adapters.metrics_prometheus import PrometheusObserver, forget_processes, share_over_processes
folder = share_over_processes()
from unmask.core import metrics
for number in range(3):
    if (child := os.fork()) == 0:
        observer = PrometheusObserver()
        observer.counted("orphans", number + 1)
        observer.answered("Ingestion/Check", "ok", 0.01)
        observer.gauged(metrics.WORKER_SLOTS, {("align",): 4.0})
        os._exit(0)
    os.waitpid(child, 0)
observer = PrometheusObserver()
observer.gauged(metrics.BUILD_INFO, {("1.0", "align"): 1.0})
sys.stdout.buffer.write(observer.page())
forget_processes(folder)
"""


def test_children_count_into_one_page() -> None:
    done = subprocess.run([sys.executable, "-c", CHILDREN], env=dict(os.environ), capture_output=True, text=True, check=True)
    assert 'unmask_duties_total{duty="orphans"} 6.0' in done.stdout
    assert 'unmask_rpc_seconds_count{code="ok",method="Ingestion/Check"} 3.0' in done.stdout
    assert 'unmask_worker_slots{process="align"} 4.0' in done.stdout
    assert 'unmask_build_info{process="align",version="1.0"} 1.0' in done.stdout
    assert "pid=" not in done.stdout
