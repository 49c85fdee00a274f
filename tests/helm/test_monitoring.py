"""What Prometheus scrapes is there once; dashboards and rules come out as their files have them, also where there are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

from tests.helm.rendering import CHART, Rendering, main_of, pod_labels, render, selects

ON = ("--set", "monitoring.dashboards.enabled=true,monitoring.rules.enabled=true")
# What a template engine would take for its own must come out as it went in.
DASHBOARD = {"title": "A {{ brace }}", "panels": [{"expr": 'rate(x{y="é"}[5m])', "legendFormat": "{{component}}"}]}
RULES: dict[str, Any] = {
    "groups": [
        {
            "name": "unmask",
            "rules": [
                {
                    "alert": "Stuck",
                    "expr": "unmask_queue_age_seconds > 60",
                    "for": "5m",
                    "annotations": {"summary": "{{ $labels.queue }}: {{ $value }} s"},
                },
                {"record": "unmask:rate", "expr": "rate(unmask_cases_total[5m])"},
            ],
        }
    ]
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart without dashboards and rules."""
    return Path(shutil.copytree(CHART, tmp_path / "unmask", ignore=lambda _, names: {"dashboards", "rules"} & set(names)))


def test_every_page_of_metrics_is_scraped_by_one_monitor(production: Rendering) -> None:
    for deployment in production.kind("Deployment"):
        labels = pod_labels(deployment)
        services = [s for s in production.kind("Service") if selects({"matchLabels": s["spec"]["selector"]}, labels)]
        ways = [
            (monitor["kind"], endpoint["port"])
            for monitor in production.kind("ServiceMonitor")
            for service in services
            if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
            for endpoint in monitor["spec"]["endpoints"]
            if endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        ] + [
            (monitor["kind"], endpoint["port"])
            for monitor in production.kind("PodMonitor")
            if selects(monitor["spec"]["selector"], labels)
            for endpoint in monitor["spec"]["podMetricsEndpoints"]
            if endpoint["port"] in {port["name"] for port in main_of(deployment)["ports"]}
        ]
        assert len(ways) == 1, (deployment["metadata"]["name"], ways)


def test_every_monitor_selects_something(production: Rendering) -> None:
    for monitor in production.kind("ServiceMonitor"):
        assert [s for s in production.kind("Service") if selects(monitor["spec"]["selector"], s["metadata"]["labels"])]
    for monitor in production.kind("PodMonitor"):
        assert [d for d in production.kind("Deployment") if selects(monitor["spec"]["selector"], pod_labels(d))]
    assert all(d["metadata"]["labels"]["release"] == "prometheus" for d in production.kind("ServiceMonitor"))


def test_without_dashboards_and_rules_there_are_none(chart: Path, major: int) -> None:
    found = render(*ON, chart=chart, major=major)
    assert not found.kind("PrometheusRule") and not [d for d in found.kind("ConfigMap") if "dashboard" in d["metadata"]["name"]]


def test_dashboards_and_rules_come_out_as_they_are(chart: Path, major: int) -> None:
    for folder, name, text in (
        ("dashboards", "sre.json", json.dumps(DASHBOARD, ensure_ascii=False)),
        ("rules", "alerts.yaml", yaml.safe_dump(RULES)),
    ):
        (chart / folder).mkdir()
        (chart / folder / name).write_text(text, encoding="utf-8")
    found = render(*ON, chart=chart, major=major)
    board = found.one("ConfigMap", "unmask-dashboard-sre")
    assert json.loads(board["data"]["sre.json"]) == DASHBOARD
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    rule = found.one("PrometheusRule", "unmask-alerts")
    assert rule["spec"] == RULES
    model = operator.PrometheusRule.model_validate(rule)
    assert model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)["spec"] == RULES
    off = render(chart=chart, major=major)
    assert not off.kind("PrometheusRule") and not off.kind("ConfigMap")


def test_the_dashboards_and_rules_that_are_shipped_come_out(production: Rendering) -> None:
    boards = {name: text for d in production.kind("ConfigMap") for name, text in d["data"].items() if name.endswith(".json")}
    boards.pop("release.json", None)
    shipped = {path.name: path.read_text(encoding="utf-8") for path in CHART.glob("dashboards/*.json")}
    assert boards == shipped
    rules = {d["metadata"]["name"].removeprefix("unmask-"): d["spec"] for d in production.kind("PrometheusRule")}
    assert rules == {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in CHART.glob("rules/*.yaml")}


@pytest.mark.parametrize("docs", ["https://docs.example.org/unmask", "https://docs.example.org/unmask/"])
def test_alerts_link_to_where_the_documents_are(docs: str, major: int) -> None:
    found = render(*ON, "--set", f"monitoring.rules.docs={docs}", major=major)
    groups = found.one("PrometheusRule", "unmask-alerts")["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    assert links and all(link.startswith("https://docs.example.org/unmask/runbook.html#unmask") for link in links)
