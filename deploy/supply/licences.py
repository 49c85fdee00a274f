"""Licences of what the image runs, under policy.toml: `python -m deploy.supply.licences SBOM [--check]` writes LICENCES.md."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from license_expression import AND, OR, ExpressionError, get_spdx_licensing

from deploy.supply.sbom import POLICY

REPORT: Final = Path(__file__).with_name("LICENCES.md")
_HEAD: Final = """# Licences of what the image of the services runs

Written by `make licences` from locks/service.txt as installed, under policy.toml; do not edit. `unmask` itself is Apache-2.0
and contains no copy of these; models have licences of their own, in their cards.

| package | version | licence | |
| --- | --- | --- | --- |
"""


def licence_of(component: Mapping[str, Any]) -> str:
    """The component's licence as an SPDX expression; empty where its metadata name none."""
    told = component.get("licenses", [])
    named = [one.get("expression") or one["license"].get("id", "") for one in told]
    exact = [name for name in named if name]
    return " AND ".join(dict.fromkeys(exact))


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether what the expression asks for can be met by allowed licences: all sides of AND, one of OR; False for no SPDX."""
    try:
        parsed = _spdx().parse(expression, validate=True)
    except ExpressionError:
        return False
    return parsed is not None and _met(parsed, allowed)


@cache
def _spdx() -> Any:
    """The list of SPDX licences; making it takes a second."""
    return get_spdx_licensing()


def _met(node: Any, allowed: frozenset[str]) -> bool:
    if isinstance(node, AND | OR):
        met = (_met(side, allowed) for side in node.args)
        return all(met) if isinstance(node, AND) else any(met)
    return str(node) in allowed


def problems(components: list[dict[str, Any]], policy: Mapping[str, Any]) -> Iterator[str]:
    """What the policy does not let in, and what it says of packages that are not there (any more)."""
    allowed, excepted = frozenset(policy["allowed"]), policy["excepted"]
    for component in components:
        name, licence = component["name"], licence_of(component)
        if is_allowed(licence, allowed) or (name in excepted and excepted[name]["licence"] == licence):
            continue
        yield f"{name} {component['version']}: licence {licence or 'not named'} is not allowed"
    names = {component["name"] for component in components}
    for table in ("stated", "excepted", "holds"):
        yield from (f"policy.toml: {table}: {name} is not in the image" for name in policy[table].keys() - names)


def report(components: list[dict[str, Any]], policy: Mapping[str, Any]) -> str:
    """The table, by name."""
    rows = []
    for component in sorted(components, key=lambda one: str(one["name"]).lower()):
        name = component["name"]
        notes = [
            policy["excepted"].get(name, {}).get("why", ""),
            f"holds {policy['holds'][name]}" if name in policy["holds"] else "",
        ]
        rows.append(f"| {name} | {component['version']} | {licence_of(component)} | {'; '.join(filter(None, notes))} |\n")
    return _HEAD + "".join(rows)


def main(sbom: str, *options: str) -> int:
    """Writes the report, or with --check holds it against the one that is there; 1 when something is not as it should be."""
    components = json.loads(Path(sbom).read_text(encoding="utf-8"))["components"]
    policy = tomllib.loads(POLICY.read_text(encoding="utf-8"))
    found = list(problems(components, policy))
    text = report(components, policy)
    if "--check" in options and (not REPORT.is_file() or REPORT.read_text(encoding="utf-8") != text):
        found.append(f"{REPORT.name} is not what the image gives: run make licences")
    for line in found:
        print(f"licences: {line}", file=sys.stderr)
    if found:
        return 1
    if "--check" not in options:
        REPORT.write_text(text, encoding="utf-8")
    print(f"{len(components)} packages, all of allowed licences ({len(policy['excepted'])} by exception)")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
