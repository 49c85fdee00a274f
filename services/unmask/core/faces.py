"""RetinaFace without its framework: letterbox, prior decode, NMS and the passes over one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Pixels

Heads = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
# A batch of canvases (N, S, S, 3) uint8 RGB -> loc (N, P, 4), conf (N, P, 2), landmarks (N, P, 10).
Infer = Callable[[Pixels], Heads]

# Source: Deng et al., RetinaFace, CVPR 2020; the mobilenet-0.25 configuration (three strides, two anchors each).
_STRIDES: Final = (8, 16, 32)
_ANCHORS: Final = ((16, 32), (64, 128), (256, 512))
_VARIANCE_CENTRE: Final = 0.1
_VARIANCE_SIZE: Final = 0.2


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """How faces are looked for: canvas sides in pixels, score and NMS thresholds, at most how many faces."""

    size: int = 640
    second_size: int = 1280
    score: float = 0.6
    nms: float = 0.4
    limit: int = 32


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face in picture pixels: box (4,) x0 y0 x1 y1, landmarks (5, 2), confidence of the face detector."""

    box: Floats
    landmarks: Floats
    confidence: float

    @property
    def side(self) -> float:
        """Long side of the box, pixels."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@lru_cache(maxsize=8)
def priors(size: int) -> Floats:
    """Anchor boxes of a square canvas: (P, 4) centre x, centre y, width, height in pixels."""
    rows: list[Floats] = []
    for stride, anchors in zip(_STRIDES, _ANCHORS, strict=True):
        cells = -(-size // stride)
        axis = (np.arange(cells) + 0.5) * stride
        y, x = np.meshgrid(axis, axis, indexing="ij")
        centres = np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), len(anchors), axis=0)
        sides = np.tile(np.array(anchors, dtype=np.float64), cells * cells)[:, None].repeat(2, axis=1)
        rows.append(np.concatenate([centres, sides], axis=1))
    return np.concatenate(rows)


def letterbox(picture: Pixels, size: int, *, enlarge: bool = False) -> tuple[Pixels, Floats]:
    """Puts a picture in the middle of a grey (size, size, 3) canvas; returns it and the (2, 3) map picture -> canvas.

    Larger pictures shrink (by area to a whole factor, then linearly: area averaging by a broken factor takes six times as
    long and finds no other faces); smaller ones keep their pixels unless `enlarge`.
    """
    height, width = picture.shape[:2]
    factor = size / max(height, width)
    matrix = geometry.scaling(1.0)
    if factor < 1.0:
        picture, matrix = _shrunk(picture, factor)
    elif enlarge and factor > 1.0:
        side = (max(1, round(width * factor)), max(1, round(height * factor)))
        picture = cv2.resize(picture, side, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        matrix = geometry.scaling(factor, ((factor - 1.0) / 2.0, (factor - 1.0) / 2.0))
    height, width = picture.shape[:2]
    left, top = (size - width) // 2, (size - height) // 2
    canvas = np.full((size, size, 3), 114, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = picture
    return canvas, geometry.compose(geometry.scaling(1.0, (float(left), float(top))), matrix)


def _shrunk(picture: Pixels, factor: float) -> tuple[Pixels, Floats]:
    """About `factor` times the picture, and the exact (2, 3) map of coordinates."""
    height, width = picture.shape[:2]
    new_width, new_height = max(1, round(width * factor)), max(1, round(height * factor))
    whole = int(1.0 / factor)
    if whole > 1:
        sides = (max(new_width, width // whole), max(new_height, height // whole))
        picture = cv2.resize(picture, sides, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    small = cv2.resize(picture, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    return small.astype(np.uint8, copy=False), geometry.resizing((width, height), (new_width, new_height))


def decode(heads: Heads, size: int, settings: DetectorSettings) -> list[DetectedFace]:
    """Faces of one canvas from its raw heads (P, 4), (P, 2), (P, 10), best score first, in canvas pixels."""
    loc, conf, marks = (np.asarray(head, dtype=np.float64) for head in heads)
    keep = np.flatnonzero(conf[:, 1] >= settings.score)
    anchors, loc, scores, marks = priors(size)[keep], loc[keep], conf[keep, 1], marks[keep]
    centres = anchors[:, :2] + loc[:, :2] * _VARIANCE_CENTRE * anchors[:, 2:]
    sides = anchors[:, 2:] * np.exp(loc[:, 2:] * _VARIANCE_SIZE)
    boxes = np.concatenate([centres - sides / 2.0, centres + sides / 2.0], axis=1)
    points = anchors[:, None, :2] + marks.reshape(-1, 5, 2) * _VARIANCE_CENTRE * anchors[:, None, 2:]
    kept = geometry.non_maximum_suppression(boxes, scores, settings.nms)
    return [DetectedFace(boxes[i], points[i], float(scores[i])) for i in kept]


def find_faces(picture: Pixels, infer: Infer, settings: DetectorSettings) -> list[DetectedFace]:
    """Faces of a picture, largest first, in its pixels; several passes only while nothing is found.

    `picture` is (H, W, 3) uint8 RGB as displayed.  First the stated canvas, then a larger one, then the picture turned
    by a quarter, a half and three quarters (a photograph whose orientation tag was lost).
    """
    canvas, matrix = letterbox(picture, settings.size)
    faces = _pass([canvas], [matrix], infer, settings, picture)
    if not faces and settings.second_size:
        canvas, matrix = letterbox(picture, settings.second_size, enlarge=True)
        faces = _pass([canvas], [matrix], infer, settings, picture)
    if not faces:
        turned = [_turned(picture, settings.size, quarters) for quarters in (1, 2, 3)]
        faces = _pass([c for c, _ in turned], [m for _, m in turned], infer, settings, picture)
    return sorted(faces, key=lambda face: -face.side)[: settings.limit]


def _turned(picture: Pixels, size: int, quarters: int) -> tuple[Pixels, Floats]:
    """Letterboxed canvas turned counter-clockwise by quarters of a circle, and the map picture -> turned canvas."""
    canvas, matrix = letterbox(picture, size)
    last = size - 1.0
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, last]])
    for _ in range(quarters):
        matrix = geometry.compose(turn, matrix)
    return np.ascontiguousarray(np.rot90(canvas, quarters)), matrix


def _pass(
    canvases: Sequence[Pixels], matrices: Sequence[Floats], infer: Infer, settings: DetectorSettings, picture: Pixels
) -> list[DetectedFace]:
    """One inference over canvases; of several the one with the best face wins."""
    size = canvases[0].shape[0]
    heads = infer(np.stack(canvases))
    best: list[DetectedFace] = []
    for i, matrix in enumerate(matrices):
        found = decode((heads[0][i], heads[1][i], heads[2][i]), size, settings)
        faces = [_to_picture(face, geometry.invert(matrix), picture) for face in found]
        if max((f.confidence for f in faces), default=0.0) > max((f.confidence for f in best), default=0.0):
            best = faces
    return best


def _to_picture(face: DetectedFace, matrix: Floats, picture: Pixels) -> DetectedFace:
    """Maps a face back to the picture; the box is clipped to it, the landmarks are not (a face may be cut off)."""
    x0, y0, x1, y1 = face.box
    corners = geometry.apply(matrix, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    limit = np.array([picture.shape[1], picture.shape[0]], dtype=np.float64)
    box = np.concatenate([np.clip(corners.min(axis=0), 0.0, limit), np.clip(corners.max(axis=0), 0.0, limit)])
    return DetectedFace(box, geometry.apply(matrix, face.landmarks), face.confidence)
