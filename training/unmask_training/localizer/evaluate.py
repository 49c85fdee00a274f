"""Measures a localizer's version folder on prepared data, through its ONNX file and the polygons that serving draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unmask.core.cards import Card
from unmask.core.images import Pixels, cut
from unmask.core.masks import ViewRegion, decode_regions
from unmask_training.data.chips import Chips, Row
from unmask_training.localizer.figures import Outcome, table
from unmask_training.localizer.rows import Mask, RegionRow, Regions
from unmask_training.localizer.samples import pieces, plain

_BATCH: Final = 16
# Candidates below this confidence do not count for mAP: they would come after every useful one.
_LEAST_SCORE: Final = 0.02
_CANDIDATES: Final = 12
# Sets whose pictures are doctored but whose masks are not known.
_UNMASKED: Final = ("photoshop",)


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


@dataclass(frozen=True, slots=True)
class Heads:
    """What the graph says of one view: predictions (37, P), prototypes (32, S/4, S/4)."""

    predictions: NDArray[np.float32]
    prototypes: NDArray[np.float32]

    @property
    def best(self) -> float:
        """The face's raw score: the best confidence."""
        return float(self.predictions[4].max(initial=0.0))


def heads_of(folder: Path, views: Iterable[Pixels]) -> Iterator[Heads]:
    """The graph's heads, view by view."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    waiting: list[Pixels] = []

    def flush() -> Iterator[Heads]:
        predictions, prototypes = session.run(["predictions", "prototypes"], {"image": np.stack(waiting)})
        waiting.clear()
        yield from (Heads(p, q) for p, q in zip(predictions, prototypes, strict=True))

    for view in views:
        waiting.append(view)
        if len(waiting) == _BATCH:
            yield from flush()
    if waiting:
        yield from flush()


def masked_cases(card: Card, regions: Regions, part: str) -> Iterator[Case]:
    """Doctored faces and twins of a part."""
    if card.view is None:
        raise ValueError(f"model {card.name} {card.version}: the card states no view")
    for row in regions:
        if row.part == part:
            pixels, mask = regions.planes(row)
            view, placed = plain(np.ascontiguousarray(pixels), row.to_unit, mask, card.view)
            yield _case(row, view, placed)


def _case(row: RegionRow, view: Pixels, mask: Mask) -> Case:
    doctored = row.label == "manipulated"
    kind = row.engine if doctored else f"twin:{row.source}"
    return Case(view, mask, doctored, kind, row.group, row.region if doctored else "", row.quartile)


def whole_cases(card: Card, chips: Chips, part: str) -> Iterator[Case]:
    """Real, wholly generated and expertly spliced faces of a part."""
    if card.view is None:
        raise ValueError(f"model {card.name} {card.version}: the card states no view")
    for row in chips:
        if row.part == part and (row.label != "manipulated" or row.kind in _UNMASKED):
            yield Case(cut(chips.chip(row), card.view), None, row.label == "manipulated", _kind(row), row.group)


def _kind(row: Row) -> str:
    return f"synthetic:{row.kind}" if row.label == "synthetic" else row.kind


def drawn(regions: Sequence[ViewRegion], size: int) -> Mask:
    """The mask that polygons cover together: what a user sees, not what the network meant."""
    canvas = np.zeros((size, size), dtype=np.uint8)
    for region in regions:
        cv2.fillPoly(canvas, [np.round(region.polygon * 16.0).astype(np.int32)], 1, shift=4)
    return canvas > 0


def outcome(case: Case, heads: Heads, threshold: float) -> Outcome:
    """Compares one view's regions with its truth."""
    size = case.view.shape[0]
    truth = [] if case.mask is None else pieces(case.mask)
    least = _LEAST_SCORE if case.mask is not None else threshold
    found = decode_regions(heads.predictions, heads.prototypes, size, score_threshold=least, limit=_CANDIDATES)
    overlaps = np.array([[_iou(drawn([region], size), piece) for piece in truth] for region in found])
    shown = drawn([region for region in found if region.score >= threshold], size)
    pixels = (0, 0, 0)
    if case.mask is not None:
        pixels = tuple(int(part.sum()) for part in (shown & case.mask, shown & ~case.mask, case.mask & ~shown))  # type: ignore[assignment]
    return Outcome(
        best=heads.best,
        scores=np.array([region.score for region in found]),
        overlaps=overlaps.reshape(len(found), len(truth)),
        pixels=pixels,
        alarm=bool(shown.any()),
        doctored=case.doctored,
        kind=case.kind,
        group=case.group,
        region=case.region,
        quartile=case.quartile,
    )


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def outcomes(folder: Path, cases: Iterable[Case], threshold: float) -> list[Outcome]:
    """Outcomes of all cases, a batch at a time."""
    found: list[Outcome] = []
    batch: list[Case] = []

    def flush() -> None:
        found.extend(outcome(c, h, threshold) for c, h in zip(batch, heads_of(folder, (c.view for c in batch)), strict=True))
        batch.clear()

    for case in cases:
        batch.append(case)
        if len(batch) == 16 * _BATCH:
            flush()
    if batch:
        flush()
    return found


def evaluate(folder: Path, card: Card, data: Path, part: str = "val") -> dict[str, Any]:
    """The figures of `localizer_figures.table` on a part of prepared data, at the card's `region_score`."""
    threshold = card.thresholds["region_score"]
    masked = outcomes(folder, masked_cases(card, Regions(data), part), threshold)
    whole = outcomes(folder, whole_cases(card, Chips(data), part), threshold)
    if not any(o.doctored for o in masked):
        raise ValueError(f"{data}: no doctored faces in part {part!r}")
    return {"operating_point": {"region_score": threshold}, **table(masked, whole)}
