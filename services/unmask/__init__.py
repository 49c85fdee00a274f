"""Unmask: says whether the faces of a picture are real, generated or manipulated, where, and how sure it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.core import errors
    from unmask.core.domain import Verdict
    from unmask.embedded import Checked, Unmask

__all__ = ["Checked", "Unmask", "Verdict", "errors"]

_HOMES = {"Checked": "unmask.embedded", "Unmask": "unmask.embedded", "Verdict": "unmask.core.domain"}


def __getattr__(name: str) -> Any:
    """Loads a public name on first use (PEP 562), so that `import unmask` stays instant."""
    if name == "errors":
        return import_module("unmask.core.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unmask' has no attribute {name!r}")
