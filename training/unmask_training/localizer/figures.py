"""Figures of localisation: mask mAP50, pixel precision, recall and F1, false alarms, with intervals by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask_training.measuring.measures import Scored, auc

Floats = NDArray[np.float64]
_DRAWS: Final = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the localizer said of one face.

    `best` is its raw score; `scores` (K,) and `overlaps` (K, G) are candidates, best first, and their mask IoU with the G true
    pieces, `boxes` (K, G) the IoU of their boxes; `pixels` are true positive, false positive and false negative pixels at the
    operating point, `alarm` whether any region was drawn there.
    """

    best: float
    scores: Floats
    overlaps: Floats
    boxes: Floats
    pixels: tuple[int, int, int]
    alarm: bool
    doctored: bool
    kind: str
    group: str
    region: str = ""
    quartile: str = ""


def matches(overlaps: Floats, least: float) -> NDArray[np.bool_]:
    """Which of K candidates hit a true piece that no better candidate has hit, by their IoU (K, G) >= `least`."""
    free = np.ones(overlaps.shape[1], dtype=np.bool_)
    hit = np.zeros(len(overlaps), dtype=np.bool_)
    for i, row in enumerate(overlaps):
        open_row = np.where(free, row, -1.0)
        if open_row.size and open_row.max() >= least:
            free[int(np.argmax(open_row))] = False
            hit[i] = True
    return hit


def average_precision(outcomes: Sequence[Outcome], least: float = 0.5, *, boxes: bool = False) -> float:
    """Area under precision over recall with the precision envelope, 101 points, by masks or by boxes.

    Source: COCO detection evaluation.
    """
    total = sum(outcome.overlaps.shape[1] for outcome in outcomes)
    if total == 0:
        return float("nan")
    scores = np.concatenate([outcome.scores for outcome in outcomes])
    overlaps = [outcome.boxes if boxes else outcome.overlaps for outcome in outcomes]
    hits = np.concatenate([matches(one, least) for one in overlaps])[np.argsort(-scores, kind="stable")]
    recall, precision = np.cumsum(hits) / total, np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0.0, 1.0, 101), side="left")
    return float(np.where(places < len(envelope), np.append(envelope, 0.0)[np.minimum(places, len(envelope))], 0.0).mean())


def mean_average_precision(outcomes: Sequence[Outcome]) -> float:
    """mAP50-95: `average_precision` of masks, its mean over IoU .5 to .95 in steps of .05."""
    return float(np.mean([average_precision(outcomes, least) for least in np.arange(0.5, 0.96, 0.05)]))


def box_average_precision(outcomes: Sequence[Outcome]) -> float:
    """`average_precision` of boxes at IoU .5."""
    return average_precision(outcomes, boxes=True)


def _pixels(outcomes: Sequence[Outcome]) -> Floats:
    total: Floats = np.array([outcome.pixels for outcome in outcomes], dtype=np.float64).reshape(-1, 3).sum(axis=0)
    return total


def pixel_precision(outcomes: Sequence[Outcome]) -> float:
    """Of the pixels drawn, the share that was changed."""
    true, false, _ = _pixels(outcomes)
    return float(true / (true + false)) if true + false else float("nan")


def pixel_recall(outcomes: Sequence[Outcome]) -> float:
    """Of the pixels changed, the share that was drawn."""
    true, _, missed = _pixels(outcomes)
    return float(true / (true + missed)) if true + missed else float("nan")


def pixel_f1(outcomes: Sequence[Outcome]) -> float:
    """Harmonic mean of both."""
    true, false, missed = _pixels(outcomes)
    return float(2.0 * true / (2.0 * true + false + missed)) if true + false + missed else float("nan")


def pixel_iou(outcomes: Sequence[Outcome]) -> float:
    """Intersection over union of all pixels drawn and changed."""
    true, false, missed = _pixels(outcomes)
    return float(true / (true + false + missed)) if true + false + missed else float("nan")


def alarms(outcomes: Sequence[Outcome]) -> float:
    """Share of faces with any region."""
    return float(np.mean([outcome.alarm for outcome in outcomes]))


def image_auc(outcomes: Sequence[Outcome]) -> float:
    """Area under the ROC curve of the best confidence, doctored against undoctored."""
    return auc(
        Scored(
            np.array([outcome.best for outcome in outcomes]),
            np.array([outcome.doctored for outcome in outcomes]),
            np.array([outcome.kind for outcome in outcomes]),
            np.array([outcome.group for outcome in outcomes]),
        )
    )


