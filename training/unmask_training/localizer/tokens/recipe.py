"""What the configuration of a localizer on the tower says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from unmask.core.vit_trunk import PATCH
from unmask_training.localizer.samples import Delivery

NAME: Final = "clip_vit_b16-seg"
_COUNTS: Final = ("size", "samples", "measured", "width", "epochs", "batch", "warmup")
_POSITIVE: Final = ("margin", "learning_rate", "dense_weight")


@dataclass(frozen=True, slots=True)
class TokenRecipe:
    """How many views are drawn, of what and how delivered (as `localizer.yaml` says), and how the head is fitted on them.

    `measured` views set the tower's ranges, `width` is how many channels of its tokens are kept.  `without` names engines of
    which no view is learned from: what a localizer makes of a tool it never saw.
    """

    size: int = 256
    margin: float = 1.2
    samples: int = 16384
    measured: int = 48
    width: int = 320
    epochs: int = 8
    batch: int = 32
    warmup: int = 100
    learning_rate: float = 0.002
    weight_decay: float = 0.05
    dense_weight: float = 4.0
    dropout: float = 0.1
    seed: int = 1
    without: Sequence[str] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    delivery: Delivery = field(default_factory=Delivery)

    @staticmethod
    def of(told: Mapping[str, Any]) -> TokenRecipe:
        """Reads a configuration; raises `ValueError` naming the wrong key."""
        names = {str(name) for name in told if name != "recipe"}
        unknown = sorted(names - {part.name for part in fields(TokenRecipe)})
        if unknown:
            raise ValueError(f"localizer configuration: unknown {', '.join(unknown)}")
        values = {name: told[name] for name in names} | {"delivery": Delivery.of(told.get("delivery") or {})}
        recipe = TokenRecipe(**values)
        for name in _COUNTS:
            value = getattr(recipe, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"localizer configuration: {name} must be a whole number of at least 1, not {value!r}")
        if recipe.size % PATCH or recipe.size < 4 * PATCH:
            raise ValueError(f"localizer configuration: size must be a multiple of {PATCH} and at least {4 * PATCH}")
        for name in _POSITIVE:
            value = getattr(recipe, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"localizer configuration: {name} must be a positive number, not {value!r}")
        if not recipe.shares:
            raise ValueError("localizer configuration: needs `shares:` of what is drawn")
        return recipe

    @property
    def drawn(self) -> dict[str, Any]:
        """What kept views are a function of: with another one they are of no use."""
        names = ("size", "margin", "measured", "width", "seed")
        told: dict[str, Any] = {name: getattr(self, name) for name in names}
        told |= {"shares": dict(self.shares), "engines": dict(self.engines)}
        how = self.delivery
        return told | {"delivery": {name: _listed(getattr(how, name)) for name in Delivery.__slots__}}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
