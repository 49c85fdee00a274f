"""Endless batches of augmented views, balanced over generators and real sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask_training.data.augment import Framing, draw, draw_face, own_face
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.recipe import Recipe

NO_FAMILY: Final = -1
# A kind with fewer pictures of the drawn face size is left out of that draw, lest a handful stand for all of it.
_FEWEST: Final = 16


class Batches:
    """Endless batches: half real, half synthetic, each drawn by the recipe's shares, then augmented.

    The face size is drawn first, for both halves alike, and only pictures that have as many pixels are drawn from: so the
    sizes' distribution is the same for both.
    """

    def __init__(self, chips: Chips, recipe: Recipe) -> None:
        self._chips, self._recipe = chips, recipe
        self.families = tuple(recipe.synthetic)
        rows = _by_kind(chips, recipe)
        self._rows = {kind: sorted(found, key=lambda row: -own_face(row.to_unit)) for kind, found in rows.items()}
        self._faces = {kind: np.array([-own_face(row.to_unit) for row in found]) for kind, found in self._rows.items()}
        self._shares = (_shares(recipe.real), _shares(recipe.synthetic))

    def pick(self, fake: bool, face: float, rng: np.random.Generator) -> Row:
        """A picture of one half whose face is at least `face` pixels, by the shares of the kinds that have enough."""
        enough = {kind: int(np.searchsorted(self._faces[kind], -face, side="right")) for kind in self._shares[fake]}
        weights = np.array([share * (enough[kind] >= _FEWEST) for kind, share in self._shares[fake].items()])
        if not weights.any():  # small data, or a recipe that asks for larger faces than there are: the largest ones
            enough = {kind: min(_FEWEST, len(self._rows[kind])) for kind in enough}
            weights = np.array(list(self._shares[fake].values()))
        kind = list(enough)[rng.choice(len(enough), p=weights / weights.sum())]
        return self._rows[kind][rng.integers(enough[kind])]

    def sample(self, fake: bool, rng: np.random.Generator) -> tuple[Row, NDArray[np.float32], Framing]:
        """One picture, its view and how it was framed."""
        recipe = self._recipe
        face = draw_face(recipe.augment, rng)
        row = self.pick(fake, face, rng)
        view, framing = draw(self._chips.chip(row), face, recipe.size, recipe.augment, rng)
        return row, view, framing

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Batch number `step`: pixels (N, 3, S, S), truth (N,), family (N,) with -1 for reals.  The same at every call."""
        rng = np.random.default_rng([self._recipe.seed, step])
        truth = [bool(i % 2) for i in range(self._recipe.batch)]
        drawn = [self.sample(fake, rng) for fake in truth]
        family = [self.families.index(row.kind) if fake else NO_FAMILY for fake, (row, _, _) in zip(truth, drawn, strict=True)]
        pixels = torch.from_numpy(np.stack([view for _, view, _ in drawn])).permute(0, 3, 1, 2)
        return pixels, torch.tensor(truth, dtype=torch.float32), torch.tensor(family)


def _by_kind(chips: Chips, recipe: Recipe) -> dict[str, Sequence[Row]]:
    wanted = {**dict.fromkeys(recipe.real, "real"), **dict.fromkeys(recipe.synthetic, "synthetic")}
    rows: dict[str, list[Row]] = {kind: [] for kind in wanted}
    for row in chips.rows:
        if row.part == "fit" and wanted.get(row.kind) == row.label:
            rows[row.kind].append(row)
    empty = [kind for kind, found in rows.items() if not found]
    if empty:
        raise ValueError(f"no prepared training pictures of {', '.join(empty)}")
    return dict(rows)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    return {kind: float(weight) for kind, weight in weights.items()}
