"""What a tower detector's configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unmask_training.data.augment import Ranges


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """Sources and generators to learn, how often each picture is seen, and how the projection is fitted.

    `beside` is a version folder of the small network, relative to the checkout; of the sources in `halved` every second
    picture is left out (soft ones, of which there are many); `views` augmented copies a picture are learnt beside it.
    """

    real: Sequence[str]
    synthetic: Sequence[str]
    beside: str
    halved: Sequence[str] = ()
    size: int = 192
    views: int = 4
    measured: int = 64
    epochs: int = 25
    batch: int = 256
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    input_dropout: float = 0.2
    dropout: float = 0.3
    kind_weight: float = 0.5
    label_smoothing: float = 0.05
    sigma: float = 1.0
    seed: int = 0
    augment: Ranges = field(default_factory=Ranges)

    @staticmethod
    def of(told: Mapping[str, Any]) -> TowerRecipe:
        """Reads the parsed YAML; raises `ValueError` naming an unknown, missing or useless key."""
        names = {str(name) for name in told if name != "recipe"}
        unknown = sorted(names - set(TowerRecipe.__slots__))
        if unknown:
            raise ValueError(f"recipe: unknown {', '.join(unknown)}; there are {', '.join(TowerRecipe.__slots__)}")
        missing = sorted({"real", "synthetic", "beside"} - names)
        if missing:
            raise ValueError(f"recipe: {', '.join(missing)} missing")
        values = {name: told[name] for name in names}
        recipe = TowerRecipe(**values | {"augment": Ranges.of(told.get("augment") or {})})
        _check(recipe)
        return recipe


def _check(recipe: TowerRecipe) -> None:
    for name in ("real", "synthetic"):
        kinds = getattr(recipe, name)
        if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
            raise ValueError(f"recipe: {name}: expected a list of names")
    for name, least in (("size", 64), ("views", 0), ("measured", 1), ("epochs", 1), ("batch", 2), ("seed", 0)):
        value = getattr(recipe, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"recipe: {name}: {value!r} is not a whole number of at least {least}")
    for name in ("learning_rate", "weight_decay", "input_dropout", "dropout", "kind_weight", "label_smoothing", "sigma"):
        value = getattr(recipe, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value < 10.0:
            raise ValueError(f"recipe: {name}: {value!r} is not a number from 0 to 10")
