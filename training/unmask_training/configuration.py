"""Configurations as users write them: YAML files that hold a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_settings(path: Path, needs: str) -> dict[str, Any]:
    """The mapping that `path` holds; raises `ValueError` naming the file: not YAML, or what it `needs` to be."""
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path}: {needs}")
    return told
