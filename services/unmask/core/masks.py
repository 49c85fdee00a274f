"""A localizer's heads to polygons: candidates or heat maps to masks, outlines simplified to a stated error, names in words.

`ViewRegion`, `face_score`, `regions_of`, `shown_regions`, `heat_of`, `polygons_of`, `region_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import TEMPLATE

Mask = NDArray[np.uint8]
# A graph's outputs for one view, by name.
Heads = Mapping[str, NDArray[np.floating]]
# The heat from which a pixel belongs to a region, unless the card's thresholds say another.
HEAT_LEVEL: Final = 0.5
# A polygon may differ from its mask's outline by at most this many pixels of the finer grid, half as many of the view.
OUTLINE_ERROR: Final = 1.0
_LEAST_AREA: Final = 6.0
# Outlines are drawn on a grid so much finer, so that they lie on pixel edges instead of centres: small regions keep their area.
_FINER: Final = 2
# Parts of the face in the unit square of the landmark template: name, centre x and y, half width, half height.
# Right and left are the subject's; the eyes' and mouth's places come from the template, the others by proportion.
_EYE_Y: Final = float(TEMPLATE[:2, 1].mean())
_MOUTH_Y: Final = float(TEMPLATE[3:, 1].mean())
_PARTS: Final = (
    ("right eye", float(TEMPLATE[0, 0]), _EYE_Y, 0.14, 0.08),
    ("left eye", float(TEMPLATE[1, 0]), _EYE_Y, 0.14, 0.08),
    ("eyes", 0.5, _EYE_Y, 0.33, 0.10),
    ("right eyebrow", float(TEMPLATE[0, 0]), 0.31, 0.16, 0.06),
    ("left eyebrow", float(TEMPLATE[1, 0]), 0.31, 0.16, 0.06),
    ("eyebrows", 0.5, 0.31, 0.34, 0.07),
    ("nose", 0.5, 0.58, 0.12, 0.17),
    ("mouth", 0.5, _MOUTH_Y, 0.20, 0.09),
    ("forehead", 0.5, 0.12, 0.38, 0.13),
    ("chin", 0.5, 1.02, 0.20, 0.10),
    ("right cheek", 0.22, 0.74, 0.14, 0.16),
    ("left cheek", 0.78, 0.74, 0.14, 0.16),
    ("right half", 0.24, 0.58, 0.26, 0.48),
    ("left half", 0.76, 0.58, 0.26, 0.48),
    ("upper half", 0.5, 0.30, 0.46, 0.28),
    ("lower half", 0.5, 0.82, 0.46, 0.30),
    ("inner face", 0.5, 0.60, 0.42, 0.44),
)


@dataclass(frozen=True, slots=True)
class ViewRegion:
    """One region: polygon (K, 2) in view pixels, confidence, area of its mask in view pixels."""

    polygon: Floats
    score: float
    area: float


def face_score(heads: Heads) -> float:
    """A face's raw score: what the graph says of the whole face, or the best confidence of all candidates."""
    return float(heads["score"]) if "score" in heads else float(heads["predictions"][4].max(initial=0.0))


def regions_of(
    heads: Heads, size: int, *, score_threshold: float = 0.5, heat_level: float = HEAT_LEVEL, limit: int = 16
) -> list[ViewRegion]:
    """Regions of one view of `size` pixels, best first, from candidates (`decode_regions`) or a heat map (`decode_heat`)."""
    if "heat" in heads:
        return decode_heat(heads["heat"], face_score(heads), size, score_threshold, heat_level)[:limit]
    return decode_regions(heads["predictions"], heads["prototypes"], size, score_threshold=score_threshold, limit=limit)


def shown_regions(heads: Heads, size: int, thresholds: Mapping[str, float]) -> list[ViewRegion]:
    """Regions that a card's raw thresholds let be drawn: `region_score`, `heat_level`, and on no face below `face_score`."""
    if face_score(heads) < thresholds.get("face_score", 0.0):
        return []
    least, level = thresholds.get("region_score", 0.5), thresholds.get("heat_level", HEAT_LEVEL)
    return regions_of(heads, size, score_threshold=least, heat_level=level)


def heat_of(heads: Heads, limit: int = 16) -> Floats:
    """How manipulated each cell (h, w) looks, 0 to 1: the face's score times the heat, or the best candidates' masks."""
    if "heat" in heads:
        return np.asarray(face_score(heads) * heads["heat"], dtype=np.float64)
    rows = np.asarray(heads["predictions"], dtype=np.float64).T
    best = rows[np.argsort(-rows[:, 4])[:limit]]
    masks = 1.0 / (1.0 + np.exp(-np.tensordot(best[:, 5:], np.asarray(heads["prototypes"], dtype=np.float64), axes=1)))
    return np.asarray((best[:, 4, None, None] * masks).max(axis=0), dtype=np.float64)


