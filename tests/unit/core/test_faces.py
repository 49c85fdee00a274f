"""Prior decode and the passes over a picture, with heads made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.core import geometry
from unmask.core.faces import DetectorSettings, Heads, decode, find_faces, letterbox, priors

SETTINGS = DetectorSettings(size=64, second_size=128)


def empty(size: int, batch: int = 1) -> Heads:
    """Heads that see nothing."""
    count = len(priors(size))
    conf = np.tile(np.array([1.0, 0.0], dtype=np.float32), (batch, count, 1))
    return np.zeros((batch, count, 4), np.float32), conf, np.zeros((batch, count, 10), np.float32)


def test_priors_cover_the_canvas_in_the_order_of_the_heads() -> None:
    # 8x8 cells at stride 8, 4x4 at 16, 2x2 at 32, two anchors each; RetinaFace at 640 has 16 800.
    assert priors(64).shape == (2 * (64 + 16 + 4), 4)
    assert priors(640).shape == (16_800, 4)
    np.testing.assert_allclose(priors(64)[:3], [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16]])


def test_decode_undoes_the_encoding() -> None:
    loc, conf, marks = empty(64)
    anchor = priors(64)[21]
    conf[0, 21] = [0.1, 0.9]
    loc[0, 21] = [1.0, -1.0, 1.0, 0.0]
    marks[0, 21] = np.arange(10)
    (face,) = decode((loc[0], conf[0], marks[0]), 64, SETTINGS)
    centre = anchor[:2] + 0.1 * anchor[2:] * [1.0, -1.0]
    side = anchor[2:] * np.exp([0.2, 0.0])
    np.testing.assert_allclose(face.box, np.concatenate([centre - side / 2, centre + side / 2]), rtol=1e-6)
    np.testing.assert_allclose(face.landmarks[2], anchor[:2] + 0.1 * anchor[2:] * [4.0, 5.0])


@pytest.mark.parametrize("shape", [(64, 64), (300, 100), (37, 200), (10, 12)])
def test_letterbox_map_is_exact(shape: tuple[int, int]) -> None:
    height, width = shape
    picture = np.zeros((height, width, 3), np.uint8)
    canvas, matrix = letterbox(picture, 64)
    corners = geometry.apply(matrix, np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    filled = np.argwhere((canvas == 0).all(axis=2))
    np.testing.assert_allclose(corners[0][::-1], filled.min(axis=0) - 0.5, atol=1e-9)
    np.testing.assert_allclose(corners[1][::-1], filled.max(axis=0) + 0.5, atol=1e-9)


def test_second_and_turned_passes_run_only_when_nothing_was_found() -> None:
    sizes: list[tuple[int, int]] = []

    def blind(batch: np.ndarray) -> Heads:
        sizes.append((batch.shape[0], batch.shape[1]))
        return empty(batch.shape[1], batch.shape[0])

    assert find_faces(np.zeros((50, 60, 3), np.uint8), blind, SETTINGS) == []
    assert sizes == [(1, 64), (1, 128), (3, 64)]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_found_on_a_turned_canvas_comes_back_to_its_place(quarters: int) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[8:16, 40:48] = 255  # a bright block stands for the face

    def bright_block(batch: np.ndarray) -> Heads:
        loc, conf, marks = empty(batch.shape[1], batch.shape[0])
        if batch.shape[0] == 3:
            spot = np.argwhere(batch[quarters - 1, :, :, 0] == 255).mean(axis=0)[::-1]
            anchor = int(np.argmin(np.abs(priors(64)[:, :2] - spot).sum(axis=1)))
            conf[quarters - 1, anchor] = [0.0, 1.0]
            loc[quarters - 1, anchor, :2] = (spot - priors(64)[anchor, :2]) / 0.1 / priors(64)[anchor, 2:]
            marks[quarters - 1, anchor] = np.tile(loc[quarters - 1, anchor, :2], 5)
        return loc, conf, marks

    (face,) = find_faces(picture, bright_block, SETTINGS)
    np.testing.assert_allclose(face.landmarks[0], [43.5, 11.5], atol=0.01)
    assert face.box[0] < 43.5 < face.box[2] and face.box[1] < 11.5 < face.box[3]
