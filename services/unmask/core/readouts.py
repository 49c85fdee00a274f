"""How a detector's further outputs are read (blur defence, unknown families, doubt): optional sections of its card."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from unmask.core.errors import BadModel
from unmask.core.reading import Reader

# The share of an open-set softmax that no known family has.
UNKNOWN: Final = "unknown"
# Shares are written with four places.
_ROUNDING: Final = 0.01


@dataclass(frozen=True, slots=True)
class BlurDefence:
    """What the graph does: a Gaussian blur of `sigma` view pixels, and how it combines both logits to the served one."""

    sigma: float
    combine: str


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Softmax over [family logits / temperature, unknown]: the last share is that of every family not known.

    The unknown share is sigmoid(unknown - logsumexp(family / temperature)): the free energy of Liu et al. (NeurIPS 2020), by
    which out-of-distribution inputs are told, as a share instead of a cut.
    """

    temperature: float
    unknown: float

    def logits(self, family: Sequence[float]) -> list[float]:
        """The logits to take shares of, one more than there are families."""
        return [*(logit / self.temperature for logit in family), self.unknown]


@dataclass(frozen=True, slots=True)
class DoubtMap:
    """Piecewise linear and never falling: `distance` to the share of familiar faces that are less strange, 0 to 1."""

    distances: tuple[float, ...]
    doubts: tuple[float, ...]

    def doubt(self, distance: float) -> float:
        """The doubt of a finite distance; beyond either end that of the end."""
        right = bisect_right(self.distances, distance)
        if right in {0, len(self.distances)}:
            return self.doubts[0 if right == 0 else -1]
        low, high = self.distances[right - 1], self.distances[right]
        share = (distance - low) / (high - low)
        return self.doubts[right - 1] + share * (self.doubts[right] - self.doubts[right - 1])


@dataclass(frozen=True, slots=True)
class Reference:
    """How a detector's scores lay on the calibration pictures: shares by bin of its calibrated p(synthetic).

    `bins` are upper bounds, the last one 1; `real` and `synthetic` sum to 1 each.  What drift is measured against.
    """

    bins: tuple[float, ...]
    real: tuple[float, ...]
    synthetic: tuple[float, ...]


def blur_defence(section: Reader | None) -> BlurDefence | None:
    """The section `defence` {sigma, combine}; raises `BadModel` naming the field."""
    if section is None:
        return None
    return BlurDefence(_above_zero(section, "sigma"), section.get("combine", str))


def open_set(section: Reader | None) -> OpenSet | None:
    """The section `open_set` {temperature, unknown}; raises `BadModel` naming the field."""
    if section is None:
        return None
    return OpenSet(_above_zero(section, "temperature"), section.number("unknown"))


def doubt_map(section: Reader | None) -> DoubtMap | None:
    """The section `doubt` {distances, doubts}; raises `BadModel` naming the field."""
    if section is None:
        return None
    found = DoubtMap(section.numbers("distances"), section.numbers("doubts"))
    if len(found.distances) < 2 or len(found.distances) != len(found.doubts):
        raise BadModel(f"{section.where}: 'distances' and 'doubts' must be as many, at least two")
    for name, values in (("distances", found.distances), ("doubts", found.doubts)):
        if any(after < before for before, after in pairwise(values)):
            raise BadModel(f"{section.where}: field '{name}' must not fall")
    if found.doubts[0] < 0.0 or found.doubts[-1] > 1.0:
        raise BadModel(f"{section.where}: field 'doubts' must lie between 0 and 1")
    return found


def reference(section: Reader | None) -> Reference | None:
    """The section `reference` {bins, real, synthetic}; raises `BadModel` naming the field."""
    if section is None:
        return None
    found = Reference(section.numbers("bins"), section.numbers("real"), section.numbers("synthetic"))
    if not found.bins or found.bins[0] <= 0.0 or found.bins[-1] != 1.0:
        raise BadModel(f"{section.where}: field 'bins' must lie above 0 and end with 1")
    if any(after <= before for before, after in pairwise(found.bins)):
        raise BadModel(f"{section.where}: field 'bins' must rise")
    for name, shares in (("real", found.real), ("synthetic", found.synthetic)):
        if len(shares) != len(found.bins) or min(shares) < 0.0 or abs(math.fsum(shares) - 1.0) > _ROUNDING:
            raise BadModel(f"{section.where}: field '{name}' must have a share for each bin, which sum to 1")
    return found


def _above_zero(section: Reader, key: str) -> float:
    value = section.number(key)
    if value <= 0.0:
        raise BadModel(f"{section.where}: field '{key}' must be positive")
    return value


def softmax(logits: Sequence[float]) -> list[float]:
    """Shares of finite logits."""
    top = max(logits)
    exponents = [math.exp(logit - top) for logit in logits]
    total = math.fsum(exponents)
    return [exponent / total for exponent in exponents]
