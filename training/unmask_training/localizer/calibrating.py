"""From a localizer's scores on the calibration part to its card: calibration, heat level, thresholds, figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card, logit_of
from unmask.core.images import ViewContract
from unmask.core.masks import HEAT_LEVEL, Heads, face_score, regions_of
from unmask_training.data.chips import Chips
from unmask_training.localizer.evaluate import Case, evaluate, heads_of, masked_cases, view_of, whole_cases
from unmask_training.localizer.rows import Regions
from unmask_training.localizer.samples import PHOTOSHOP, Delivery, Sampler
from unmask_training.measuring.calibration import card_calibration, fit_calibration

# At these false-positive rates on undoctored real faces of the calibration part a face is called manipulated, and `unsure`
# begins and regions of a heat map are drawn: below the 3 % that are allowed, because a few hundred faces place so high a
# quantile only roughly.
_CALLED_RATE: Final = 0.01
_UNSURE_RATE: Final = 0.02
_POINTS: Final = (0.005, 0.01, 0.02, 0.03, 0.05)
_MADE: Final = 500
_LEVELS: Final = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_AS_GOOD: Final = 0.005
_NOTES: Final = (
    "face_score, region_score and heat_level are raw, and say what is drawn; the other thresholds are calibrated probabilities",
    "wholly generated faces are outside its task: training showed some of them without a region",
    "pixel figures are exact, without tolerance at the rim of a mask",
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of faces of the calibration part: raw face scores, those of their strongest regions, the truth, and which were
    delivered anew (the others are as they are)."""

    best: NDArray[np.float64]
    strongest: NDArray[np.float64]
    truth: NDArray[np.bool_]
    anew: NDArray[np.bool_]


def calibration_cases(view: ViewContract, data: Path) -> tuple[list[Case], int]:
    """Doctored faces, the prepared ones and splices made for it, and every real face and twin; and how many of them are as
    they are (they come first)."""
    cases = [*masked_cases(view, Regions(data), "calibrate"), *whole_cases(view, Chips(data), "calibrate")]
    cases = [case for case in cases if not case.kind.startswith("synthetic:") and case.kind != PHOTOSHOP]
    plainly, rng = len(cases), np.random.default_rng(0)
    for kind in ("made", "real"):
        sampler = Sampler(data, {kind: 1.0}, "calibrate", Delivery())
        samples = [sampler.draw(view, rng)[0] for _ in range(_MADE)]
        doctored = kind == "made"
        cases += [Case(s.view, s.mask, doctored, s.engine or kind, "") for s in samples if bool(s.mask.any()) == doctored]
    return cases, plainly


def scores_of(cases: Sequence[Case], found: Sequence[Heads], plainly: int, level: float) -> Scores:
    """Scores at a heat level."""
    regions = [regions_of(heads, case.view.shape[0], score_threshold=0.0, heat_level=level, limit=1)
               for case, heads in zip(cases, found, strict=True)]  # fmt: skip
    return Scores(
        best=np.array([face_score(heads) for heads in found]),
        strongest=np.array([rows[0].score if rows else 0.0 for rows in regions]),
        truth=np.array([case.doctored for case in cases]),
        anew=np.arange(len(cases)) >= plainly,
    )


def best_level(cases: Sequence[Case], found: Sequence[Heads]) -> float:
    """The heat level at which masks of doctored faces agree with the truth (mean IoU), the default without heat.

    Among those that agree nearly as well as the best it is the highest: large regions hardly care, and thin ones stay thin.
    """
    pairs = [
        (c.mask, h["heat"]) for c, h in zip(cases, found, strict=True) if c.doctored and c.mask is not None and "heat" in h
    ]
    if not pairs:
        return HEAT_LEVEL
    agreed = {level: float(np.mean([_agreement(mask, heat, level) for mask, heat in pairs])) for level in _LEVELS}
    return max(level for level in _LEVELS if agreed[level] >= max(agreed.values()) - _AS_GOOD)


def _agreement(mask: NDArray[np.bool_], heat: NDArray[np.floating], level: float) -> float:
    full = cv2.resize(np.asarray(heat, dtype=np.float32), mask.shape[::-1], interpolation=cv2.INTER_LINEAR) >= level
    return float((full & mask).sum() / max(1, (full | mask).sum()))


def clipped_logits(best: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of raw scores, clipped as serving clips them."""
    return np.array([logit_of(value) for value in np.clip(best, 1e-4, 1.0 - 1e-4)])


def drawing(scores: Scores, level: float | None) -> dict[str, float]:
    """The raw thresholds by which regions are drawn; `level` is that of a heat map, None without one.

    A heat map's regions are as sure as their face, and drawn from where it is `unsure`: the heat only says where.
    """
    if level is None:
        return {"region_score": region_threshold(scores)}
    face = round(_raw_at(scores, scores.best, _UNSURE_RATE), 4)
    return {"face_score": face, "region_score": level, "heat_level": level}


def region_threshold(scores: Scores) -> float:
    """The raw `region_score`: few undoctored faces have a region so strong, none that is called real shows one."""
    return round(max(_raw_at(scores, scores.strongest, _CALLED_RATE), _raw_at(scores, scores.best, _UNSURE_RATE)), 4)


def _raw_at(scores: Scores, values: NDArray[np.float64], rate: float) -> float:
    """What all but `rate` of the undoctored faces stay below, as they are and delivered anew."""
    parts = (values[~scores.truth & ~scores.anew], values[~scores.truth & scores.anew])
    undoctored = [np.sort(part) for part in parts if part.size]
    return max(float(part[len(part) - 1 - int(rate * len(part))]) for part in undoctored) + 1e-4


def thresholds(scores: Scores, card: Card, level: float | None = None) -> dict[str, float]:
    """Raw ones (`drawing`), and calibrated probabilities at false-positive rates that hold as they are and delivered anew.

    A region is drawn only on faces that are at least `unsure`: nothing is marked on a face that is called real.
    """

    def probability(raw: float) -> float:
        return round(card.calibration.probability(logit_of(float(np.clip(raw, 1e-4, 1.0 - 1e-4)))), 4)

    points = {f"fpr_{rate:g}": probability(_raw_at(scores, scores.best, rate)) for rate in _POINTS}
    recommended = {
        "real_below": probability(_raw_at(scores, scores.best, _UNSURE_RATE)),
        "manipulated_above": probability(_raw_at(scores, scores.best, _CALLED_RATE)),
    }
    return points | recommended | drawing(scores, level)


def completed(folder: Path, card: dict[str, Any], data: Path, notes: Sequence[str]) -> dict[str, Any]:
    """Writes the version folder's card: with calibration and thresholds, figures on `val`, and notes.  Returns it."""
    cases, plainly = calibration_cases(view_of(_parsed(card)), data)
    found = list(heads_of(folder, (case.view for case in cases)))
    level, heat = best_level(cases, found), "heat" in found[0]
    scores = scores_of(cases, found, plainly, level)
    card = {**card, "calibration": card_calibration(fit_calibration(clipped_logits(scores.best), scores.truth))}
    card["thresholds"] = thresholds(scores, _parsed(card), level if heat else None)
    card["metrics"] = {"data": "val, groups never trained on", **evaluate(folder, _parsed(card), data)}
    card["notes"] = [notes[0], *_NOTES, *notes[1:]]
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def _parsed(card: Mapping[str, Any]) -> Card:
    return Card.parse(json.dumps(card).encode(), "")
