"""From logits to what a face is called: calibration, operating point, and doubt about faces unlike any known one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from unmask_training.data.chips import Row
from unmask_training.detector.evaluate import SOFT_SOURCES
from unmask_training.experiments.features import Features
from unmask_training.measuring.calibration import fit_calibration, operating_point
from unmask_training.measuring.measures import Floats, Point, Scored

_NEIGHBOURS: Final = 5
_CHUNK: Final = 512
_COLDEST: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Judging:
    """p = sigmoid(logit / temperature + bias); fake from `fake_from`, real below `real_below`, unsure between.

    From the distance `doubt` on (None: there is none) a face is unsure too.  `how` says in words how it was found.
    """

    temperature: float = 1.0
    bias: float = 0.0
    real_below: float = 0.5
    fake_from: float = 0.5
    doubt: float | None = None
    how: str = "threshold .5, not calibrated"

    def scores(self, logits: Floats) -> Floats:
        """p(synthetic), (N,)."""
        return np.asarray(expit(logits / self.temperature + self.bias), dtype=np.float64)

    def at(self, *, doubt: bool = True) -> Point:
        """The thresholds as `measures` takes them; without `doubt`, of the score alone."""
        return Point(self.real_below, self.fake_from, self.doubt if doubt else None)


def find_point(logits: Floats | None, rows: Sequence[Row], how: str) -> Judging:
    """The operating point from logits (N,) of faces that the head did not learn from; soft real sources do not count."""
    hard = np.array([row.kind not in SOFT_SOURCES for row in rows], dtype=bool)
    fake = np.array([row.label == "synthetic" for row in rows], dtype=bool)[hard]
    if logits is None or fake.all() or not fake.any():
        return Judging(how="threshold .5, not calibrated: too few pictures to hold any out")
    chosen, kept = logits[hard], [row for row, keep in zip(rows, hard, strict=True) if keep]
    found = fit_calibration(chosen, fake)
    # Classes that do not overlap at all drive the temperature to 0, which no logit can be divided by.
    temperature = max(found.temperature, _COLDEST)
    plain = Judging(temperature, found.bias)
    kinds, groups = (np.array([getattr(row, name) for row in kept]) for name in ("kind", "group"))
    at = operating_point(Scored(plain.scores(chosen), fake, kinds, groups))
    return Judging(temperature, found.bias, at["real_below"], at["synthetic_above"], None, how)


def distances(features: Features, groups: Sequence[str], bank: Features, bank_groups: Sequence[str]) -> Floats:
    """Mean cosine distance (N,) to the nearest known faces of other groups.  Source: Sun et al., ICML 2022 (k nearest)."""
    known, ours = _unit(bank), _unit(features)
    names, own = np.array(bank_groups), np.array(groups)
    result = np.zeros(len(ours))
    for start in range(0, len(ours), _CHUNK):
        likeness = ours[start : start + _CHUNK] @ known.T
        likeness[own[start : start + _CHUNK, None] == names[None, :]] = -1.0
        nearest = np.sort(likeness, axis=1)[:, -_NEIGHBOURS:]
        result[start : start + _CHUNK] = 1.0 - nearest.mean(1)
    return result


def scored(judging: Judging, logits: Floats, rows: Sequence[Row], far: Floats | None = None) -> Scored:
    """Scores with truth, kind and group; `far` (N,), the distances, stand as doubt."""
    fake = np.array([row.label == "synthetic" for row in rows], dtype=bool)
    kinds, groups = (np.array([getattr(row, name) for row in rows], dtype=np.str_) for name in ("kind", "group"))
    return Scored(judging.scores(logits), fake, kinds, groups, far)


def _unit(features: Features) -> NDArray[Any]:
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-9))
