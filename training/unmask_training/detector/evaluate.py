"""Measures a detector's version folder on prepared data, through its ONNX file as serving runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unmask.core.cards import Card
from unmask.core.images import Pixels, cut
from unmask_training.data.chips import Chips, Row
from unmask_training.measuring.measures import Scored, table

# Soft, small pictures: against generators they separate by blur alone, so they count for false alarms only.
SOFT_SOURCES: Final = ("lfw", "dfdc")
_BATCH: Final = 32


def logits(folder: Path, card: Card, chips: Chips, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Raw logits (N,) of the rows' faces, in the view that the card states."""
    if card.view is None:
        raise ValueError(f"{folder}: the card states no view")
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float64]] = []
    for start in range(0, len(rows), _BATCH):
        views: Pixels = np.stack([cut(chips.chip(row), card.view) for row in rows[start : start + _BATCH]])
        (part,) = session.run(["synthetic"], {card.input.name: views})
        found.append(np.asarray(part, dtype=np.float64))
    return np.concatenate(found)


def detection_rows(chips: Chips, part: str) -> list[Row]:
    """Real and wholly synthetic pictures of a part; manipulated ones are the localizer's."""
    return [row for row in chips.rows if row.part == part and row.label in {"real", "synthetic"}]


def scored(card: Card, raw: NDArray[np.float64], rows: Sequence[Row]) -> Scored:
    """Calibrated scores with truth, kind and group."""
    return Scored(
        score=np.array([card.calibration.probability(float(value)) for value in raw]),
        fake=np.array([row.label == "synthetic" for row in rows]),
        kind=np.array([row.kind for row in rows]),
        group=np.array([row.group for row in rows]),
    )


def main_sources(rows: Sequence[Row]) -> list[str]:
    """The real sources of the pooled figures."""
    return sorted({row.kind for row in rows if row.label == "real"} - set(SOFT_SOURCES))


def evaluate(folder: Path, card: Card, data: Path, part: str = "val") -> dict[str, Any]:
    """The figures of `measures.table` on a part of prepared data."""
    chips = Chips(data)
    rows = detection_rows(chips, part)
    if not rows:
        raise ValueError(f"{data}: no real or synthetic pictures in part {part!r}")
    point = card.thresholds
    found = scored(card, logits(folder, card, chips, rows), rows)
    return table(found, main_sources(rows), point["real_below"], point["synthetic_above"])
