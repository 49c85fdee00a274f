"""The pure step `localize`: manipulated regions as polygons in picture pixels, and p(manipulated)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.cards import Card, Release, logit_of
from unmask.core.domain import Box, Classified, FaceRow, Localized, Region
from unmask.core.errors import BadModel
from unmask.core.images import Chip, Pixels, ViewContract, chips_of, cut, view_transform
from unmask.core.masks import ViewRegion, decode_regions, region_name
from unmask.core.ports import ModelServer

_SKIPPED = Localized(manipulated=None)


def localize(
    picture: Pixels,
    faces: tuple[FaceRow, ...],
    classified: tuple[Classified, ...],
    release: Release,
    models: ModelServer,
) -> tuple[Localized, ...]:
    """One result a face; faces that are plainly wholly synthetic are skipped, the others are one batch."""
    limit = release.thresholds.plainly_synthetic
    open_faces = [i for i, found in enumerate(classified) if found.synthetic is None or found.synthetic < limit]
    chosen = [faces[i] for i in open_faces]
    results = localize_chips(chips_of(picture, chosen), [face.box for face in chosen], release, models)
    by_face = dict(zip(open_faces, results, strict=True))
    return tuple(by_face.get(i, _SKIPPED) for i in range(len(faces)))


def localize_chips(chips: Sequence[Chip], boxes: Sequence[Box], release: Release, models: ModelServer) -> tuple[Localized, ...]:
    """One result a chip and the box of its face in picture pixels; all chips are one batch and none is skipped."""
    if not chips:
        return ()
    ref = release.model("localizer")
    card = models.card(ref)
    view = card.view
    if view is None:
        raise BadModel(f"model {card.name} {card.version}: a localizer's card must state a view, not 'canvas'")
    outputs = models.infer(ref, {card.input.name: np.stack([cut(chip, view) for chip in chips])})
    predictions, prototypes = outputs["predictions"].astype(np.float64), outputs["prototypes"].astype(np.float64)
    rows = zip(predictions, prototypes, chips, boxes, strict=True)
    return tuple(_result((first, second), card, view, chip, box) for first, second, chip, box in rows)


def _result(
    heads: tuple[NDArray[np.float64], NDArray[np.float64]], card: Card, view: ViewContract, chip: Chip, box: Box
) -> Localized:
    predictions, prototypes = heads
    # The face's score is the best confidence of all candidates, drawn as a region or not (the card's calibration).
    best = float(np.clip(predictions[4].max(), 1e-4, 1.0 - 1e-4))
    threshold = card.thresholds.get("region_score", 0.5)
    regions = decode_regions(predictions, prototypes, view.size, score_threshold=threshold)
    to_view = view_transform(chip, view)
    placed = tuple(_placed(region, card, chip, to_view, box) for region in regions)
    return Localized(card.calibration.probability(logit_of(best)), placed)


def _placed(region: ViewRegion, card: Card, chip: Chip, to_view: geometry.Floats, box: Box) -> Region:
    """A region in picture pixels, with its name and its share of the face box."""
    to_chip = geometry.apply(geometry.invert(to_view), region.polygon)
    in_picture = geometry.apply(geometry.invert(chip.to_chip), to_chip)
    x0, y0, x1, y1 = box
    view_pixel = 1.0 / abs(np.linalg.det(geometry.compose(to_view, chip.to_chip)[:, :2]))
    share = region.area * view_pixel / max((x1 - x0) * (y1 - y0), 1.0)
    return Region(
        polygon=tuple((round(float(x), 2), round(float(y), 2)) for x, y in in_picture),
        score=round(card.calibration.probability(logit_of(region.score)), 4),
        name=region_name(geometry.apply(chip.to_unit, to_chip)),
        area=round(min(float(share), 1.0), 4),
    )
