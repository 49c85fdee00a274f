"""Planar geometry against hand-made answers and its own inverses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core import geometry

finite = st.floats(-500.0, 500.0)


@given(angle=st.floats(-math.pi, math.pi), scale=st.floats(0.05, 20.0), dx=finite, dy=finite)
def test_similarity_recovers_the_transform_that_made_the_points(angle: float, scale: float, dx: float, dy: float) -> None:
    source = np.array([[0.0, 0.0], [10.0, 1.0], [4.0, 9.0], [-3.0, 5.0], [7.0, -6.0]])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    truth = np.column_stack([turn, [dx, dy]])
    found = geometry.similarity(source, geometry.apply(truth, source))
    np.testing.assert_allclose(found, truth, atol=1e-6 * max(1.0, scale, abs(dx), abs(dy)))
    assert geometry.scale_of(found) == pytest.approx(scale, rel=1e-6)


def test_similarity_never_reflects() -> None:
    source = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mirrored = source * [-1.0, 1.0]
    assert np.linalg.det(geometry.similarity(source, mirrored)[:, :2]) >= 0.0


def test_similarity_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        geometry.similarity(np.zeros((5, 2)), np.ones((5, 2)))


@given(st.floats(0.1, 9.0), finite, finite)
def test_invert_and_compose_give_the_identity(factor: float, dx: float, dy: float) -> None:
    matrix = geometry.compose(np.array([[0.6, -0.8, 3.0], [0.8, 0.6, -2.0]]), geometry.scaling(factor, (dx, dy)))
    np.testing.assert_allclose(geometry.compose(geometry.invert(matrix), matrix), geometry.scaling(1.0), atol=1e-7)


def test_iou_and_suppression_by_hand() -> None:
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [0.0, 5.0, 10.0, 15.0], [20.0, 20.0, 30.0, 30.0], [0.0, 0.5, 10.0, 10.0]])
    np.testing.assert_allclose(geometry.iou(boxes[0], boxes), [1.0, 1.0 / 3.0, 0.0, 0.95])
    scores = np.array([0.8, 0.7, 0.6, 0.9])
    assert geometry.non_maximum_suppression(boxes, scores, 0.4) == [3, 1, 2]
    assert geometry.non_maximum_suppression(boxes, scores, 0.2) == [3, 2]
    assert geometry.non_maximum_suppression(boxes[:0], scores[:0], 0.4) == []
