"""Golden pictures: any machine can draw them, and a detector must answer them as it did where it was exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.core.errors import BadModel
from unmask.core.reading import Reader


@dataclass(frozen=True, slots=True)
class Golden:
    """A card's section `golden`: the logits `synthetic` of that many pictures, and by how much they may differ."""

    answers: tuple[float, ...]
    tolerance: float

    def gap(self, found: NDArray[np.floating]) -> float:
        """The largest difference of found logits (N,) to the stated ones."""
        return float(np.abs(np.asarray(found, dtype=np.float64) - np.array(self.answers)).max())


def golden_pictures(size: int, count: int = 4) -> NDArray[np.uint8]:
    """Pictures (N, S, S, 3): smooth colour with noise, by seed.  No one's face."""
    grid = np.linspace(0.0, 2.0 * np.pi, size)
    pictures = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        down = [np.sin((1 + seed) * grid + phase) for phase in rng.random(3)]
        waves = np.stack([np.outer(wave, np.cos((2 + i) * grid)) for i, wave in enumerate(down)], axis=-1)
        pictures.append(128.0 + 70.0 * waves + rng.normal(0.0, 8.0, (size, size, 3)))
    return np.clip(np.rint(np.stack(pictures)), 0, 255).astype(np.uint8)


def golden(section: Reader | None) -> Golden | None:
    """The section `golden` {answers, tolerance}; raises `BadModel` naming the field."""
    if section is None:
        return None
    answers: Sequence[float] = section.numbers("answers")
    tolerance = section.number("tolerance")
    if not answers or tolerance <= 0.0:
        raise BadModel(f"{section.where}: needs 'answers' and a positive 'tolerance'")
    return Golden(tuple(answers), tolerance)
