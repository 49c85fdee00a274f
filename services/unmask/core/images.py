"""Chips and views: the pixels of a face that a model sees, the same in serving and in training."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.domain import FaceRow
from unmask.core.geometry import Floats

Pixels = NDArray[np.uint8]

# Where the five landmarks (subject's right eye, left eye, nose, right and left mouth corner) lie in the unit square at
# margin 1.  Source: the 112 x 112 template of ArcFace (Deng et al., CVPR 2019), divided by 112.
TEMPLATE: Final[Floats] = (
    np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]) / 112.0
)
CHIP_MARGIN: Final = 2.2
CHIP_LONG_SIDE: Final = 640
# How far the landmarks' scale may be from the box's own before the box is trusted instead (profiles collapse the points).
_SCALE_TOLERANCE: Final = 1.6
# The long side of a face box over the side of the template square, the median over 400 portraits (90 % within .78-1.02).
_BOX_PER_TEMPLATE: Final = 0.96


class View(StrEnum):
    """How a model wants its face: warped to the landmark template, or source pixels as they are."""

    ALIGNED = "aligned"
    NATIVE = "native"


class Border(StrEnum):
    """What stands where a view reaches beyond the picture."""

    REFLECT = "reflect"
    REPLICATE = "replicate"
    BLACK = "black"


_CV_BORDER: Final = {
    Border.REFLECT: cv2.BORDER_REFLECT_101,
    Border.REPLICATE: cv2.BORDER_REPLICATE,
    Border.BLACK: cv2.BORDER_CONSTANT,
}


@dataclass(frozen=True, slots=True)
class ViewContract:
    """What a model's card says of its view: kind, side in pixels, margin in template squares, border fill."""

    view: View
    size: int
    margin: float
    border: Border = Border.REFLECT


@dataclass(frozen=True, slots=True)
class Chip:
    """The source pixels around one face, lossless and never upsampled.

    `pixels` is (H, W, 3) uint8 RGB, long side at most `CHIP_LONG_SIDE`; only real source pixels, clipped at the picture's
    edge.  `to_chip` maps picture pixels to chip pixels; `to_unit` maps chip pixels to the unit square of the template.
    """

    pixels: Pixels
    to_chip: Floats
    to_unit: Floats


def unit_transform(box: Floats, landmarks: Floats) -> Floats:
    """(2, 3) similarity from picture pixels to the unit square: by the landmarks, or by the box where they collapse."""
    side = max(box[2] - box[0], box[3] - box[1], 1.0) / _BOX_PER_TEMPLATE
    centre = (box[:2] + box[2:]) / 2.0
    # The box reaches from forehead to chin, so its centre lies below the template's (measured: .58 of the square).
    upright = geometry.scaling(1.0 / side, (0.5 - centre[0] / side, 0.58 - centre[1] / side))
    if float(np.ptp(landmarks, axis=0).max()) < 1e-6:
        return upright
    matrix = geometry.similarity(landmarks, TEMPLATE)
    ratio = geometry.scale_of(matrix) * side
    return matrix if 1.0 / _SCALE_TOLERANCE <= ratio <= _SCALE_TOLERANCE else upright


def make_chip(picture: Pixels, box: Floats, landmarks: Floats) -> Chip:
    """Cuts the chip of a face: a pure function of the picture and the face row.

    `picture` is (H, W, 3) uint8 RGB as displayed, `box` (4,) x0 y0 x1 y1 and `landmarks` (5, 2) in its pixels.
    """
    height, width = picture.shape[:2]
    half = CHIP_MARGIN * max(box[2] - box[0], box[3] - box[1], 1.0) / 2.0
    centre = (box[:2] + box[2:]) / 2.0
    left, top = (max(0, min(math.floor(c - half), limit - 1)) for c, limit in zip(centre, (width, height), strict=True))
    right, bottom = (min(limit, max(math.ceil(c + half), 1)) for c, limit in zip(centre, (width, height), strict=True))
    source = picture[top : max(bottom, top + 1), left : max(right, left + 1)]
    to_chip = geometry.scaling(1.0, (-float(left), -float(top)))
    factor = CHIP_LONG_SIDE / max(source.shape[:2])
    if factor < 1.0:
        source, shrink = shrink_area(source, factor)
        to_chip = geometry.compose(shrink, to_chip)
    unit = geometry.compose(unit_transform(box, landmarks), geometry.invert(to_chip))
    return Chip(np.ascontiguousarray(source), to_chip, unit)


