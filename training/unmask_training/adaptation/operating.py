"""How a card reads logits and distance: how plain and blurred combine, calibration, thresholds, doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from unmask.core.cards import Card
from unmask.core.readouts import DoubtMap
from unmask_training.adaptation.heads import Bools, Floats, Readout
from unmask_training.detector.evaluate import point_of
from unmask_training.measuring.calibration import fit_calibration, operating_point
from unmask_training.measuring.measures import SYNTHETIC, Point, Scored, called

_COMBINED: Final[Mapping[str, Any]] = {"mean": np.mean, "max": np.max, "min": np.min}


@dataclass(frozen=True, slots=True)
class Operating:
    """A card's operating point; `doubt` is None where it has no such map, and then no threshold of it either."""

    combine: str
    temperature: float
    bias: float
    point: Point
    doubt: DoubtMap | None = None

    @staticmethod
    def of(card: Card) -> Operating:
        """From the card; raises `ValueError` where it lacks a threshold or combines in a way that is not known here."""
        combine = "mean" if card.defence is None else card.defence.combine
        if combine not in _COMBINED:
            raise ValueError(f"card of {card.name}/{card.version}: defence: {combine!r} is none of {', '.join(_COMBINED)}")
        return Operating(combine, card.calibration.temperature, card.calibration.bias, point_of(card), card.doubt)

    @staticmethod
    def fitted(raw: Floats, fake: Bools, kind: NDArray[np.str_], group: NDArray[np.str_]) -> Operating:
        """Calibration and thresholds from logits (N,) of pictures that nothing was fitted on, as `export` finds them."""
        found = fit_calibration(raw, fake)
        plain = Operating("mean", found.temperature, found.bias, Point(0.5, 0.5))
        at = operating_point(Scored(plain.scores(np.stack([raw, raw], axis=1)), fake, kind, group))
        return replace(plain, point=Point(at["real_below"], at["synthetic_above"]))

    def doubting(self, doubt: DoubtMap, share: float) -> Operating:
        """The same, but unsure of the `share` of familiar faces that are strangest by the map, and of all as strange."""
        return replace(self, doubt=doubt, point=self.point._replace(doubt_from=1.0 - share))

    def scores(self, logits: Floats) -> Floats:
        """Calibrated p(synthetic) (N,) of logits (N, 2) of the plain and the blurred view."""
        return np.asarray(expit(_COMBINED[self.combine](logits, axis=1) / self.temperature + self.bias))

    def calls(self, readout: Readout, features: NDArray[np.floating]) -> NDArray[np.int8]:
        """What pictures with features (N, 2, C) are called, (N,): 0 real, 1 synthetic, -1 unsure."""
        return self.verdicts(readout(features), readout.distance(features))

    def verdicts(self, logits: Floats, distance: Floats | None = None) -> NDArray[np.int8]:
        """The same of logits (N, 2) and distance (N,)."""
        none, names = np.zeros(len(logits), dtype=np.bool_), np.full(len(logits), "")
        doubt = None
        if distance is not None and self.doubt is not None:
            doubt = np.interp(distance, self.doubt.distances, self.doubt.doubts)
        return called(Scored(self.scores(logits), none, names, names, doubt), self.point)

    def right(self, readout: Readout, features: NDArray[np.floating], fake: Bools) -> Bools:
        """Whether each picture is called what it is (N,); unsure is wrong."""
        return np.asarray(self.calls(readout, features) == np.where(fake, SYNTHETIC, 0))
