"""All that a detector's graph says of prepared faces, through its ONNX file as serving runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core import geometry
from unmask.core.cards import Card
from unmask_training.data.chips import Chips, Row
from unmask_training.measuring.shortcut import face_share
from unmask_training.measuring.tiers import CLEAN, Tier, view_of

Floats = NDArray[np.float64]
_BATCH: Final = 32
_OPTIONAL: Final = ("plain", "blurred", "family", "embedding", "cam", "distance", "features")


@dataclass(frozen=True, slots=True)
class Outputs:
    """A graph's outputs for N faces: `synthetic` (N,), the served logit, and what else it gives (None where it does not).

    `plain` and `blurred` (N,) logits, `family` (N, F) logits, `embedding` (N, C), `cam` (N, h, w) logits a position,
    `distance` (N,), `features` (N, 2, C) before the heads, of the view and its blurred copy; `on_face` (N, h, w) is the share
    of each position of `cam` that lies on the face.
    """

    synthetic: Floats
    plain: Floats | None = None
    blurred: Floats | None = None
    family: Floats | None = None
    embedding: Floats | None = None
    cam: Floats | None = None
    distance: Floats | None = None
    features: Floats | None = None
    on_face: Floats | None = None


def outputs(
    folder: Path, card: Card, chips: Chips, rows: Sequence[Row], tier: Tier = CLEAN, preprocess: str = "crop"
) -> Outputs:
    """The graph's answers on the rows' faces, delivered by a tier and cut as `preprocess` says; a bar shows how far it is."""
    if card.view is None:
        raise ValueError(f"{folder}: the card states no view")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    there = [output.name for output in session.get_outputs()]
    names = ["synthetic", *(name for name in _OPTIONAL if name in there)]
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for start in tqdm(range(0, len(rows), _BATCH), desc=f"evaluate {tier.name}", unit="batch", disable=None, leave=False):
        some = rows[start : start + _BATCH]
        chosen = [tier.deliver(chips.chip(row), row.path) for row in some]
        cuts = [view_of(chip, card.view, preprocess) for chip in chosen]
        views = np.stack([view for view, _ in cuts])
        for name, values in zip(names, session.run(names, {card.input.name: views}), strict=True):
            found[name].append(np.asarray(values, dtype=np.float64))
        if "cam" in found:
            to_view = [geometry.compose(m, geometry.invert(c.to_unit)) for c, (_, m) in zip(chosen, cuts, strict=True)]
            shape: tuple[int, int] = found["cam"][-1].shape[1:]
            on_face = [face_share(matrix, card.view.size, shape) for matrix in to_view]
            found.setdefault("on_face", []).append(np.stack(on_face))
    joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in found.items()}
    if "family" in joined:
        joined["family"] = joined["family"][:, : len(card.classes)]
    return _checked(Outputs(**joined), folder)


def _checked(found: Outputs, folder: Path) -> Outputs:
    for name in ("synthetic", *_OPTIONAL):
        values = getattr(found, name)
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{folder}: the graph's output {name!r} is not finite for some pictures")
    return found
