"""What training sees of a chip: framing, resolution, border fill and delivery drawn from one distribution for every class.

A corpus frames its classes differently, so that a model which sees neither pixel nor codec tells them apart; and its
pictures have different pasts.  So the draw never looks at the class.  The margin stays near one template square, where
nearly every picture of every class has pixels of its own, and border fills are simulated for all alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Border, Chip, Pixels, warp

_FILTERS: Final = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
# 4:4:4 once, 4:2:0 twice (the web's habit), 4:2:2 once.
_SUBSAMPLINGS: Final = (0x111111, 0x221111, 0x221111, 0x211111)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The one distribution; every pair is a uniform range, every `p_` a probability.

    `face` is the side of the template square in pixels before the view is cut, drawn log-uniformly and never above the
    chip's own; `margin` in template squares; `turn` (degrees) and `shift` (squares) are standard deviations.
    """

    face: tuple[float, float] = (75.0, 200.0)
    p_native: float = 0.25
    jpeg: tuple[int, int] = (40, 98)
    p_jpeg: float = 0.75
    blur: tuple[float, float] = (0.3, 1.6)
    p_blur: float = 0.15
    noise: tuple[float, float] = (1.0, 8.0)
    p_noise: float = 0.15
    margin: tuple[float, float] = (0.85, 1.15)
    turn: float = 5.0
    shift: float = 0.03
    p_border: float = 0.2
    p_contrast: float = 0.5
    p_tint: float = 0.3
    p_grey: float = 0.08
    p_erase: float = 0.15

    @staticmethod
    def of(told: Mapping[str, Any]) -> Ranges:
        """Reads the recipe's `augment` section; raises `ValueError` naming an unknown key."""
        unknown = sorted(set(told) - set(Ranges.__slots__))
        if unknown:
            raise ValueError(f"augment: unknown {', '.join(unknown)}; there are {', '.join(Ranges.__slots__)}")
        return Ranges(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})


@dataclass(frozen=True, slots=True)
class Framing:
    """What was drawn of framing and resolution: what the leak test's probe may look at."""

    face: float
    margin: float
    offset: tuple[float, float]
    turn: float
    border: str
    strip: int
    outside: float


Drawn = tuple[NDArray[np.float32], Framing]


def draw(chip: Chip, size: int, ranges: Ranges, rng: np.random.Generator) -> Drawn:
    """One training view of a chip, (size, size, 3) float32 RGB in 0..255, and how it was framed."""
    pixels, unit = _resolution(chip, ranges, rng)
    pixels = _delivery(pixels, ranges, rng)
    matrix, margin, offset, turn = _placement(unit, size, ranges, rng)
    border = list(Border)[rng.integers(len(Border))]
    view = warp(np.ascontiguousarray(pixels), matrix, size, border)
    outside = _outside(pixels, matrix, size)
    strip = 0
    if rng.random() < ranges.p_border:
        view, strip = _border_strip(view, rng)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    face = 1.0 / geometry.scale_of(unit)
    return _colours(view, ranges, rng), Framing(face, margin, offset, turn, border.value, strip, outside)


def _resolution(chip: Chip, ranges: Ranges, rng: np.random.Generator) -> tuple[Pixels, Floats]:
    """The chip at the drawn face size, by a drawn filter; native pixels at `p_native`."""
    own = 1.0 / geometry.scale_of(chip.to_unit)
    target = math.exp(rng.uniform(*np.log(ranges.face)))
    factor = 1.0 if rng.random() < ranges.p_native else min(1.0, target / own)
    if factor > 0.98:
        return chip.pixels, chip.to_unit
    height, width = chip.pixels.shape[:2]
    new_width, new_height = max(8, round(width * factor)), max(8, round(height * factor))
    small = cv2.resize(chip.pixels, (new_width, new_height), interpolation=_FILTERS[rng.integers(len(_FILTERS))])
    x, y = new_width / width, new_height / height
    matrix = np.array([[x, 0.0, (x - 1.0) / 2.0], [0.0, y, (y - 1.0) / 2.0]])
    return small.astype(np.uint8, copy=False), geometry.compose(chip.to_unit, geometry.invert(matrix))


