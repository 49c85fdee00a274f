"""Planar geometry: similarity transforms, boxes and non-maximum suppression, in float64 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def similarity(source: Floats, target: Floats) -> Floats:
    """Least-squares similarity (rotation, uniform scale, shift; no reflection) that maps `source` to `target`.

    Both are (N, 2) points, N >= 2; returns a (2, 3) matrix.  Source: Umeyama, TPAMI 13(4), 1991, eqs. 40-42.
    """
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    centred_s, centred_t = source - mean_s, target - mean_t
    variance = float((centred_s**2).sum())
    if variance <= 0.0:
        raise ValueError("similarity: all source points coincide")
    # In the plane the rotation and scale are one complex number: sum(conj(s) * t) / sum(|s|^2).
    real = float((centred_s * centred_t).sum()) / variance
    imag = float((centred_s[:, 0] * centred_t[:, 1] - centred_s[:, 1] * centred_t[:, 0]).sum()) / variance
    linear = np.array([[real, -imag], [imag, real]])
    return np.column_stack([linear, mean_t - linear @ mean_s])


def scale_of(matrix: Floats) -> float:
    """Uniform scale of a (2, 3) similarity: target pixels a source pixel."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def invert(matrix: Floats) -> Floats:
    """Inverse of a (2, 3) affine transform; raises `numpy.linalg.LinAlgError` when it has none."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def compose(outer: Floats, inner: Floats) -> Floats:
    """The (2, 3) transform that applies `inner` first, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def scaling(factor: float, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """The (2, 3) transform x -> factor * x + shift."""
    return np.array([[factor, 0.0, shift[0]], [0.0, factor, shift[1]]])


def resizing(before: tuple[int, int], after: tuple[int, int]) -> Floats:
    """The (2, 3) map of pixel coordinates under a resize from (width, height) `before` to `after`.

    Pixel centres are whole numbers, hence the half-pixel shifts; sides are whole, hence one factor an axis.
    """
    x, y = after[0] / before[0], after[1] / before[1]
    return np.array([[x, 0.0, (x - 1.0) / 2.0], [0.0, y, (y - 1.0) / 2.0]])


def apply(matrix: Floats, points: Floats) -> Floats:
    """Transforms (N, 2) points by a (2, 3) matrix; returns (N, 2)."""
    result: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def iou(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of one (4,) box with (N, 4) boxes, all x0 y0 x1 y1; returns (N,)."""
    left_top = np.maximum(box[:2], boxes[:, :2])
    right_bottom = np.minimum(box[2:], boxes[:, 2:])
    overlap = np.prod(np.clip(right_bottom - left_top, 0.0, None), axis=1)
    area = np.prod(box[2:] - box[:2])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    result: Floats = overlap / np.maximum(area + areas - overlap, 1e-9)
    return result


def non_maximum_suppression(boxes: Floats, scores: Floats, threshold: float) -> list[int]:
    """Indices of the kept boxes, best score first; a box goes when its IoU with a better one exceeds `threshold`."""
    # A stable sort, so that equal scores give the same answer on every run (replay).
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        order = order[iou(boxes[best], boxes[order]) <= threshold]
    return kept
