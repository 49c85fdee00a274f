"""The pure step `classify`: calibrated p(synthetic) and generator family of each face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card, Release
from unmask.core.domain import Classified, FaceRow
from unmask.core.errors import BadModel
from unmask.core.images import Chip, Pixels, chips_of, cut
from unmask.core.ports import ModelServer


def classify(picture: Pixels, faces: tuple[FaceRow, ...], release: Release, models: ModelServer) -> tuple[Classified, ...]:
    """One result a face; all faces of the picture, (H, W, 3) uint8 RGB, are one batch."""
    return classify_chips(chips_of(picture, faces), release, models)


def classify_chips(chips: Sequence[Chip], release: Release, models: ModelServer) -> tuple[Classified, ...]:
    """One result a chip; all chips are one batch."""
    if not chips:
        return ()
    ref = release.model("detector")
    card = models.card(ref)
    view = card.view
    if view is None:
        raise BadModel(f"model {card.name} {card.version}: a detector's card must state a view, not 'canvas'")
    outputs = models.infer(ref, {card.input.name: np.stack([cut(chip, view) for chip in chips])})
    synthetic = outputs["synthetic"].astype(np.float64)
    family = outputs["family"].astype(np.float64) if "family" in outputs else None
    return tuple(_result(card, float(logit), None if family is None else family[i]) for i, logit in enumerate(synthetic))


def _result(card: Card, logit: float, family: NDArray[np.float64] | None) -> Classified:
    """Doubt and defence stay unset: this detector's graph gives neither."""
    if not np.isfinite(logit):
        raise BadModel(f"model {card.name} {card.version}: output 'synthetic' is not finite")
    generator = None if family is None else _shares(card, family)
    return Classified(synthetic=card.calibration.probability(logit), generator=generator)


def _shares(card: Card, logits: NDArray[np.float64]) -> dict[str, float]:
    """Softmax over the families that the card names: which family, given that the face is synthetic."""
    exponents = np.exp(logits - logits.max())
    shares = exponents / exponents.sum()
    return {name: round(float(share), 4) for name, share in zip(card.classes, shares, strict=True)}