def decode_heat(
    heat: NDArray[np.floating], face: float, size: int, score_threshold: float, level: float = HEAT_LEVEL
) -> list[ViewRegion]:
    """Connected areas of a heat map (h, w) in 0..1 at or above `level`, best first.

    A region's score is the face's times the mean heat in the region: many faint pixels are no region, and a face that looks
    untouched as a whole has none.
    """
    side = size * _FINER
    full = cv2.resize(np.asarray(heat, dtype=np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    count, labels = cv2.connectedComponents((full >= level).astype(np.uint8), connectivity=8)
    regions: list[ViewRegion] = []
    for index in range(1, count):
        inside = labels == index
        score = face * float(full[inside].mean())
        if score >= score_threshold:
            found = _outlines(np.where(inside, 255, 0).astype(np.uint8))
            regions += [ViewRegion(polygon, score, area) for polygon, area in found[:1]]
    return sorted(regions, key=lambda region: -region.score)


def decode_regions(
    predictions: NDArray[np.floating],
    prototypes: NDArray[np.floating],
    size: int,
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    limit: int = 16,
) -> list[ViewRegion]:
    """Regions of one view, best first.

    `predictions` is (4 + 1 + C, P): centre x and y, width, height in view pixels, confidence, C mask coefficients;
    `prototypes` is (C, h, w).  Source: YOLACT (Bolya et al., ICCV 2019), as ultralytics' segmentation head assembles it.
    """
    rows = np.asarray(predictions, dtype=np.float64).T
    rows = rows[rows[:, 4] >= score_threshold]
    half = rows[:, 2:4] / 2.0
    boxes = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
    regions: list[ViewRegion] = []
    for i in geometry.non_maximum_suppression(boxes, rows[:, 4], iou_threshold)[:limit]:
        mask = assemble(rows[i, 5:], prototypes, boxes[i], size)
        regions += [ViewRegion(polygon, float(rows[i, 4]), area) for polygon, area in polygons_of(mask)]
    return regions[:limit]


def assemble(coefficients: Floats, prototypes: NDArray[np.floating], box: Floats, size: int) -> Mask:
    """The (size, size) mask, 0 or 255, of one candidate, cropped to its box (view pixels)."""
    count, height, width = prototypes.shape
    flat = np.asarray(prototypes, dtype=np.float64).reshape(count, -1)
    logits = (coefficients @ flat).reshape(height, width).astype(np.float32)
    # Interpolating logits and comparing with 0 is the sigmoid's > .5, with a smoother edge.
    full = cv2.resize(logits, (size, size), interpolation=cv2.INTER_LINEAR)
    x0, y0, x1, y1 = (int(v) for v in (*np.floor(np.clip(box[:2], 0, size)), *np.ceil(np.clip(box[2:], 0, size))))
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[y0:y1, x0:x1] = np.where(full[y0:y1, x0:x1] > 0.0, 255, 0)
    return mask


def polygons_of(mask: Mask) -> list[tuple[Floats, float]]:
    """Outer outlines (K, 2) of a mask's parts with their areas in pixels, largest first; specks are left out.

    An outline runs along pixel edges' centres half a pixel outside, so that the polygon covers what the mask covers.
    """
    return _outlines(cv2.resize(mask, None, fx=_FINER, fy=_FINER, interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False))


def _outlines(fine: Mask) -> list[tuple[Floats, float]]:
    """`polygons_of` a mask that is `_FINER` times as fine as the view."""
    found: list[tuple[Floats, float]] = []
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        area = cv2.contourArea(contour) / _FINER**2
        if area < _LEAST_AREA:
            continue
        simple = cv2.approxPolyDP(contour, OUTLINE_ERROR, True)[:, 0, :].astype(np.float64)
        if len(simple) >= 3:
            found.append((simple / _FINER - 0.25, float(area)))
    return sorted(found, key=lambda item: -item[1])


def region_name(polygon: Floats) -> str:
    """The part of the face that a polygon (K, 2), in the unit square of the landmark template, covers best."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    box = np.concatenate([low, high])
    parts = np.array([[x - w, y - h, x + w, y + h] for _, x, y, w, h in _PARTS])
    overlaps = geometry.iou(box, parts)
    best = int(np.argmax(overlaps))
    return _PARTS[best][0] if overlaps[best] > 0.0 else "beside the face"
