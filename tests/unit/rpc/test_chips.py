"""Chips over the wire: the same pixels and transforms, and hostile ones refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core.errors import BadImage, BadRequest
from unmask.core.images import CHIP_LONG_SIDE, View, ViewContract, cut, make_chip
from unmask.rpc.chips import MOST_CHIPS, chip_to, chips_from
from unmask.v1 import common_pb2 as pb

BOX = (100.0, 90.0, 260.0, 300.0)
LANDMARKS = np.array([[145.0, 170.0], [215.0, 168.0], [180.0, 215.0], [150.0, 255.0], [212.0, 254.0]])


def message(**changes: Any) -> pb.Chip:
    """A good chip with changes."""
    picture = np.random.default_rng(1).integers(0, 256, (400, 360, 3), dtype=np.uint8)
    chip = chip_to(make_chip(picture, np.array(BOX), LANDMARKS), BOX)
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(chip, name)[:]
            getattr(chip, name).extend(value)
        elif isinstance(value, pb.Box):
            getattr(chip, name).CopyFrom(value)
        else:
            setattr(chip, name, value)
    return chip


@given(st.integers(0, 2**32), st.integers(1, 900), st.integers(1, 900), st.floats(-0.5, 1.2), st.floats(8.0, 1200.0))
def test_every_chip_that_we_cut_comes_back_as_it_was(seed: int, width: int, height: int, place: float, side: float) -> None:
    noise = np.random.default_rng(seed)
    picture = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
    x, y = place * width, place * height
    box = np.clip([x, y, x + side, y + side * 1.2], 0, [width, height, width, height])
    if box[0] >= box[2] or box[1] >= box[3]:
        return  # alignment gives no empty boxes
    marks = box[:2] + noise.random((5, 2)) * (box[2:] - box[:2])
    chip = make_chip(picture, box, marks)
    sent = chip_to(chip, tuple(box.tolist()))
    chips, boxes = chips_from([pb.Chip.FromString(sent.SerializeToString())])
    assert np.array_equal(chips[0].pixels, chip.pixels)
    assert np.array_equal(chips[0].to_chip, chip.to_chip)
    assert np.array_equal(chips[0].to_unit, chip.to_unit)
    assert boxes == [tuple(box.tolist())]


def test_raw_pixels_are_the_same_as_png() -> None:
    sent = message()
    (chip,), _ = chips_from([sent])
    raw = pb.Chip.FromString(sent.SerializeToString())
    raw.rgb = chip.pixels.tobytes()
    (same,), _ = chips_from([raw])
    assert np.array_equal(chip.pixels, same.pixels)
    view = ViewContract(View.ALIGNED, 64, 1.0)
    assert np.array_equal(cut(chip, view), cut(same, view))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 0}, "sides 0 x"),
        ({"width": CHIP_LONG_SIDE + 1}, "each must be 1 to"),
        ({"height": 7}, r"png: .* not"),
        ({"rgb": b"123"}, "3 bytes, not"),
        ({"png": b"GIF89a"}, "neither png nor rgb"),
        ({"to_unit": [1.0] * 5}, "six finite numbers"),
        ({"to_unit": [float("nan")] * 6}, "six finite numbers"),
        ({"to_chip": [0.0] * 6}, "cannot be inverted"),
        ({"to_unit": [1e-3, 0.0, 1e6, 0.0, 1e-3, 0.0]}, "far outside"),
        ({"to_unit": [1e-4, 0.0, 0.0, 0.0, 1e-4, 0.0]}, "far outside"),
        ({"box": pb.Box(x0=1.0, x1=1.0, y0=0.0, y1=2.0)}, "x0 < x1"),
        ({"box": pb.Box(x0=float("nan"), x1=1.0, y0=0.0, y1=2.0)}, "x0 < x1"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        chips_from([message(), message(**changes)])
    assert caught.value.detail.startswith("chips[1]")


def test_a_damaged_png_is_a_bad_image() -> None:
    with pytest.raises(BadImage, match=r"chips\[0\]\.png"):
        chips_from([message(png=message().png[:2000])])


def test_at_most_so_many() -> None:
    with pytest.raises(BadRequest, match="at most"):
        chips_from([pb.Chip()] * (MOST_CHIPS + 1))
