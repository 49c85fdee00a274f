"""Reads deploy/compose.yaml as Docker Compose would: merged over its override files, variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# Lists that an override adds to (the Compose specification, "merge"); commands, entrypoints and tests are replaced.
_REPLACED = {"command", "entrypoint", "test"}


def filled(value: Any, env: Mapping[str, str]) -> Any:
    """Every ${NAME:-default} filled in; one without a default has to be in `env`."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: env.get(found[1]) or (found[2] if found[2] is not None else env[found[1]]), value)
    if isinstance(value, dict):
        return {key: filled(item, env) for key, item in value.items()}
    return [filled(item, env) for item in value] if isinstance(value, list) else value


def merged(base: Any, over: Any, key: str = "") -> Any:
    """An override over what it overrides."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{name: merged(base[name], item, name) if name in base else item for name, item in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and key not in _REPLACED:
        return base + [item for item in over if item not in base]
    return over


def compose(*names: str, **env: str) -> dict[str, Any]:
    """The whole file, with these override files over it."""
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    for name in names:
        over = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
        for service in over.get("services", {}).values():
            if (extended := service.pop("extends", None)) is not None:
                assert extended["file"] == "compose.yaml"
                service.update(merged(found["services"][extended["service"]], dict(service)))
        found = merged(found, over)
    result: dict[str, Any] = filled({key: value for key, value in found.items() if not key.startswith("x-")}, env)
    return result


def of_unmask(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The services that run our image."""
    return {name: told for name, told in whole["services"].items() if str(told["image"]).startswith("unmask:")}


def settings_of(service: Mapping[str, Any]) -> dict[str, str]:
    """What the service's environment says to us."""
    return {name: str(value) for name, value in service["environment"].items() if name.startswith("UNMASK_")}
