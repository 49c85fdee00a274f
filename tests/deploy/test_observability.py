"""Dashboards, rules and runbook hold together: names, bins, anchors, commands; and the checks can fail."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, missing
from tests.system.test_dashboards import PRODUCTION
from unmask.cli.main import parser
from unmask.core import metrics
from unmask_dashboards.all import DASHBOARDS
from unmask_dashboards.check import expressions, names_in, rules, unknown, unparsed, unused
from unmask_dashboards.panels import Look, Steps

CHART = ROOT / "helm/unmask"
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ALERTS = [rule for rule, _ in rules(CHART) if "alert" in rule]
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
COMMANDS = [
    pytest.param(line.split(" #")[0], id=f"{name}: {line}")
    for name, text in SECTIONS.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("unmask ")
]


def test_only_declared_metrics_are_asked_for_and_each_is_looked_at() -> None:
    assert not unknown(CHART) and not unused(CHART)


def test_prometheus_parses_every_expression() -> None:
    if shutil.which("promtool") is None:
        missing("no promtool: apt install prometheus")
    said = list(expressions(CHART))
    assert len(said) > 100 and unparsed(said) == []
    assert unparsed([*said, ("wrong", "sum(rate(x[5m])")])[0] == "wrong: sum(rate(x[5m])"


def test_a_metric_that_nobody_has_is_found(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    rule = {"record": "unmask:x", "expr": "unmask_verdict_total / unmask_stage_seconds_bucket + unmask:x"}
    (tmp_path / "rules/own.yaml").write_text(yaml.safe_dump({"groups": [{"name": "own", "rules": [rule]}]}))
    assert unknown(tmp_path) == ["own.yaml: unmask:x: no metric is called unmask_verdict_total"]
    assert f"metric {metrics.FACES.name} is on no dashboard and in no rule" in unused(tmp_path)
    assert names_in('sum by (tenant) (unmask_a{b="unmask_c"}[5m]) or unmask:d:e') == {"unmask_a", "unmask:d:e"}


def test_drift_is_summed_over_the_declared_bins_of_the_declared_histogram() -> None:
    told = [rule for rule, _ in rules(CHART) if rule.get("record") == "unmask:face_score:share6h"]
    assert [dict(rule["labels"])["bin"] for rule in told] == [metrics.bin_name(upper) for upper in metrics.BINS]
    for number, rule in enumerate(told):
        bounds = re.findall(r'le="([\d.]+)"', rule["expr"])
        assert bounds == [metrics.bin_name(upper) for upper in metrics.BINS[max(number - 1, 0) : number + 1][::-1]]


@pytest.mark.parametrize(
    "bound",
    sorted({(n, b) for _, e in expressions(CHART) for n, b in re.findall(r'(unmask_\w+)_bucket\{[^}]*le="([\d.]+)"', e)}),
)
def test_every_bound_that_is_asked_for_is_one_of_the_histogram(bound: tuple[str, str]) -> None:
    (metric,) = (one for one in metrics.ALL if one.name == bound[0])
    assert bound[1] in {metrics.bin_name(upper) for upper in metric.buckets}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"} and alert["labels"]["severity"] in {"critical", "warning"}
    name = str(alert["alert"])
    assert notes["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert all(word in SECTIONS[name] for word in ("**Means:**", "**Look at:**", "**Do:**", "```sh"))


def test_the_runbook_has_no_section_without_an_alert_and_promtool_tests_each() -> None:
    names = {str(alert["alert"]) for alert in ALERTS}
    assert set(SECTIONS) == names
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "deploy/prometheus/tests").glob("*.yaml")]
    fired = {
        test["alertname"]
        for text in texts
        for group in yaml.safe_load(text)["tests"]
        for test in group.get("alert_rule_test", ())
        if test.get("exp_alerts")
    }
    assert fired == names


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_runbook_are_those_of_the_command_line(command: str) -> None:
    parser().parse_args(shlex.split(command)[1:])


def test_promtool_agrees() -> None:
    if shutil.which("promtool") is None:
        missing("no promtool: apt install prometheus")
    files = sorted((CHART / "rules").glob("*.yaml"))
    subprocess.run(["promtool", "check", "rules", *files], check=True, capture_output=True)


def test_dashboards_are_complete_and_few_panels_wait_for_production() -> None:
    waiting = {panel.title: panel.production for one in DASHBOARDS for panel in one.panels() if panel.production}
    assert waiting == PRODUCTION and len(waiting) <= 2
    assert [one.uid for one in DASHBOARDS] == ["detection", "pipeline", "models", "sre"]
    for one in DASHBOARDS:
        panels = list(one.panels())
        assert len(panels) >= 15 and len({panel.title for panel in panels}) == len(panels), one.title
        assert all(panel.description.endswith(".") and panel.queries for panel in panels)
        for row in one.rows:
            assert sum(panel.width for panel in row.panels) % 24 == 0, row.title


def test_thresholds_lie_in_order() -> None:
    for one in DASHBOARDS:
        for panel in one.panels():
            steps = panel.steps or Steps()
            if steps.orange is not None and steps.red is not None:
                assert (steps.orange > steps.red) is steps.falling, panel.title


def test_checked_in_dashboards_name_a_datasource_to_choose_and_the_tenants() -> None:
    for path in sorted((CHART / "dashboards").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        variables = {one["name"]: one for one in told["templating"]["list"]}
        assert variables["datasource"]["type"] == "datasource" and told["uid"] == f"unmask-{path.stem}"
        assert ("tenant" in variables) == (path.stem == "detection")
        shown = [panel for panel in told["panels"] if panel["type"] != "row"]
        assert all(panel["datasource"]["uid"] == "${datasource}" and panel["targets"] for panel in shown)
        assert {panel["type"] for panel in shown} <= {"timeseries", "stat", "bargauge", "heatmap", "table"}
        assert len({panel["id"] for panel in told["panels"]}) == len(told["panels"]) and len(Look) == 6
