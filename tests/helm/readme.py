"""The table of values in the chart's README, out of values.schema.json and values.yaml; `make chart-golden` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.helm.rendering import CHART

README = CHART / "README.md"
_BEGIN, _END = "<!-- values: written by make chart-golden -->\n", "<!-- end of values -->\n"
# One row stands for what repeats in every process and every pod.
_WHOLE = {"components", "podAnnotations", "podLabels", "nodeSelector", "tolerations", "affinity", "priorityClassName", "env"}


def schema() -> dict[str, Any]:
    """The schema of the values."""
    return dict(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))


def values() -> dict[str, Any]:
    """The defaults."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))


def rows(part: dict[str, Any], defaults: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Path, default and description of each value that a reader would set."""
    for name, inner in part["properties"].items():
        if name not in defaults or name in _WHOLE:
            continue
        if isinstance(defaults[name], dict) and inner.get("properties") and name != "settings":
            yield from rows(inner, defaults[name], f"{path}{name}.")
        else:
            yield f"{path}{name}", defaults[name], inner["description"]


def table() -> str:
    """The rows as Markdown."""
    lines = ["| value | default | |", "| --- | --- | --- |"]
    for name, default, what in rows(schema(), values()):
        lines.append(f"| `{name}` | {_shown(default)} | {what} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    text = default if isinstance(default, str) else json.dumps(default)
    return f"`{text}`" if text not in {"", "{}", "[]"} else ""


def text() -> str:
    """The README with the table as it should be."""
    before, _, rest = README.read_text(encoding="utf-8").partition(_BEGIN)
    return before + _BEGIN + table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    README.write_text(text(), encoding="utf-8")
