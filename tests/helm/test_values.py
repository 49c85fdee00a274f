"""values.yaml, values.schema.json, processes.yaml and the README say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm import readme
from tests.helm.rendering import CASES, CHART

SCHEMA, VALUES = readme.schema(), readme.values()


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the schema with what it refers to."""
    for one in part.get("allOf", []):
        part = {**SCHEMA["definitions"][one["$ref"].removeprefix("#/definitions/")], **part}
    return part


def described(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that the schema names, with its part."""
    for name, inner in resolved(part).get("properties", {}).items():
        yield f"{path}{name}", inner
        if "description" in inner:  # what is inside a Kubernetes object is Kubernetes' own
            yield from described(resolved(inner), f"{path}{name}.") if "quantities" not in str(resolved(inner)) else ()


def test_every_value_is_described() -> None:
    found = dict(described(SCHEMA))
    assert len(found) > 200
    assert [path for path, part in found.items() if not part.get("description", "").strip()] == []


def test_objects_take_nothing_unknown() -> None:
    """Those that describe their properties; what Kubernetes describes is checked by Kubernetes."""
    loose = [
        path
        for path, part in described(SCHEMA)
        if "properties" in resolved(part) and resolved(part).get("additionalProperties") is not False
    ]
    assert loose == [] and SCHEMA["additionalProperties"] is False


def named(values: dict[str, Any], part: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of the defaults that the schema describes."""
    for name, value in values.items():
        inner = resolved(part)["properties"][name]
        yield f"{path}{name}"
        if isinstance(value, dict) and "properties" in resolved(inner):
            yield from named(value, inner, f"{path}{name}.")


def test_every_value_has_a_default() -> None:
    """But for those that a process, the settings or a chart above may add."""
    defaults = set(named(VALUES, SCHEMA))
    open_ended = ("global", "components.", "settings.")
    missing = [
        path
        for path, _ in described(SCHEMA)
        if path not in defaults and not path.startswith(open_ended) and not path.endswith((".requests", ".limits"))
    ]
    assert missing == []


@pytest.mark.parametrize("name", CASES)
def test_the_values_files_obey_the_schema(name: str) -> None:
    """The whole, as Helm puts it together: a file's values over the defaults."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    own = yaml.safe_load((CHART / f"ci/{name}-values.yaml").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(SCHEMA).validate(merged(VALUES, own))


def merged(below: Any, above: Any) -> Any:
    """As Helm does: maps by key, all else by what comes later."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{name: merged(below.get(name), value) for name, value in above.items()}}


def test_every_process_can_be_set_and_every_component_is_one() -> None:
    facts = yaml.safe_load((CHART / "processes.yaml").read_text(encoding="utf-8"))
    sides = {component: set(inner) for component, inner in facts.items()}
    assert {component: set(inner) for component, inner in VALUES["components"].items()} == sides
    properties = SCHEMA["properties"]["components"]["properties"]
    assert {component: set(part["properties"]) for component, part in properties.items()} == sides


def test_the_readme_has_the_table_of_values() -> None:
    assert readme.text() == readme.README.read_text(encoding="utf-8"), "run make chart-golden"


def test_the_readme_names_every_key_of_a_secret_that_the_defaults_name() -> None:
    said = readme.README.read_text(encoding="utf-8")
    keys = [VALUES["database"]["key"], VALUES["broker"]["key"], VALUES["s3"]["accessKey"], VALUES["s3"]["secretKey"]]
    assert all(f"{key}=" in said for key in [*keys, VALUES["webhooks"]["key"]])
