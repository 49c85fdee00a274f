"""Masks to polygons and back, heads to regions, places to names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core.masks import assemble, decode_regions, polygons_of, region_name

SIZE = 256


def fill(polygon: np.ndarray) -> np.ndarray:
    """The mask that a polygon covers, drawn with sub-pixel corners."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 256).astype(np.int32)], 255, shift=8)
    return mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float(((one > 0) & (other > 0)).sum() / max(((one > 0) | (other > 0)).sum(), 1))


@settings(max_examples=60, deadline=None)
@given(x=st.integers(40, 215), y=st.integers(40, 215), a=st.integers(12, 60), b=st.integers(12, 60), turn=st.integers(0, 179))
def test_mask_to_polygon_to_mask_agrees(x: int, y: int, a: int, b: int, turn: int) -> None:
    mask = cv2.ellipse(np.zeros((SIZE, SIZE), np.uint8), (x, y), (a, b), turn, 0, 360, 255, -1)
    ((polygon, area),) = polygons_of(mask)
    assert overlap(fill(polygon), mask) >= 0.94 if min(a, b) < 20 else overlap(fill(polygon), mask) >= 0.97
    assert area == pytest.approx((mask > 0).sum(), rel=0.06)


def test_empty_full_speck_and_two_parts() -> None:
    empty = np.zeros((SIZE, SIZE), np.uint8)
    assert polygons_of(empty) == []
    ((polygon, _),) = polygons_of(np.full_like(empty, 255))
    assert overlap(fill(polygon), np.full_like(empty, 255)) >= 0.99
    speck = empty.copy()
    speck[10, 10] = 255
    assert polygons_of(speck) == []
    parts = empty.copy()
    parts[20:60, 20:60] = 255
    parts[100:200, 100:200] = 255
    (big, _), (small, _) = polygons_of(parts)
    assert big.mean() > 100 > small.mean()


def heads(rows: list[tuple[list[float], float, list[float]]]) -> np.ndarray:
    """Predictions (4 + 1 + 2, P)."""
    return np.array([[*box, score, *coefficients] for box, score, coefficients in rows], dtype=np.float32).T


def prototypes() -> np.ndarray:
    """Two prototypes of a 64 x 64 grid: one positive everywhere, one positive on the left half only."""
    left = np.where(np.arange(64) < 32, 1.0, -1.0)[None, :].repeat(64, axis=0)
    return np.stack([np.ones((64, 64)), left]).astype(np.float32)


def test_assembled_masks_are_cropped_to_their_box() -> None:
    mask = assemble(np.array([0.0, 1.0]), prototypes(), np.array([100.0, 50.0, 200.0, 90.0]), SIZE)
    ys, xs = np.nonzero(mask)
    assert (xs.min(), ys.min(), ys.max()) == (100, 50, 89) and 126 <= xs.max() <= 129


def test_decode_keeps_the_better_of_two_overlapping_and_drops_the_weak() -> None:
    predictions = heads(
        [
            ([60.0, 60.0, 40.0, 40.0], 0.9, [1.0, 0.0]),
            ([62.0, 61.0, 40.0, 40.0], 0.8, [1.0, 0.0]),
            ([180.0, 180.0, 60.0, 30.0], 0.7, [1.0, 0.0]),
            ([120.0, 20.0, 30.0, 30.0], 0.2, [1.0, 0.0]),
        ]
    )
    first, second = decode_regions(predictions, prototypes(), SIZE, score_threshold=0.5)
    assert (first.score, second.score) == (pytest.approx(0.9), pytest.approx(0.7))
    assert first.area == pytest.approx(1600, rel=0.05) and second.area == pytest.approx(1800, rel=0.05)
    np.testing.assert_allclose(first.polygon.min(axis=0), [40, 40], atol=1)
    assert decode_regions(predictions[:, :0], prototypes(), SIZE) == []


def test_a_region_at_the_border_stays_in_the_view() -> None:
    (region,) = decode_regions(heads([([5.0, 128.0, 60.0, 40.0], 0.9, [1.0, 0.0])]), prototypes(), SIZE)
    assert region.polygon.min() >= -0.5 and region.polygon.max() <= SIZE - 0.5


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((0.22, 0.40, 0.46, 0.52), "right eye"),
        ((0.55, 0.40, 0.78, 0.52), "left eye"),
        ((0.18, 0.37, 0.82, 0.56), "eyes"),
        ((0.33, 0.75, 0.67, 0.90), "mouth"),
        ((0.40, 0.42, 0.60, 0.74), "nose"),
        ((0.08, 0.16, 0.92, 1.04), "inner face"),
        ((2.0, 2.0, 2.1, 2.1), "beside the face"),
    ],
)
def test_regions_are_named_by_their_place(box: tuple[float, float, float, float], name: str) -> None:
    x0, y0, x1, y1 = box
    assert region_name(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])) == name
