"""Every panel of every dashboard shows data of a real run, in a real Prometheus; every rule is evaluated without an error."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ROOT, missing
from tests.system.backends import open_folder
from tests.system.observed import Run, observed

if TYPE_CHECKING:
    from unmask_dev.prometheus import Prometheus

DASHBOARDS = sorted((ROOT / "helm/unmask/dashboards").glob("*.json"))
# What has data only in production, and why; as the code of the dashboards says itself (tests/deploy).
PRODUCTION = {"GPU": "Triton shows it where it has a GPU"}
WINDOWS = {"$__rate_interval": "1m", "$__range": "5m", "$__interval": "5s", "$tenant": ".*"}


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[Run, Prometheus]]:
    """The run and the Prometheus that has seen it."""
    from unmask_dev.process import ServerMissing

    with open_folder() as folder:
        try:
            with observed(folder) as found:
                yield found
        except ServerMissing as error:
            missing(str(error))


def panels() -> list[Any]:
    """Every panel that asks something."""
    found = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row" and panel["title"] not in PRODUCTION:
                found.append(pytest.param(panel, id=f"{path.stem}-{panel['title']}"))
    return found


def filled(expression: str) -> str:
    for name, value in WINDOWS.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def test_everything_is_scraped(watched: tuple[Run, Prometheus]) -> None:
    targets = watched[1].targets()
    assert len(targets) >= 9 and {target["health"] for target in targets} == {"up"}, targets


@pytest.mark.parametrize("panel", panels())
def test_the_panel_has_data(watched: tuple[Run, Prometheus], panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        samples = watched[1].query(filled(target["expr"]))
        values = [float(sample["value"][1]) for sample in samples]
        if not any(map(math.isfinite, values)):
            pytest.fail(f"{panel['title']}: {target['expr']} gives {samples or 'nothing'}", pytrace=False)


def test_the_numbers_are_those_of_the_run(watched: tuple[Run, Prometheus]) -> None:
    run, prometheus = watched

    def one(expression: str) -> float:
        (sample,) = prometheus.query(expression)
        return float(sample["value"][1])

    rounds = run.round
    assert one('sum(unmask_verdicts_total{label="no_face", tenant="acme"})') == rounds
    # Two red faces, one of them told again.
    assert one('sum(unmask_verdicts_total{label="synthetic"})') == 3 * rounds
    assert one('sum(unmask_faces_total{label="synthetic"})') == 2 * rounds
    assert one('sum(unmask_stage_outcomes_total{outcome="failed", code="bad_image"})') == rounds
    assert one('max(unmask_dead_items{kind="letter"})') == rounds and one('max(unmask_dead_items{kind="event"})') == rounds
    assert one('sum(unmask_shadow_cases_total{release="stricter"})') >= 6
    assert one("unmask:reviewed:precision") == 0.5
    assert one("max(unmask_detector_reference_share{truth='real', bin='0.1'})") == 0.9
    assert one("unmask:face_score:psi{against='calibration'}") > 0.25
    assert 360 < one("(min(unmask_certificate_expiry_timestamp_seconds) - time()) / 86400") < 366


def test_rules_are_evaluated_and_the_dead_are_told_of(watched: tuple[Run, Prometheus]) -> None:
    groups = watched[1].rules()
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 40 and not [rule for rule in rules if rule["health"] == "err"]
    states = {rule["name"]: rule["state"] for rule in rules if rule["type"] == "alerting"}
    assert states["UnmaskDeadItems"] == "pending" and states["UnmaskModelRefused"] == "inactive"


def test_series_are_bounded(watched: tuple[Run, Prometheus]) -> None:
    from unmask.core.metrics import ALL

    for metric in ALL:
        values = watched[1].query(f'count by (instance) ({{__name__=~"{metric.name}(_bucket|_count|_sum)?"}})')
        assert all(float(sample["value"][1]) < 500 for sample in values), metric.name
    names = {sample["metric"]["__name__"] for sample in watched[1].query('{__name__=~"unmask_.+"}')}
    assert names <= {series for metric in ALL for series in metric.series}, names
    assert not [name for name in names if re.search("_created$", name)]
