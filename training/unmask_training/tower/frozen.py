"""The tower as it came, in the place of a trained trunk: what experiments stand on that leave something out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from unmask.core.vit_trunk import PIXELS
from unmask_training.data.augment import Ranges, draw, draw_face
from unmask_training.data.chips import Chips
from unmask_training.tower.parts import Parts, measure, pixels_of

NAME: Final = "clip_vit_b16"
_MEASURED: Final = 64


class FrozenTower(nn.Module):
    """Gives pooled features as `unmask_training.detector.network.Detector` does, by the tower as it is served."""

    def __init__(self, raw: bytes, parts: Parts) -> None:
        super().__init__()
        # Whatever tells two towers apart: features are kept by it.
        self.trunk = nn.ParameterList(nn.Parameter(torch.from_numpy(part), requires_grad=False) for part in parts.all())
        self._session = parts.session(raw)

    def pooled(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) RGB 0..255 to (N, 5376)."""
        views = np.clip(np.rint(pixels.permute(0, 2, 3, 1).numpy()), 0, 255)
        return torch.from_numpy(np.asarray(self._session.run(None, {PIXELS: pixels_of(views)})[0]))


def augmented(chips: Chips, size: int, augment: Ranges, seed: int, count: int) -> Iterator[NDArray[Any]]:
    """Views (S, S, 3) of training pictures drawn by seed."""
    rows = [row for row in chips.rows if row.part == "fit"]
    rng = np.random.default_rng(seed)
    for _ in tqdm(range(count), desc="ranges", unit="face", disable=None):
        chip = chips.chip(rows[rng.integers(len(rows))])
        yield draw(chip, draw_face(augment, rng), size, augment, rng)[0]


def frozen(weights: Path, folder: Path, size: int, chips: Chips, augment: Ranges, seed: int) -> FrozenTower:
    """The tower of the file `weights` with its parts as `folder` keeps them, or measured and kept there."""
    raw, kept = weights.read_bytes(), folder / f"parts-{size}.npz"
    if not kept.is_file():
        measure(raw, size, augmented(chips, size, augment, seed, _MEASURED)).save(kept)
    return FrozenTower(raw, Parts.read(kept))
