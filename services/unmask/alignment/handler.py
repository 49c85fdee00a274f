"""The pure step `align`: a picture's faces, largest first."""

from __future__ import annotations

import numpy as np

from unmask.core.cards import ModelRef, Release
from unmask.core.domain import Box, FaceRow, Point
from unmask.core.faces import DetectedFace, DetectorSettings, Heads, find_faces
from unmask.core.images import Pixels
from unmask.core.ports import ModelServer


def align(picture: Pixels, release: Release, models: ModelServer, settings: DetectorSettings) -> tuple[FaceRow, ...]:
    """Faces of a picture, (H, W, 3) uint8 RGB as displayed, at most `settings.limit`, in its pixels."""
    ref = release.model("face_detector")
    return tuple(_row(face) for face in find_faces(picture, lambda canvases: _heads(canvases, ref, models), settings))


def _heads(canvases: Pixels, ref: ModelRef, models: ModelServer) -> Heads:
    outputs = models.infer(ref, {models.card(ref).input.name: canvases})
    loc, conf, landmarks = (outputs[name].astype(np.float32, copy=False) for name in ("loc", "conf", "landmarks"))
    return loc, conf, landmarks


def _row(face: DetectedFace) -> FaceRow:
    x0, y0, x1, y1 = (round(float(value), 2) for value in face.box)
    box: Box = (x0, y0, x1, y1)
    points: list[Point] = [(round(float(x), 2), round(float(y), 2)) for x, y in face.landmarks]
    eye_r, eye_l, nose, mouth_r, mouth_l = points
    return FaceRow(box, (eye_r, eye_l, nose, mouth_r, mouth_l), round(face.confidence, 4))
