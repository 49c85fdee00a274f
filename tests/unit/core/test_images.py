"""Chips and views: exact places, never upsampled chips, borders as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.core import geometry
from unmask.core.images import (
    CHIP_LONG_SIDE,
    TEMPLATE,
    Border,
    View,
    ViewContract,
    cut,
    make_chip,
    unit_transform,
    view_transform,
)


def ramp(width: int, height: int) -> np.ndarray:
    """A smooth picture whose red and green tell the place of a pixel."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 128)], axis=2).round().astype(np.uint8)


def face(centre: tuple[float, float], side: float, degrees: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Box and landmarks of a template face of that size, turned about its centre."""
    angle = np.deg2rad(degrees)
    turn = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    marks = (TEMPLATE - 0.5) @ turn.T + centre
    half = 0.48 * side
    return np.array([centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half]), marks


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(40, 1960),
    y=st.floats(40, 1460),
    side=st.floats(20, 1500),
    turn=st.floats(-180, 180),
    size=st.sampled_from([96, 192]),
)
def test_view_pixels_map_back_to_the_picture_within_a_pixel(x: float, y: float, side: float, turn: float, size: int) -> None:
    picture = ramp(2000, 1500)
    box, marks = face((x, y), side, turn)
    chip = make_chip(picture, box, marks)
    contract = ViewContract(View.ALIGNED, size, 1.2, Border.BLACK)
    to_view = geometry.compose(view_transform(chip, contract), chip.to_chip)
    expected = geometry.apply(to_view, marks)
    centre, scale = (size - 1) / 2.0, size / 1.2
    np.testing.assert_allclose(expected, (TEMPLATE - 0.5) * scale + centre, atol=1e-6 * size + 1e-6)


def test_colours_land_where_the_transform_says() -> None:
    picture = ramp(800, 600)
    box, marks = face((400.0, 300.0), 200.0, 20.0)
    chip = make_chip(picture, box, marks)
    contract = ViewContract(View.ALIGNED, 128, 1.0)
    view = cut(chip, contract)
    back = geometry.invert(geometry.compose(view_transform(chip, contract), chip.to_chip))
    for u, v in [(10, 10), (64, 64), (120, 30), (5, 100)]:
        px, py = geometry.apply(back, np.array([[float(u), float(v)]]))[0]
        assert abs(float(view[v, u, 0]) - px / 799 * 255) <= 1.5
        assert abs(float(view[v, u, 1]) - py / 599 * 255) <= 1.5


def test_chip_keeps_source_pixels_and_clips_to_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    box, marks = face((30.0, 40.0), 100.0)
    chip = make_chip(picture, box, marks)
    height, width = chip.pixels.shape[:2]
    np.testing.assert_array_equal(chip.pixels, picture[:height, :width])
    np.testing.assert_allclose(chip.to_chip, geometry.scaling(1.0))


def test_chip_of_a_large_face_shrinks_to_the_long_side_and_small_ones_never_grow() -> None:
    picture = ramp(3000, 3000)
    assert max(make_chip(picture, *face((1500.0, 1500.0), 1200.0)).pixels.shape) == CHIP_LONG_SIDE
    assert max(make_chip(picture, *face((1500.0, 1500.0), 50.0)).pixels.shape) < 120


def test_native_view_shows_source_pixels_untouched() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    chip = make_chip(picture, *face((250.0, 250.0), 180.0, 15.0))
    view = cut(chip, ViewContract(View.NATIVE, 96, 1.0))
    assert any(np.array_equal(view, picture[y : y + 96, x : x + 96]) for y in range(195, 210) for x in range(195, 210))


@pytest.mark.parametrize("border", list(Border))
def test_border_fill_is_the_stated_one(border: Border) -> None:
    picture = np.full((200, 200, 3), 200, dtype=np.uint8)
    chip = make_chip(picture, *face((5.0, 100.0), 120.0))
    corner = cut(chip, ViewContract(View.ALIGNED, 64, 1.4, border))[32, 0]
    assert tuple(corner) == ((0, 0, 0) if border is Border.BLACK else (200, 200, 200))


def test_collapsed_landmarks_fall_back_to_the_box() -> None:
    box = np.array([100.0, 100.0, 196.0, 196.0])
    profile = np.array([[150.0, 140.0], [152.0, 140.0], [155.0, 150.0], [150.0, 160.0], [152.0, 160.0]])
    matrix = unit_transform(box, profile)
    assert geometry.scale_of(matrix) == pytest.approx(0.96 / 96.0)
    np.testing.assert_allclose(unit_transform(box, np.zeros((5, 2))), matrix)
