"""What a tower detector's configuration says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from unmask_training.data.augment import Ranges

AUGMENTED: Final = "augmented"
VIEWS: Final = ("clean", "mirror", "web", "hard", AUGMENTED)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The recipe's `tune` section: AdamW with warmup, then a straight line to nothing; no steps leave the tower frozen.

    The clean view and `copies` augmented ones of each picture are what the probe is fitted on first, `head_rate` is its
    learning rate after that; the rest is as in the recipe itself.
    """

    steps: int = 0
    batch: int = 16
    warmup: int = 40
    learning_rate: float = 3e-4
    head_rate: float = 1e-4
    copies: int = 4
    input_dropout: float = 0.2
    kind_weight: float = 0.5
    label_smoothing: float = 0.05

    @staticmethod
    def of(told: Mapping[str, Any]) -> Tuning:
        """Reads the section; raises `ValueError` naming a key that is unknown or useless."""
        unknown = sorted(set(map(str, told)) - set(Tuning.__slots__))
        if unknown:
            raise ValueError(f"recipe: tune: unknown {', '.join(unknown)}; there are {', '.join(Tuning.__slots__)}")
        tuning = Tuning(**told)
        for name in ("steps", "batch", "warmup", "copies"):
            value = getattr(tuning, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < (2 if name == "batch" else 0):
                raise ValueError(f"recipe: tune: {name}: {value!r} is not a fitting whole number")
        for name in ("learning_rate", "head_rate", "input_dropout", "kind_weight", "label_smoothing"):
            value = getattr(tuning, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value < 1.0:
                raise ValueError(f"recipe: tune: {name}: {value!r} is not a number from 0 to 1")
        return tuning


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """Sources and generators to learn, the views of each picture, and how heads are fitted.

    `beside` is a version folder of the small network, relative to the checkout; of the sources in `halved` every second
    picture is left out (soft ones, of which there are many). `views` are the views of a picture that heads are fitted on,
    with their weights: `clean` as serving cuts it, its `mirror` image, as the tiers `web` and `hard` deliver it, and each
    of `copies` augmented ones. `shrinkage` is what the covariance within a kind gets in every direction, `evidence` how much
    the prototypes count beside the probe (`unmask_training.tower.heads`). `probe_l2` and `invariance` are what the probe pays
    for large weights and for telling real sources apart (`unmask_training.tower.invariance`), `probe_steps` when it is
    stopped. `tune` says how the tower's layer norms are tuned first.
    """

    real: Sequence[str]
    synthetic: Sequence[str]
    beside: str
    halved: Sequence[str] = ()
    size: int = 192
    views: Mapping[str, float] = field(default_factory=lambda: {"clean": 1.0, "augmented": 1.0})
    copies: int = 4
    measured: int = 64
    shrinkage: float = 0.2
    evidence: float = 1.0
    probe_l2: float = 0.01
    probe_steps: int = 60
    invariance: float = 0.0
    sigma: float = 1.0
    seed: int = 0
    augment: Ranges = field(default_factory=Ranges)
    tune: Tuning = field(default_factory=Tuning)

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
        sections = {"augment": Ranges.of(told.get("augment") or {}), "tune": Tuning.of(told.get("tune") or {})}
        recipe = TowerRecipe(**values | sections)
        _check(recipe)
        return recipe


def _check(recipe: TowerRecipe) -> None:
    for name in ("real", "synthetic"):
        kinds = getattr(recipe, name)
        if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
            raise ValueError(f"recipe: {name}: expected a list of names")
    invariance: Any = recipe.invariance
    if isinstance(invariance, bool) or not isinstance(invariance, int | float) or not 0.0 <= invariance < math.inf:
        raise ValueError(f"recipe: invariance: {invariance!r} is not a number from 0 on")
    _check_views(recipe.views)
    for name, least in (
        ("size", 64),
        ("copies", 0),
        ("probe_steps", 1),
        ("measured", 1),
        ("seed", 0),
    ):
        value = getattr(recipe, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"recipe: {name}: {value!r} is not a whole number of at least {least}")
    for name in ("shrinkage", "evidence", "probe_l2", "sigma"):
        value = getattr(recipe, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value < 10.0:
            raise ValueError(f"recipe: {name}: {value!r} is not a number from 0 to 10")


def _check_views(told: Any) -> None:
    if not isinstance(told, Mapping) or "clean" not in told:
        raise ValueError("recipe: views: expected names and weights, `clean` among them")
    for name, share in told.items():
        if name not in VIEWS or isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 < share < math.inf:
            raise ValueError(f"recipe: views: {name}: {share!r}: a positive weight for one of {', '.join(VIEWS)} is expected")
