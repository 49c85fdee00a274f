"""Measures a localizer's version folder on prepared data, through its ONNX file and the polygons that serving draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime

from unmask.core.cards import Card
from unmask.core.images import Pixels, ViewContract, cut
from unmask.core.masks import HEAT_LEVEL, Heads, ViewRegion, face_score, regions_of, shown_regions
from unmask_training.data.chips import Chips, Row
from unmask_training.data.manipulate_engines import jpeg
from unmask_training.localizer.figures import Outcome, delivered, table
from unmask_training.localizer.rows import Mask, RegionRow, Regions
from unmask_training.localizer.samples import PHOTOSHOP, pieces, plain

_BATCH: Final = 16
# Candidates below this confidence do not count for mAP: they would come after every useful one.
_LEAST_SCORE: Final = 0.02
_CANDIDATES: Final = 12
# 4:2:0, as most encoders choose; and the qualities at which finding is measured once more.
_SAMPLING: Final = 0x221111
_QUALITIES: Final = (100, 80, 60)
# The raw thresholds of a card by which regions are drawn.
_DRAWING: Final = ("face_score", "region_score", "heat_level")


@dataclass(frozen=True, slots=True)
class Case:
    """One view with its truth: mask (S, S), or None where only the label is known."""

    view: Pixels
    mask: Mask | None
    doctored: bool
    kind: str
    group: str
    region: str = ""
    quartile: str = ""


def heads_of(folder: Path, views: Iterable[Pixels]) -> Iterator[Heads]:
    """The graph's heads, view by view."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    waiting: list[Pixels] = []

    def flush() -> Iterator[Heads]:
        found = session.run(names, {"image": np.stack(waiting)})
        waiting.clear()
        yield from (dict(zip(names, row, strict=True)) for row in zip(*found, strict=True))

    for view in views:
        waiting.append(view)
        if len(waiting) == _BATCH:
            yield from flush()
    if waiting:
        yield from flush()


def view_of(card: Card) -> ViewContract:
    """The view of a card; raises `ValueError` where it states none."""
    if card.view is None:
        raise ValueError(f"model {card.name} {card.version}: the card states no view")
    return card.view


def masked_cases(view: ViewContract, regions: Regions, part: str, quality: int | None = None) -> Iterator[Case]:
    """Doctored faces and twins of a part; encoded once more as JPEG of this quality, where one is given."""
    for row in regions:
        if row.part == part:
            pixels, mask = regions.planes(row)
            pixels = np.ascontiguousarray(pixels)
            sent = pixels if quality is None else jpeg(pixels, quality, _SAMPLING)
            seen, placed = plain(sent, row.to_unit, mask, view)
            yield _case(row, seen, placed)


def _case(row: RegionRow, view: Pixels, mask: Mask) -> Case:
    doctored = row.label == "manipulated"
    kind = row.engine if doctored else f"twin:{row.source}"
    return Case(view, mask, doctored, kind, row.group, row.region if doctored else "", row.quartile)


def whole_cases(view: ViewContract, chips: Chips, part: str) -> Iterator[Case]:
    """Real, wholly generated and expertly spliced faces of a part."""
    for row in chips:
        if row.part == part and (row.label != "manipulated" or row.kind == PHOTOSHOP):
            yield Case(cut(chips.chip(row), view), None, row.label == "manipulated", _kind(row), row.group)


def _kind(row: Row) -> str:
    return f"synthetic:{row.kind}" if row.label == "synthetic" else row.kind


def drawn(regions: Sequence[ViewRegion], size: int) -> Mask:
    """The mask that polygons cover together: what a user sees, not what the network meant."""
    canvas = np.zeros((size, size), dtype=np.uint8)
    for region in regions:
        cv2.fillPoly(canvas, [np.round(region.polygon * 16.0).astype(np.int32)], 1, shift=4)
    return canvas > 0


def outcome(case: Case, heads: Heads, thresholds: Mapping[str, float]) -> Outcome:
    """Compares one view's regions with its truth, at the card's raw thresholds."""
    size = case.view.shape[0]
    truth = [] if case.mask is None else pieces(case.mask)
    level, found = thresholds.get("heat_level", HEAT_LEVEL), list[ViewRegion]()
    if case.mask is not None:  # without one no candidate is right or wrong
        found = regions_of(heads, size, score_threshold=_LEAST_SCORE, heat_level=level, limit=_CANDIDATES)
    masks = [drawn([region], size) for region in found]
    shape = (len(found), len(truth))
    shown = drawn(shown_regions(heads, size, thresholds), size)
    pixels = (0, 0, 0)
    if case.mask is not None:
        pixels = tuple(int(part.sum()) for part in (shown & case.mask, shown & ~case.mask, case.mask & ~shown))  # type: ignore[assignment]
    return Outcome(
        best=face_score(heads),
        scores=np.array([region.score for region in found]),
        overlaps=np.array([[_iou(mask, piece) for piece in truth] for mask in masks]).reshape(shape),
        boxes=np.array([[_iou(_box(mask), _box(piece)) for piece in truth] for mask in masks]).reshape(shape),
        pixels=pixels,
        alarm=bool(shown.any()),
        doctored=case.doctored,
        kind=case.kind,
        group=case.group,
        region=case.region,
        quartile=case.quartile,
    )


def _box(mask: Mask) -> Mask:
    """The filled bounding box of a mask."""
    filled = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    filled[y : y + height, x : x + width] = True
    return filled


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def outcomes(folder: Path, cases: Iterable[Case], thresholds: Mapping[str, float]) -> list[Outcome]:
    """Outcomes of all cases, a batch at a time."""
    found: list[Outcome] = []
    batch: list[Case] = []

    def flush() -> None:
        found.extend(outcome(c, h, thresholds) for c, h in zip(batch, heads_of(folder, (c.view for c in batch)), strict=True))
        batch.clear()

    for case in cases:
        batch.append(case)
        if len(batch) == 16 * _BATCH:
            flush()
    if batch:
        flush()
    return found


def evaluate(folder: Path, card: Card, data: Path, part: str = "val") -> dict[str, Any]:
    """`figures.table` and the figures after one more encode on a part of prepared data, at the card's thresholds."""
    view = view_of(card)
    masked = outcomes(folder, masked_cases(view, Regions(data), part), card.thresholds)
    whole = outcomes(folder, whole_cases(view, Chips(data), part), card.thresholds)
    if not any(o.doctored for o in masked):
        raise ValueError(f"{data}: no doctored faces in part {part!r}")
    again = {
        f"jpeg_{quality}": delivered(outcomes(folder, masked_cases(view, Regions(data), part, quality), card.thresholds))
        for quality in _QUALITIES
    }
    point = {name: card.thresholds[name] for name in _DRAWING if name in card.thresholds}
    return {"operating_point": point, **table(masked, whole), "delivered": again}
