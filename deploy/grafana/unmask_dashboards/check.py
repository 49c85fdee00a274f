"""Holds dashboards and rules against the declared metrics, and has a real Prometheus parse every expression."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from unmask.core.metrics import ALL

# What others export: Triton, prometheus_client of each process, Prometheus itself.
FOREIGN: Final = frozenset(
    {
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_gpu_utilization",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "ALERTS",
    }
)
# Grafana's variables, by something of the same kind.
_VARIABLES: Final = {"$__rate_interval": "5m", "$__range": "6h", "$tenant": ".*"}
_STRINGS: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + "|" + r"'(?:[^'\\]|\\.)*'")
_NAME: Final = re.compile(r"(?<![\w:.])(?:unmask[\w:]*|nv_\w+|process_\w+|ALERTS|go_\w+|python_\w+)")


def filled(expression: str) -> str:
    """The expression as Grafana would send it."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def names_in(expression: str) -> set[str]:
    """The metrics and recorded series that an expression asks for."""
    return set(_NAME.findall(_STRINGS.sub('""', expression)))


def expressions(chart: Path) -> Iterator[tuple[str, str]]:
    """Where each stands, and what it says: of every panel and variable, and of every rule."""
    for path in sorted((chart / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.name}: {panel['title']}", target["expr"]
    for rule, where in rules(chart):
        yield f"{where}: {rule.get('record') or rule['alert']}", rule["expr"]


def rules(chart: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Each rule, and its file's name."""
    for path in sorted((chart / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                yield rule, path.name


def unknown(chart: Path) -> list[str]:
    """What asks for a series that nobody exports or records."""
    known = {name for metric in ALL for name in metric.series} | FOREIGN | {rule.get("record", "") for rule, _ in rules(chart)}
    return [
        f"{where}: no metric is called {name}" for where, text in expressions(chart) for name in sorted(names_in(text) - known)
    ]


def unused(chart: Path) -> list[str]:
    """Declared metrics that no dashboard and no rule looks at."""
    seen = {name for _, text in expressions(chart) for name in names_in(text)}
    return [f"metric {metric.name} is on no dashboard and in no rule" for metric in ALL if not seen.intersection(metric.series)]


def unparsed(said: Sequence[tuple[str, str]], promtool: str = "promtool") -> list[str]:
    """What Prometheus's own parser refuses: each expression as a rule, read by promtool."""
    told = [{"record": f"checked:{number}", "expr": filled(text)} for number, (_, text) in enumerate(said)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "expressions.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": told}]}), encoding="utf-8")
        done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    wrong = sorted({int(number) for number in re.findall(r"checked:(\d+)", done.stderr)})
    return [f"{said[number][0]}: {said[number][1]}" for number in wrong] + [done.stderr.strip()]


def main() -> int:
    """Exit code 1 where something is wrong, 2 without promtool."""
    chart = Path(sys.argv[1])
    said = list(expressions(chart))
    try:
        wrong = [*unknown(chart), *unused(chart), *unparsed(said)]
    except FileNotFoundError:
        print("no promtool: apt install prometheus", file=sys.stderr)
        return 2
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(said)} expressions parsed, all over declared metrics")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
