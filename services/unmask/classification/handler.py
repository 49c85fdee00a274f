"""The pure step `classify`: calibrated p(synthetic), generator family, blur defence and doubt of each face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card, Release
from unmask.core.domain import Classified, Defence, FaceRow
from unmask.core.errors import BadModel
from unmask.core.images import Chip, Pixels, chips_of, cut
from unmask.core.ports import ModelServer, Tensors
from unmask.core.readouts import UNKNOWN, softmax

# A detector's outputs that a verdict is made of; of the others (embedding, activation map) nothing is asked.
_READ: Final = ("synthetic", "plain", "blurred", "family", "distance")
_Row = Mapping[str, NDArray[np.float64]]


def classify(picture: Pixels, faces: tuple[FaceRow, ...], release: Release, models: ModelServer) -> tuple[Classified, ...]:
    """One result a face; all faces of the picture, (H, W, 3) uint8 RGB, are one batch."""
    return classify_chips(chips_of(picture, faces), release, models)


def classify_chips(chips: Sequence[Chip], release: Release, models: ModelServer) -> tuple[Classified, ...]:
    """One result a chip; all chips are one batch.  Raises `BadModel` naming an output that is not finite."""
    if not chips:
        return ()
    ref = release.model("detector")
    card = models.card(ref)
    view = card.view
    if view is None:
        raise BadModel(f"model {card.name} {card.version}: a detector's card must state a view, not 'canvas'")
    given = {spec.name for spec in card.outputs}
    if "synthetic" not in given:
        raise BadModel(f"model {card.name} {card.version}: a detector's card must name the output 'synthetic'")
    wanted = [name for name in _READ if name in given]
    outputs = models.infer(ref, {card.input.name: np.stack([cut(chip, view) for chip in chips])}, wanted)
    rows = _checked(card, outputs)
    return tuple(_result(card, {name: tensor[i] for name, tensor in rows.items()}) for i in range(len(chips)))


def _checked(card: Card, outputs: Tensors) -> _Row:
    """The outputs as float64; one that is no number, or does not fit the card's classes, is a broken model's."""
    where = f"model {card.name} {card.version}"
    for name, tensor in outputs.items():
        if not np.isfinite(tensor).all():
            raise BadModel(f"{where}: output '{name}' is not finite")
    rows = {name: tensor.astype(np.float64) for name, tensor in outputs.items()}
    if "family" in rows:
        # Behind the families that the card names a graph may keep room for those to come.
        rows["family"] = rows["family"][:, : len(card.classes)]
        if rows["family"].shape[1] < len(card.classes):
            raise BadModel(
                f"{where}: output 'family' has shape {outputs['family'].shape}, the card names {len(card.classes)} classes"
            )
    return rows


def _result(card: Card, row: _Row) -> Classified:
    """What one face's outputs say; what the card does not say how to read stays unset."""
    probability = card.calibration.probability
    defence = doubt = None
    if card.defence is not None:
        defence = Defence(probability(float(row["plain"])), probability(float(row["blurred"])))
    if card.doubt is not None:
        doubt = card.doubt.doubt(float(row["distance"]))
    generator = _shares(card, row["family"].tolist()) if "family" in row else None
    return Classified(probability(float(row["synthetic"])), generator, defence, doubt)


def _shares(card: Card, logits: list[float]) -> dict[str, float]:
    """Which family, given that the face is synthetic; with an open set `unknown` is one."""
    names = card.classes
    if card.open_set is not None:
        names, logits = (*names, UNKNOWN), card.open_set.logits(logits)
    return {name: round(share, 4) for name, share in zip(names, softmax(logits), strict=True)}
