"""Golden renderings: what the chart gives for each of its values files, sorted; `make chart-golden` writes them again."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.helm.rendering import CASES, Document, Rendering, case

FOLDER = Path(__file__).resolve().parent / "golden"
_HEAD = "# Written by `make chart-golden`; dashboards and rules are left out, tests hold them to their own files.\n"


def text_of(rendering: Rendering) -> str:
    """The documents in an order of their own, without what depends on helm's version."""
    kept = sorted((document for document in rendering.documents if not is_copied(document)), key=_order)
    return _HEAD + yaml.dump_all(kept, Dumper=yaml.CSafeDumper, width=120, explicit_start=True, default_flow_style=None)


def is_copied(document: Document) -> bool:
    """Whether it is the copy of a dashboard or a file of rules, which others write."""
    return document["kind"] == "PrometheusRule" or "-dashboard-" in document["metadata"]["name"]


def _order(document: Document) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def path_of(name: str) -> Path:
    """Where the golden rendering of a values file lies."""
    return FOLDER / f"{name}.yaml"


def write() -> None:
    """Writes all of them."""
    for name in CASES:
        path_of(name).write_text(text_of(case(name)), encoding="utf-8")
        print(path_of(name).relative_to(FOLDER.parents[2]))


if __name__ == "__main__":
    write()