def _delivery(pixels: Pixels, ranges: Ranges, rng: np.random.Generator) -> Pixels:
    """JPEG once or twice, blur, noise: what pictures meet on their way."""
    if rng.random() < ranges.p_jpeg:
        for _ in range(1 if rng.random() < 0.8 else 2):
            pixels = jpeg(pixels, int(rng.integers(ranges.jpeg[0], ranges.jpeg[1] + 1)), int(rng.integers(4)))
    if rng.random() < ranges.p_blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(*ranges.blur)).astype(np.uint8, copy=False)
    if rng.random() < ranges.p_noise:
        noisy = pixels + rng.normal(0.0, rng.uniform(*ranges.noise), pixels.shape)
        pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    return pixels


def jpeg(pixels: Pixels, quality: int, subsampling: int = 1) -> Pixels:
    """Pixels after JPEG at `quality`; `subsampling` chooses among 4:4:4, 4:2:0, 4:2:0, 4:2:2."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SUBSAMPLINGS[subsampling]]
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("JPEG round trip failed")
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8, copy=False)


def _placement(
    unit: Floats, size: int, ranges: Ranges, rng: np.random.Generator
) -> tuple[Floats, float, tuple[float, float], float]:
    """Map from chip pixels to the view: drawn margin, turn and shift about the template's centre."""
    margin, turn = rng.uniform(*ranges.margin), rng.normal(0.0, ranges.turn)
    x, y = rng.normal(0.0, ranges.shift, 2)
    scale, angle = size / margin, math.radians(turn)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shift = (size - 1) / 2.0 - linear @ np.array([0.5 + x, 0.5 + y])
    return geometry.compose(np.column_stack([linear, shift]), unit), margin, (float(x), float(y)), turn


def _outside(pixels: Pixels, matrix: Floats, size: int) -> float:
    """Share of the view that lies beyond the chip, on a coarse grid."""
    grid = np.linspace(0.0, size - 1.0, 12)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    source = geometry.apply(geometry.invert(matrix), points)
    limit = np.array([pixels.shape[1] - 1.0, pixels.shape[0] - 1.0])
    inside = ((source >= 0.0) & (source <= limit)).all(axis=1)
    return float(1.0 - inside.mean())


def _border_strip(view: Pixels, rng: np.random.Generator) -> tuple[Pixels, int]:
    """Fills a strip at a drawn side as if the picture had ended there: black, replicated or reflected."""
    width, side = int(rng.integers(2, view.shape[0] // 6)), int(rng.integers(4))
    turned = np.rot90(view, side).copy()
    fills = (np.zeros_like(turned[:width]), turned[width : width + 1], turned[2 * width - 1 : width - 1 : -1])
    turned[:width] = fills[rng.integers(len(fills))]
    return np.rot90(turned, -side), width


def _colours(view: Pixels, ranges: Ranges, rng: np.random.Generator) -> NDArray[np.float32]:
    """Contrast, brightness, tint, grey, a rectangle erased."""
    result = view.astype(np.float32)
    if rng.random() < ranges.p_contrast:
        result = (result - 128.0) * rng.uniform(0.75, 1.25) + 128.0 + rng.uniform(-20.0, 20.0)
    if rng.random() < ranges.p_tint:
        result = result * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    if rng.random() < ranges.p_grey:
        result = np.repeat(result.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < ranges.p_erase:
        y, x = rng.integers(view.shape[0], size=2)
        side = rng.integers(15, 50)
        result[y : y + side, x : x + side] = rng.uniform(0.0, 255.0)
    return np.clip(result, 0.0, 255.0).astype(np.float32, copy=False)
