"""What happens to a picture before it is measured: a delivery tier, and the way its view is cut."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Chip, Pixels, ViewContract, view_transform, warp
from unmask_training.data.augment import jpeg

PREPROCESS: Final = ("crop", "resize", "pad")
# JPEG of fewer pixels a side than its block of 8 tells nothing.
_LEAST_SIDE: Final = 8


@dataclass(frozen=True, slots=True)
class Tier:
    """A delivery: each picture shrunk by a factor and saved as JPEG (4:2:0) of a quality, both uniform in their range."""

    name: str
    resize: tuple[float, float] | None = None
    jpeg: tuple[int, int] = (100, 100)

    def deliver(self, chip: Chip, path: str) -> Chip:
        """The chip as this tier delivers it.

        Drawn from the tier's name and the picture's path alone, so that it is the same in every run and for every model;
        both matrices follow the pixels exactly.
        """
        if self.resize is None:
            return chip
        seed = hashlib.sha256(f"{self.name}:{path}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        factor, quality = rng.uniform(*self.resize), int(rng.integers(self.jpeg[0], self.jpeg[1] + 1))
        before = chip.pixels.shape[1::-1]
        after = (max(_LEAST_SIDE, round(before[0] * factor)), max(_LEAST_SIDE, round(before[1] * factor)))
        small = cv2.resize(chip.pixels, after, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        change = geometry.resizing((before[0], before[1]), after)
        to_unit = geometry.compose(chip.to_unit, geometry.invert(change))
        return Chip(jpeg(np.ascontiguousarray(small), quality), geometry.compose(change, chip.to_chip), to_unit)


CLEAN: Final = Tier("clean")
TIERS: Final = (CLEAN, Tier("web", (0.6, 1.0), (60, 90)), Tier("hard", (0.35, 0.6), (30, 50)))


def view_of(chip: Chip, contract: ViewContract, preprocess: str = "crop") -> tuple[Pixels, Floats]:
    """The (S, S, 3) view and the (2, 3) map from chip pixels into it.

    `crop` is the view that the card states, as served; `resize` squeezes the whole chip into the square; `pad` keeps its
    shape and fills the square with the card's border.  Raises `ValueError` naming the ways there are.
    """
    size = contract.size
    if preprocess == "crop":
        matrix = view_transform(chip, contract)
    elif preprocess == "resize":
        height, width = chip.pixels.shape[:2]
        matrix = geometry.resizing((width, height), (size, size))
        shrinking = max(width, height) > size
        view = cv2.resize(chip.pixels, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
        return view.astype(np.uint8, copy=False), matrix
    elif preprocess == "pad":
        matrix = _letterbox(chip.pixels.shape[1], chip.pixels.shape[0], size)
    else:
        raise ValueError(f"preprocess {preprocess!r} is unknown; there are {', '.join(PREPROCESS)}")
    return warp(chip.pixels, matrix, size, contract.border), matrix


def _letterbox(width: int, height: int, size: int) -> Floats:
    """Map of a whole chip into the middle of a square, one factor for both axes; pixel centres are whole numbers."""
    factor = size / max(width, height)
    x, y = ((size - factor * side + factor - 1.0) / 2.0 for side in (width, height))
    return geometry.scaling(factor, (x, y))
