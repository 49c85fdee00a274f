"""Masks to polygons and back, heads to regions, places to names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core.masks import (
    assemble,
    decode_heat,
    decode_regions,
    face_score,
    polygons_of,
    region_name,
    regions_of,
    shown_regions,
)

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


def warm(*boxes: tuple[int, int, int, int], heat: float = 0.9) -> np.ndarray:
    """A heat map at half the view's side with hot rectangles x0 y0 x1 y1 in its own pixels."""
    values = np.full((SIZE // 2, SIZE // 2), 0.05, dtype=np.float32)
    for x0, y0, x1, y1 in boxes:
        values[y0:y1, x0:x1] = heat
    return values


def test_heat_gives_a_region_for_each_connected_area_best_first() -> None:
    heat = np.maximum(warm((10, 10, 30, 30)), warm((60, 60, 100, 80), heat=0.7))
    first, second = decode_heat(heat, 0.8, SIZE, 0.1)
    assert first.score > second.score and first.score == pytest.approx(0.8 * 0.9, abs=0.05)
    assert first.area == pytest.approx(40 * 40, rel=0.1) and second.area == pytest.approx(80 * 40, rel=0.1)
    np.testing.assert_allclose(second.polygon.mean(axis=0), [160, 140], atol=3)


def test_heat_without_a_hot_pixel_or_on_a_face_that_looks_untouched_gives_nothing() -> None:
    assert decode_heat(warm(), 0.9, SIZE, 0.0) == []
    assert decode_heat(warm((10, 10, 30, 30)), 0.1, SIZE, 0.5) == []


def test_full_heat_covers_the_view_and_regions_at_the_border_stay_in_it() -> None:
    (everything,) = decode_heat(np.ones((SIZE // 2, SIZE // 2)), 1.0, SIZE, 0.5)
    assert everything.area == pytest.approx(SIZE * SIZE, rel=0.02)
    (corner,) = decode_heat(warm((0, 0, 20, 16)), 1.0, SIZE, 0.5)
    assert corner.polygon.min() >= -0.5 and corner.area == pytest.approx(40 * 32, rel=0.1)


def test_areas_that_touch_are_one_region() -> None:
    assert len(decode_heat(warm((10, 10, 40, 40), (40, 40, 60, 60)), 1.0, SIZE, 0.5)) == 1


def test_the_outputs_decide_how_they_are_read() -> None:
    candidates = {"predictions": heads([([60.0, 60.0, 40.0, 40.0], 0.9, [1.0, 0.0])]), "prototypes": prototypes()}
    assert face_score(candidates) == pytest.approx(0.9) and len(regions_of(candidates, SIZE)) == 1
    hot = {"heat": warm((10, 10, 30, 30)), "score": np.float32(0.7)}
    assert face_score(hot) == pytest.approx(0.7) and len(regions_of(hot, SIZE)) == 1
    assert (
        len(regions_of(hot, SIZE, heat_level=0.01, score_threshold=0.0)) == 1 and regions_of(hot, SIZE, heat_level=0.95) == []
    )


def test_nothing_is_drawn_on_a_face_below_the_threshold_of_faces() -> None:
    hot = {"heat": warm((10, 10, 30, 30)), "score": np.float32(0.7)}
    at = {"region_score": 0.35, "heat_level": 0.35}
    assert len(shown_regions(hot, SIZE, at)) == len(shown_regions(hot, SIZE, at | {"face_score": 0.69})) == 1
    assert shown_regions(hot, SIZE, at | {"face_score": 0.71}) == shown_regions(hot, SIZE, at | {"heat_level": 0.95}) == []


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
