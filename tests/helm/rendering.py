"""The chart rendered by helm, and questions about what came out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.helm.binaries import ROOT, helm

CHART = ROOT / "helm/unmask"
CASES = ("default", "minimal", "production", "gpu")
Document = dict[str, Any]


class Refused(Exception):
    """What helm said when it did not render."""


@dataclass(frozen=True)
class Rendering:
    """The documents of a rendering."""

    documents: tuple[Document, ...]

    def kind(self, kind: str) -> list[Document]:
        """The documents of a kind."""
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str) -> Document:
        """The document of that kind and name."""
        (found,) = [document for document in self.kind(kind) if document["metadata"]["name"] == name]
        return found

    def workloads(self) -> list[Document]:
        """Whatever has pods."""
        return [*self.kind("Deployment"), *self.kind("Job")]

    def processes(self) -> dict[str, Document]:
        """Deployments of Unmask's own image, by component and side (`alignment-work`)."""
        found = {}
        for deployment in self.kind("Deployment"):
            labels = deployment["metadata"]["labels"]
            if "unmask/side" in labels:
                found[f"{labels['app.kubernetes.io/component']}-{labels['unmask/side']}"] = deployment
        return found


def template(*arguments: str, major: int = 4, chart: Path = CHART) -> str:
    """What `helm template` prints; raises `Refused`."""
    command = [str(helm(major)), "template", "unmask", str(chart), "--namespace", "unmask", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def render(*arguments: str, major: int = 4, chart: Path = CHART) -> Rendering:
    """The chart under these arguments of `helm template`."""
    text = template(*arguments, major=major, chart=chart)
    return Rendering(tuple(document for document in yaml.load_all(text, yaml.CSafeLoader) if document))


@cache
def case(name: str, major: int = 4) -> Rendering:
    """One of the four values files that the chart ships."""
    return render("--values", str(CHART / f"ci/{name}-values.yaml"), major=major)


def pod_of(workload: Document) -> Document:
    """The pod template's spec."""
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Document) -> list[Document]:
    """Every container of the pod, those that run first among them."""
    pod = pod_of(workload)
    return [*pod.get("initContainers", []), *pod["containers"]]


def main_of(workload: Document) -> Document:
    """The container that stays."""
    (found,) = pod_of(workload)["containers"]
    return dict(found)


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a container: the text, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def pod_labels(workload: Document) -> dict[str, str]:
    """Labels of the pods."""
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels only: the chart uses no other) takes these labels."""
    assert selector is not None and set(selector) <= {"matchLabels"}, selector
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar in a document, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path, value
