"""Which function trains a recipe, and which measures a task; imported only when used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from unmask_training import trunks
from unmask_training.localizer.networks import NETWORKS

RECIPES: Final = {
    **dict.fromkeys(trunks.SPECS, "unmask_training.detector.fit:fit"),
    "clip_vit_b16": "unmask_training.tower.fit:fit",
    **dict.fromkeys(NETWORKS, "unmask_training.localizer.fit:fit"),
    "clip_vit_b16-seg": "unmask_training.localizer.tokens.fit:fit",
}
EVALUATORS: Final = {
    "synthetic": "unmask_training.detector.evaluate:evaluate",
    "regions": "unmask_training.localizer.evaluate:evaluate",
}


def find(table: dict[str, str], name: str, what: str) -> Callable[..., Any]:
    """The function that `name` stands for; raises `ValueError` listing what there is."""
    if name not in table:
        raise ValueError(f"{what} {name!r} is unknown; there are: {', '.join(sorted(table))}")
    module, _, function = table[name].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
