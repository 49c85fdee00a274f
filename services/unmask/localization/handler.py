"""The pure step `localize`: manipulated regions as polygons in picture pixels, and p(manipulated)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unmask.core import geometry
from unmask.core.cards import Card, Release, logit_of
from unmask.core.domain import Box, Classified, FaceRow, Heat, Localized, Region
from unmask.core.errors import BadModel
from unmask.core.images import Chip, Pixels, ViewContract, chips_of, cut, view_transform
from unmask.core.masks import Heads, ViewRegion, face_score, heat_of, region_name, shown_regions
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


def localize_chips(
    chips: Sequence[Chip], boxes: Sequence[Box], release: Release, models: ModelServer, *, heat: bool = False
) -> tuple[Localized, ...]:
    """One result a chip and the box of its face in picture pixels; all chips are one batch and none is skipped.

    With `heat` each has its heat map.
    """
    if not chips:
        return ()
    ref = release.model("localizer")
    card = models.card(ref)
    view = card.view
    if view is None:
        raise BadModel(f"model {card.name} {card.version}: a localizer's card must state a view, not 'canvas'")
    outputs = models.infer(ref, {card.input.name: np.stack([cut(chip, view) for chip in chips])})
    rows = [{name: tensor[i].astype(np.float64) for name, tensor in outputs.items()} for i in range(len(chips))]
    found = tuple(_result(heads, card, view, chip, box) for heads, chip, box in zip(rows, chips, boxes, strict=True))
    if not heat:
        return found
    return tuple(replace(one, heat=_heat(heads, view, chip)) for one, heads, chip in zip(found, rows, chips, strict=True))


def _result(heads: Heads, card: Card, view: ViewContract, chip: Chip, box: Box) -> Localized:
    # The face's score counts whether or not a region is drawn (the card's calibration).
    best = float(np.clip(face_score(heads), 1e-4, 1.0 - 1e-4))
    regions = shown_regions(heads, view.size, card.thresholds)
    to_view = view_transform(chip, view)
    placed = tuple(_placed(region, card, chip, to_view, box) for region in regions)
    return Localized(card.calibration.probability(logit_of(best)), placed)


def _heat(heads: Heads, view: ViewContract, chip: Chip) -> Heat:
    values = heat_of(heads)
    height, width = values.shape
    to_view = geometry.resizing((width, height), (view.size, view.size))
    to_chip = geometry.compose(geometry.invert(view_transform(chip, view)), to_view)
    a, b, c, d, e, f = geometry.compose(geometry.invert(chip.to_chip), to_chip).ravel().tolist()
    return Heat(width, height, np.rint(values * 255.0).astype(np.uint8).tobytes(), (a, b, c, d, e, f))


def _placed(region: ViewRegion, card: Card, chip: Chip, to_view: geometry.Floats, box: Box) -> Region:
    """A region in picture pixels, with its name and its share of the face box."""
    to_chip = geometry.apply(geometry.invert(to_view), region.polygon)
    in_picture = geometry.apply(geometry.invert(chip.to_chip), to_chip)
    x0, y0, x1, y1 = box
    view_pixel = 1.0 / abs(np.linalg.det(geometry.compose(to_view, chip.to_chip)[:, :2]))
    share = region.area * view_pixel / max((x1 - x0) * (y1 - y0), 1.0)
    return Region(
        polygon=tuple((round(float(x), 2), round(float(y), 2)) for x, y in in_picture),
        score=round(card.calibration.probability(logit_of(float(np.clip(region.score, 1e-4, 1.0 - 1e-4)))), 4),
        name=region_name(geometry.apply(chip.to_unit, to_chip)),
        area=round(min(float(share), 1.0), 4),
    )