Measure = Callable[[Sequence[Outcome]], float]


def figure(outcomes: Sequence[Outcome], measure: Measure) -> dict[str, Any]:
    """Value, 95 % interval by bootstrap over groups, and count of pictures."""
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        members.setdefault(outcome.group, []).append(outcome)
    groups, rng = list(members.values()), np.random.default_rng(0)
    values = [
        measure([outcome for i in rng.integers(len(groups), size=len(groups)) for outcome in groups[i]]) for _ in range(_DRAWS)
    ]
    known = np.array(values)[~np.isnan(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if known.size else (float("nan"), float("nan"))
    told = {"value": measure(outcomes), "low": float(low), "high": float(high)}
    # JSON has no NaN: what cannot be said is null.
    return {key: None if np.isnan(value) else round(value, 4) for key, value in told.items()} | {"n": len(outcomes)}


_LOCAL: Final[dict[str, Measure]] = {
    "map50": average_precision,
    "pixel_precision": pixel_precision,
    "pixel_recall": pixel_recall,
    "pixel_f1": pixel_f1,
    "pixel_iou": pixel_iou,
    "found": alarms,
}

# Figures that need many more draws than they tell: for all pictures together only.
_WHOLE: Final[dict[str, Measure]] = {"map50_95": mean_average_precision, "box_map50": box_average_precision}


def delivered(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of doctored faces and twins that were encoded once more: what is left of finding, and false alarms."""
    known = [o for o in outcomes if o.doctored and o.kind != "faceswap"]
    told = {name: figure(known, _LOCAL[name]) for name in ("map50", "pixel_f1", "found")}
    return told | {"false_alarms": figure([o for o in outcomes if not o.doctored], alarms)}


def table(masked: Sequence[Outcome], whole: Sequence[Outcome]) -> dict[str, Any]:
    """Every figure of a localizer's card.

    `masked` are faces whose truth is a mask (doctored ones and their twins), `whole` those with a label alone: real ones,
    wholly generated ones (kind `synthetic:…`, no truth either way) and expert splices without masks.
    """
    doctored = [o for o in masked if o.doctored]
    plain = [o for o in [*masked, *whole] if not o.doctored and not o.kind.startswith("synthetic:")]
    known = [o for o in doctored if o.kind != "faceswap"]
    twins = [o for o in masked if not o.doctored]
    figures: dict[str, Any] = {"pooled": {name: figure(known, measure) for name, measure in (_LOCAL | _WHOLE).items()}}
    parts = [o for o in known if o.region not in {"ellipse", "whole"} and not o.region.startswith("half")]
    if parts:
        figures["facial_parts"] = {name: figure(parts, measure) for name, measure in _LOCAL.items()}
    figures["pooled"]["map50_with_twins"] = figure([*known, *twins], average_precision)
    figures["pooled"]["auc_against_twins"] = figure([*known, *twins], image_auc)
    figures["pooled"]["auc_against_all_undoctored"] = figure([*known, *plain], image_auc)
    figures["pooled"]["false_alarms"] = figure(plain, alarms)
    for name, key in (("by_engine", "kind"), ("by_region", "region"), ("by_quartile", "quartile")):
        figures[name] = _split(doctored if key == "kind" else known, key)
    figures["false_alarms_by_source"] = {kind: figure(rows, alarms) for kind, rows in _grouped(plain, "kind").items()}
    generated = [o for o in whole if o.kind.startswith("synthetic:")]
    figures["regions_on_wholly_generated"] = {kind: figure(rows, alarms) for kind, rows in _grouped(generated, "kind").items()}
    unmasked = _grouped([o for o in whole if o.doctored], "kind")
    figures["without_masks"] = {
        kind: {"found": figure(rows, alarms), "auc": figure([*rows, *plain], image_auc)} for kind, rows in unmasked.items()
    }
    return figures


def _split(outcomes: Sequence[Outcome], key: str) -> dict[str, Any]:
    return {
        value: {name: figure(rows, measure) for name, measure in _LOCAL.items()}
        for value, rows in _grouped(outcomes, key).items()
        if value
    }


def _grouped(outcomes: Sequence[Outcome], key: str) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(str(getattr(outcome, key)), []).append(outcome)
    return dict(sorted(found.items()))