def shrink_area(pixels: Pixels, factor: float) -> tuple[Pixels, Floats]:
    """Shrinks by area averaging to about `factor` (<= 1); returns the pixels and the exact (2, 3) map of coordinates."""
    height, width = pixels.shape[:2]
    new_width, new_height = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False), geometry.resizing((width, height), (new_width, new_height))


def view_transform(chip: Chip, contract: ViewContract) -> Floats:
    """(2, 3) map from chip pixels to the pixels of the model's view; its inverse brings polygons back."""
    unit = chip.to_unit
    if contract.view is View.NATIVE:
        # Source pixels as they are: a whole-pixel shift that puts the face's centre in the middle.
        centre = geometry.apply(geometry.invert(unit), np.array([[0.5, 0.5]]))[0]
        middle = (contract.size - 1) / 2.0
        return geometry.scaling(1.0, (float(round(middle - centre[0])), float(round(middle - centre[1]))))
    scale = contract.size / contract.margin
    shift = contract.size / 2.0 - 0.5 - scale / 2.0
    return geometry.compose(geometry.scaling(scale, (shift, shift)), unit)


def cut(chip: Chip, contract: ViewContract) -> Pixels:
    """The only cutter: a model's view of a chip, (size, size, 3) uint8 RGB, by the card's contract."""
    return warp(chip.pixels, view_transform(chip, contract), contract.size, contract.border)


def warp(pixels: Pixels, matrix: Floats, size: int, border: Border) -> Pixels:
    """Warps (H, W, 3) pixels by a (2, 3) map into a (size, size, 3) square; area filter when shrinking, cubic otherwise."""
    factor = geometry.scale_of(matrix)
    if factor < 1.0:
        pixels, shift = _needed(pixels, matrix, size)
        pixels, shrink = shrink_area(pixels, factor)
        matrix = geometry.compose(matrix, geometry.invert(geometry.compose(shrink, shift)))
    is_shift = bool(np.allclose(matrix, geometry.scaling(1.0, (round(matrix[0, 2]), round(matrix[1, 2]))), atol=1e-9))
    flags = cv2.INTER_NEAREST if is_shift else cv2.INTER_CUBIC
    view = cv2.warpAffine(pixels, matrix, (size, size), flags=flags, borderMode=_CV_BORDER[border])
    return view.astype(np.uint8, copy=False)


def _needed(pixels: Pixels, matrix: Floats, size: int) -> tuple[Pixels, Floats]:
    """The part of the pixels that a (size, size) view by `matrix` looks at, and the map into it: the rest need not shrink.

    Where the view reaches beyond an edge, as much is kept inside it, for the border that reflects there.
    """
    last = size - 0.5
    corners = np.array([[-0.5, -0.5], [last, -0.5], [last, last], [-0.5, last]])
    source = geometry.apply(geometry.invert(matrix), corners)
    # Area averaging and cubic interpolation look a few small pixels further.
    spare = 4.0 / geometry.scale_of(matrix) + 2.0
    low, high = source.min(axis=0) - spare, source.max(axis=0) + spare
    limit = np.array([pixels.shape[1], pixels.shape[0]], dtype=np.float64)
    start = np.minimum(low, limit - np.maximum(high - limit, 0.0) - spare)
    end = np.maximum(high, np.maximum(-low, 0.0) + spare)
    x0, y0 = np.clip(np.floor(start), 0, limit - 1).astype(int)
    x1, y1 = np.clip(np.ceil(end), 1, limit).astype(int)
    return pixels[y0:y1, x0:x1], geometry.scaling(1.0, (-float(x0), -float(y0)))


class _Cut(threading.local):
    """The chips that this thread cut last, while their picture is alive."""

    picture: weakref.ref[Pixels] | None = None
    faces: tuple[FaceRow, ...] = ()
    chips: tuple[Chip, ...] = ()


_cut: Final = _Cut()


def chips_of(picture: Pixels, faces: Sequence[FaceRow]) -> Sequence[Chip]:
    """The chips of stored face rows, in their order.

    The next step of the same picture (read-only, as `DecodedCache` gives it out) is given those of the step before.
    """
    wanted = tuple(faces)
    if picture.flags.writeable or _cut.picture is None or _cut.picture() is not picture or _cut.faces != wanted:
        chips = tuple(make_chip(picture, np.array(face.box), np.array(face.landmarks)) for face in wanted)
        _cut.picture, _cut.faces, _cut.chips = weakref.ref(picture), wanted, chips
    return _cut.chips
