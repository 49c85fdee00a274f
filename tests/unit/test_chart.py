"""The chart against the program: what it starts, tells, waits for and watches is what the program has.  No helm is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from unmask.adapters.celery_app import CELERY_DOOR, JSON_DOOR, STEP_SECONDS, queue_name
from unmask.cli.main import parser
from unmask.cli.serve import SERVICES
from unmask.cli.work import KINDS
from unmask.core.domain import Priority
from unmask.delivery.relay import RelayRule
from unmask.settings import Settings
from unmask.working import STEPS, checked, work_of

# What the chart renders, which `make chart-check` holds it to.
GOLDEN = sorted((ROOT / "tests/helm/golden").glob("*.yaml"))
FACTS = yaml.safe_load((ROOT / "helm/unmask/processes.yaml").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((ROOT / "helm/unmask/values.yaml").read_text(encoding="utf-8"))
SETTINGS = re.findall(r'"(UNMASK_[A-Z0-9_]+)"', (ROOT / "services/unmask/settings.py").read_text(encoding="utf-8"))
SECRETS = {
    "UNMASK_DATABASE": "postgresql://user:password@host/unmask",
    "UNMASK_BROKER": "amqp://user:password@host/",
}


def processes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Component and side with what the chart says of it."""
    for component, sides in FACTS.items():
        yield from ((f"{component}-{side}", facts) for side, facts in sides.items())


def workloads(path: Any) -> list[dict[str, Any]]:
    """Deployments and jobs of a golden rendering."""
    documents = yaml.load_all(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return [document for document in documents if document["kind"] in {"Deployment", "Job"}]


def unmask_containers(*verbs: str) -> Iterator[Any]:
    """Each container that runs one of these verbs, with its pod, over all golden renderings."""
    for path in GOLDEN:
        for workload in workloads(path):
            pod = workload["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                if container["name"] != "triton" and container["args"][0] in verbs:
                    yield pytest.param(container, pod, id=f"{path.stem}-{workload['metadata']['name']}-{container['name']}")


def environment(container: dict[str, Any]) -> dict[str, str]:
    """As the container has it, its secrets filled in."""
    return {entry["name"]: entry.get("value") or SECRETS.get(entry["name"], "secret") for entry in container["env"]}


@pytest.mark.parametrize(("container", "pod"), list(unmask_containers("serve", "work", "models", "db")))
def test_the_program_takes_what_a_container_is_given(container: dict[str, Any], pod: dict[str, Any]) -> None:
    args = parser().parse_args(container["args"])
    told = environment(container)
    unknown = {name for name in told if name.startswith("UNMASK_")} - set(SETTINGS)
    assert not unknown
    settings = Settings.from_environment(told)
    if container["args"][0] == "work":
        checked(settings)
        assert work_of(args.kinds, args.concurrency, tuple(Priority)).concurrency == args.concurrency
    if container["args"][0] == "serve":
        assert settings.tls.cert is not None and settings.tls.key is not None  # off loopback nothing else is served
        assert settings.distributed and settings.auth != "none"


@pytest.mark.parametrize(("container", "pod"), list(unmask_containers("serve", "work")))
def test_a_pod_is_given_the_time_that_its_drain_takes(container: dict[str, Any], pod: dict[str, Any]) -> None:
    args, given = parser().parse_args(container["args"]), pod["terminationGracePeriodSeconds"]
    if container["args"][0] == "serve":
        assert given > args.grace + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    elif args.kinds[0] in STEPS:
        assert given > STEP_SECONDS
    else:
        assert given >= 40


def test_delivery_may_end_what_it_has_claimed() -> None:
    # No attempt begins in the second half of its lease, and one ends within it.
    assert FACTS["delivery"]["work"]["drain"] >= RelayRule().lease.total_seconds() / 2


def test_every_process_of_the_program_is_in_the_chart_once() -> None:
    commands = [tuple(facts["command"]) for _, facts in processes()]
    assert sorted(commands) == sorted([*(("serve", name) for name in SERVICES), *(("work", kind) for kind in KINDS)])


@pytest.mark.parametrize(("name", "facts"), [pytest.param(name, facts, id=name) for name, facts in processes()])
def test_queues_are_those_that_the_worker_takes(name: str, facts: dict[str, Any]) -> None:
    side, kind = facts["command"]
    doors = [CELERY_DOOR, JSON_DOOR] if (side, kind) == ("work", "submit") else []
    steps = STEPS.get(kind, ()) if side == "work" else ()
    assert facts.get("queues", []) == doors + [queue_name(step, lane) for step in steps for lane in Priority]


def test_whoever_runs_a_model_is_given_models() -> None:
    from unmask.working import _ROLES

    runs = {name for name, facts in processes() if facts.get("models")}
    work = {
        f"{component}-work" for component, sides in FACTS.items() if sides.get("work", {}).get("command", ["", ""])[1] in _ROLES
    }
    # A release on trial is scored by all of them; gRPC's servers are ready when their models answer, review has none.
    assert runs == {*work, "shadow-work", *(f"{name}-serve" for name in SERVICES if name != "review")}


def test_the_values_let_set_only_what_the_program_reads() -> None:
    schema = json.loads((ROOT / "helm/unmask/values.schema.json").read_text(encoding="utf-8"))
    names = schema["properties"]["settings"]["properties"]
    assert set(names) <= set(SETTINGS) and set(VALUES["settings"]) <= set(names)


def test_every_setting_has_a_value_or_a_reason_to_have_none() -> None:
    """So that a new one is not forgotten."""
    templates = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "helm/unmask/templates").iterdir())
    schema = json.loads((ROOT / "helm/unmask/values.schema.json").read_text(encoding="utf-8"))
    reached = set(re.findall(r"UNMASK_[A-Z0-9_]+", templates)) | set(schema["properties"]["settings"]["properties"])
    # A folder of one process; loopback only; the file form of any other.
    unused = {"UNMASK_STATE", "UNMASK_AUTH"}
    assert set(SETTINGS) - reached == unused
