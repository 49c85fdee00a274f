"""Deliveries and ways to cut: pixels change as told, and the matrices know where everything went."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Border, Chip, Pixels, View, ViewContract, cut
from unmask_training.measuring.tiers import CLEAN, PREPROCESS, TIERS, Tier, view_of

WEB, HARD = TIERS[1:]
SPOT = np.array([[70.0, 44.0]])


def spotted(width: int = 120, height: int = 80) -> Chip:
    """A dark chip with a bright round spot about `SPOT`."""
    y, x = np.mgrid[:height, :width]
    light = 220.0 * np.exp(-((x - SPOT[0, 0]) ** 2 + (y - SPOT[0, 1]) ** 2) / (2 * 5.0**2))
    pixels = np.repeat((light + 10.0)[..., None], 3, axis=2).round().astype(np.uint8)
    angle = np.deg2rad(8.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), -12.0], [np.sin(angle), np.cos(angle), -9.0]]) / 60.0
    return Chip(pixels, geometry.scaling(0.5, (-3.0, 4.0)), turn)


def spot(pixels: Pixels) -> Floats:
    """The spot's centre (1, 2) as seen in pixels."""
    light = np.clip(pixels[..., 1].astype(np.float64) - 60.0, 0.0, None)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([[(light * x).sum(), (light * y).sum()]]) / light.sum()


def test_the_tiers_are_those_of_the_issue() -> None:
    assert [(t.name, t.resize, t.jpeg) for t in TIERS[1:]] == [("web", (0.6, 1.0), (60, 90)), ("hard", (0.35, 0.6), (30, 50))]
    chip = spotted()
    assert CLEAN.deliver(chip, "a.jpg") is chip


@pytest.mark.parametrize("tier", [WEB, HARD])
def test_a_delivery_keeps_geometry_exact(tier: Tier) -> None:
    chip = spotted()
    for path in ("a.jpg", "b.jpg", "c.jpg"):
        sent = tier.deliver(chip, path)
        factor = sent.pixels.shape[1] / chip.pixels.shape[1]
        assert tier.resize is not None and tier.resize[0] - 0.02 <= factor <= tier.resize[1] + 0.02
        there = geometry.apply(sent.to_unit, spot(sent.pixels))
        np.testing.assert_allclose(there, geometry.apply(chip.to_unit, spot(chip.pixels)), atol=0.004)
        # From the picture to the unit square nothing changed.
        for point in (np.array([[0.0, 0.0]]), np.array([[90.0, 31.0]])):
            ways = [geometry.apply(c.to_unit, geometry.apply(c.to_chip, point)) for c in (chip, sent)]
            np.testing.assert_allclose(*ways, atol=1e-9)


def test_a_delivery_is_drawn_from_the_path_alone() -> None:
    chip = spotted()
    again = [HARD.deliver(chip, path).pixels for path in ("x/1.jpg", "x/1.jpg", "x/2.jpg")]
    np.testing.assert_array_equal(again[0], again[1])
    assert again[0].shape != again[2].shape or (again[0] != again[2]).any()
    sides = [HARD.deliver(chip, f"{i}.jpg").pixels.shape[1] / 120 for i in range(150)]
    assert 0.35 <= min(sides) < 0.38 and 0.57 < max(sides) <= 0.6


def test_a_delivery_goes_through_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    chip = Chip(noise, np.eye(2, 3), np.eye(2, 3) / 64)
    gaps = []
    for quality in (90, 30):
        sent = Tier("t", (1.0, 1.0), (quality, quality)).deliver(chip, "a")
        gaps.append(float(np.abs(sent.pixels.astype(int) - noise).mean()))
    assert 0.0 < gaps[0] < gaps[1]
    tiny = Tier("t", (0.35, 0.35), (30, 30)).deliver(Chip(noise[:9, :9], np.eye(2, 3), np.eye(2, 3)), "a")
    assert tiny.pixels.shape == (8, 8, 3)


@pytest.mark.parametrize("size", [48, 160])
@pytest.mark.parametrize("preprocess", PREPROCESS)
def test_the_map_of_a_view_says_where_things_are(preprocess: str, size: int) -> None:
    chip = spotted()
    contract = ViewContract(View.ALIGNED, size, 1.6, Border.BLACK)
    view, matrix = view_of(chip, contract, preprocess)
    assert view.shape == (size, size, 3) and view.dtype == np.uint8
    np.testing.assert_allclose(spot(view), geometry.apply(matrix, SPOT), atol=0.35)


def test_crop_is_the_view_that_is_served() -> None:
    for kind in View:
        contract = ViewContract(kind, 64, 1.2)
        np.testing.assert_array_equal(view_of(spotted(), contract)[0], cut(spotted(), contract))


def test_resize_squeezes_and_pad_keeps_the_shape() -> None:
    chip, contract = spotted(120, 80), ViewContract(View.ALIGNED, 60, 1.0, Border.BLACK)
    squeezed, matrix = view_of(chip, contract, "resize")
    assert (matrix[0, 0], matrix[1, 1]) == (0.5, 0.75)
    np.testing.assert_array_equal(squeezed, cv2.resize(chip.pixels, (60, 60), interpolation=cv2.INTER_AREA))
    padded, matrix = view_of(chip, contract, "pad")
    assert matrix[0, 0] == matrix[1, 1] == 0.5
    # 120 x 80 becomes 60 x 40: ten rows of the border above and below.
    assert not padded[:9].any() and not padded[-9:].any() and (padded[11:-11] > 0).all()


def test_an_unknown_way_to_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="preprocess 'zoom' is unknown; there are crop, resize, pad"):
        view_of(spotted(), ViewContract(View.ALIGNED, 60, 1.0), "zoom")
