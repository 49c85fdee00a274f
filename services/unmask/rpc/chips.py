"""Chips over the wire: lossless pixels and their transforms, checked before anything is warped by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from unmask.core import geometry
from unmask.core.domain import Box
from unmask.core.errors import BadImage, BadRequest
from unmask.core.geometry import Floats
from unmask.core.images import CHIP_LONG_SIDE, Chip, Pixels
from unmask.core.pictures import ImageLimits, decode
from unmask.rpc.convert import box_from, box_to
from unmask.v1 import common_pb2 as pb

MOST_CHIPS: Final = 64
_LIMITS: Final = ImageLimits(pixels=CHIP_LONG_SIDE**2, side=CHIP_LONG_SIDE)
# How far from the chip the unit square of a real face can lie, in chip sides; further out a border fill would take minutes.
_REACH: Final = 4.0
_UNIT_CORNERS: Final = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def chip_to(chip: Chip, box: Box) -> pb.Chip:
    """The message of a chip and its face's box in picture pixels; pixels as PNG."""
    height, width = chip.pixels.shape[:2]
    # The fastest level: a chip lives for one call.
    _, png = cv2.imencode(".png", cv2.cvtColor(chip.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    to_chip, to_unit = chip.to_chip.ravel().tolist(), chip.to_unit.ravel().tolist()
    return pb.Chip(png=png.tobytes(), width=width, height=height, to_chip=to_chip, to_unit=to_unit, box=box_to(box))


def chips_from(messages: Sequence[pb.Chip]) -> tuple[list[Chip], list[Box]]:
    """Chips and boxes of messages; raises `BadRequest` or `BadImage` naming the chip and what is wrong with it."""
    if len(messages) > MOST_CHIPS:
        raise BadRequest(f"chips: at most {MOST_CHIPS} a call, got {len(messages)}")
    chips = [_chip(message, f"chips[{index}]") for index, message in enumerate(messages)]
    return chips, [_box(message, f"chips[{index}]") for index, message in enumerate(messages)]


def _chip(message: pb.Chip, where: str) -> Chip:
    pixels = _pixels(message, where)
    to_chip, to_unit = _matrix(message.to_chip, f"{where}.to_chip"), _matrix(message.to_unit, f"{where}.to_unit")
    height, width = pixels.shape[:2]
    corners = geometry.apply(geometry.invert(to_unit), _UNIT_CORNERS)
    reach = _REACH * max(height, width)
    if corners.min() < -reach or corners.max() > max(height, width) + reach:
        raise BadRequest(f"{where}.to_unit: the face lies far outside its chip")
    return Chip(pixels, to_chip, to_unit)


def _pixels(message: pb.Chip, where: str) -> Pixels:
    width, height = message.width, message.height
    if not (1 <= width <= CHIP_LONG_SIDE and 1 <= height <= CHIP_LONG_SIDE):
        raise BadRequest(f"{where}: sides {width} x {height}, each must be 1 to {CHIP_LONG_SIDE}")
    kind = message.WhichOneof("pixels")
    if kind == "rgb":
        if len(message.rgb) != width * height * 3:
            raise BadRequest(f"{where}.rgb: {len(message.rgb)} bytes, not {width} x {height} x 3")
        return np.frombuffer(message.rgb, dtype=np.uint8).reshape(height, width, 3)
    if not message.png.startswith(b"\x89PNG"):
        raise BadRequest(f"{where}: pixels are neither png nor rgb")
    try:
        pixels = decode(message.png, _LIMITS)
    except BadImage as error:
        raise BadImage(f"{where}.png: {error.detail}") from error
    if pixels.shape != (height, width, 3):
        raise BadRequest(f"{where}.png: {pixels.shape[1]} x {pixels.shape[0]} pixels, not {width} x {height}")
    return pixels


def _matrix(values: Sequence[float], where: str) -> Floats:
    matrix = np.array(values, dtype=np.float64)
    if matrix.size != 6 or not np.isfinite(matrix).all():
        raise BadRequest(f"{where}: six finite numbers are needed, rows first")
    matrix = matrix.reshape(2, 3)
    if not 1e-9 < abs(float(np.linalg.det(matrix[:, :2]))) < 1e9:
        raise BadRequest(f"{where}: the transform cannot be inverted")
    return matrix


def _box(message: pb.Chip, where: str) -> Box:
    box = box_from(message.box)
    if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
        raise BadRequest(f"{where}.box: x0 < x1 and y0 < y1 are needed")
    return box
