"""The draw: repeatable, blind to the class, safe for any chip; wrong ranges are refused by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from tests.training.drawn_faces import REALS, prepared, recipe
from unmask.core import geometry
from unmask.core.images import Chip
from unmask_training.data.augment import Ranges, draw, draw_face, jpeg, own_face
from unmask_training.data.chips import Chips
from unmask_training.detector.batches import Batches
from unmask_training.detector.recipe import Recipe


def chip(side: int, face: float) -> Chip:
    """Noise about a face of `face` pixels in the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    shift = 0.5 - (side - 1) / 2.0 / face
    return Chip(pixels, np.eye(2, 3), geometry.scaling(1.0 / face, (shift, shift)))


def test_a_draw_repeats_with_its_seed_and_leaves_the_chip_alone() -> None:
    source = chip(240, 160.0)
    before = source.pixels.copy()
    views = [draw(source, 100.0, 64, Ranges(), np.random.default_rng(seed)) for seed in (*range(40), *range(40))]
    for (one, framed), (other, same) in zip(views[:40], views[40:], strict=True):
        np.testing.assert_array_equal(one, other)
        assert framed == same and one.shape == (64, 64, 3) and one.dtype == np.float32
        assert one.min() >= 0.0 and one.max() <= 255.0
    np.testing.assert_array_equal(source.pixels, before)
    assert len({framed.margin for _, framed in views}) == 40


def test_a_batch_repeats_and_another_step_is_another_batch(tmp_path: Path) -> None:
    batches = Batches(Chips(prepared(tmp_path)), Recipe.of(recipe()))
    again = Batches(Chips(tmp_path), Recipe.of(recipe()))
    for one, other in zip(batches.draw(3), again.draw(3), strict=True):
        assert one.equal(other)
    assert not batches.draw(3)[0].equal(batches.draw(4)[0])
    pixels, truth, family = batches.draw(0)
    assert tuple(pixels.shape) == (8, 3, 32, 32) and truth.tolist() == [0.0, 1.0] * 4
    assert all((number >= 0) == bool(fake) for number, fake in zip(family.tolist(), truth.tolist(), strict=True))


def test_no_draw_is_told_the_class() -> None:
    # A chip holds pixels and two matrices: no label, kind or path can reach what is drawn.
    assert list(inspect.signature(draw).parameters) == ["chip", "face", "size", "ranges", "rng"]
    assert list(inspect.signature(draw_face).parameters) == ["ranges", "rng"]
    assert set(Chip.__slots__) == {"pixels", "to_chip", "to_unit"}


def test_only_training_pictures_that_are_large_enough_are_drawn(tmp_path: Path) -> None:
    batches = Batches(Chips(prepared(tmp_path, each=60)), Recipe.of(recipe()))
    rng = np.random.default_rng(0)
    rows = [batches.pick(bool(i % 2), 40.0, rng) for i in range(200)]
    assert {row.part for row in rows} == {"fit"} and {row.label for row in rows[::2]} == {"real"}
    assert {row.kind for row in rows[::2]} == set(REALS) and all(own_face(row.to_unit) >= 40.0 for row in rows)


def test_a_face_size_that_nobody_has_takes_the_largest(tmp_path: Path) -> None:
    batches = Batches(Chips(prepared(tmp_path)), Recipe.of(recipe()))
    assert batches.pick(True, 1000.0, np.random.default_rng(0)).label == "synthetic"


def test_a_tiny_chip_can_be_drawn() -> None:
    for seed in range(60):
        view, framed = draw(chip(9, 6.0), 100.0, 64, Ranges(), np.random.default_rng(seed))
        assert np.isfinite(view).all() and 0.0 <= framed.outside <= 1.0


def test_jpeg_loses_more_at_a_lower_quality() -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    losses = [np.abs(jpeg(smooth, quality).astype(int) - smooth).mean() for quality in (95, 70, 30)]
    assert losses[0] < losses[1] < losses[2] < 20


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"marign": [0.9, 1.1]}, "unknown marign"),
        ({"p_native": 0.25}, "unknown p_native"),
        ({"face": [70.0]}, "face"),
        ({"face": 70.0}, "face"),
        ({"face": [185.0, 70.0]}, "face"),
        ({"face": [0.0, 70.0]}, "face"),
        ({"p_blur": 1.5}, "p_blur"),
        ({"p_blur": "often"}, "p_blur"),
        ({"p_blur": None}, "p_blur"),
        ({"turn": -1.0}, "turn"),
        ({"noise": [1.0, float("inf")]}, "noise"),
    ],
)
def test_wrong_ranges_are_refused_by_name(told: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ranges.of(told)


def test_ranges_are_read() -> None:
    ranges = Ranges.of({"face": [60, 90], "p_blur": 0.5, "jpeg": [50, 60]})
    assert (ranges.face, ranges.p_blur, ranges.jpeg, ranges.noise) == ((60, 90), 0.5, (50, 60), Ranges().noise)
