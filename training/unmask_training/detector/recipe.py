"""What a detector's configuration says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from unmask_training import trunks
from unmask_training.data.augment import Ranges


@dataclass(frozen=True, slots=True)
class Recipe:
    """What detector.yaml says; weights of real sources and generators are shares of the draw, each kind half of it.

    With `minutes` the learning rate follows the clock where that is ahead of the steps, so that a fit ends on time.
    """

    real: Mapping[str, float]
    synthetic: Mapping[str, float]
    size: int = 192
    batch: int = 48
    steps: int = 1700
    minutes: float = 0.0
    warmup: int = 80
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.08
    family_weight: float = 0.3
    dropout: float = 0.3
    ema: float = 0.995
    threads: int = 0
    seed: int = 1
    augment: Ranges = field(default_factory=Ranges)
    trunk: str = "mobilenet_v2"

    @staticmethod
    def of(told: Mapping[str, Any]) -> Recipe:
        """Reads the parsed YAML; raises `ValueError` naming an unknown or missing key."""
        names = {name for name in told if name != "recipe"}
        unknown = sorted(str(name) for name in names - set(Recipe.__slots__))
        if unknown:
            raise ValueError(f"recipe: unknown {', '.join(unknown)}; there are {', '.join(Recipe.__slots__)}")
        missing = sorted({"real", "synthetic"} - names)
        if missing:
            raise ValueError(f"recipe: {', '.join(missing)} missing")
        values = {name: told[name] for name in names}
        # The recipe's name is its trunk's, unless a trunk is told apart.
        trunk = str(told.get("trunk") or told.get("recipe") or "mobilenet_v2")
        recipe = Recipe(**values | {"augment": Ranges.of(told.get("augment") or {}), "trunk": trunk})
        trunks.spec(trunk)
        _check(recipe)
        return recipe


def _check(recipe: Recipe) -> None:
    """Refuses what no fit could use, by name."""
    for name in ("real", "synthetic"):
        shares = getattr(recipe, name)
        if (
            not isinstance(shares, Mapping)
            or not shares
            or not all(_is_number(share) and share > 0 for share in shares.values())
        ):
            raise ValueError(f"recipe: {name}: every share must be positive")
    for name in Recipe.__slots__[2:-2]:
        value, whole = getattr(recipe, name), isinstance(getattr(_DEFAULTS, name), int)
        if not _is_number(value) or not 0 <= value < math.inf or (whole and value != int(value)):
            raise ValueError(f"recipe: {name}: {value!r} is not a {'whole ' if whole else ''}number of at least 0")
    if not recipe.size >= 32 or not recipe.batch >= 2 or not recipe.steps >= 1 or not recipe.warmup >= 1:
        raise ValueError("recipe: size must be at least 32, batch 2, steps and warmup 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_DEFAULTS: Final = Recipe({}, {})
