"""What training sees of a chip: framing, resolution, border fill and delivery drawn from one distribution for every class.

A corpus frames its classes differently, so that a model which sees neither pixel nor codec tells them apart; and its
pictures have different pasts.  So the draw never looks at the class.  The face's side in pixels is drawn before the
picture is (`draw_face`; the caller takes a picture that has as many), since a range capped by each picture's own size
told the classes apart.  The margin stays near one template square, where nearly every picture has pixels of its own, and
every class meets picture edges at a drawn place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Border, Chip, Pixels, warp
from unmask_training.data.retouch import retouch

_FILTERS: Final = (cv2.INTER_AREA, cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
# 4:4:4 once, 4:2:0 twice (the web's habit), 4:2:2 once.
_SUBSAMPLINGS: Final = (0x111111, 0x221111, 0x221111, 0x211111)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The one distribution; every pair is a uniform range, every `p_` a probability.

    `face` is the side of the template square in pixels before the view is cut, log-uniform, or at `p_sharp` uniform in
    `sharp`, the sizes that serving mostly sees; `margin` in template squares; `turn` (degrees) and `shift` (squares) are
    standard deviations; `edge` is how far a picture edge reaches into the view, as a share of it.
    """

    face: tuple[float, float] = (70.0, 185.0)
    sharp: tuple[float, float] = (140.0, 185.0)
    p_sharp: float = 0.4
    p_retouch: float = 0.0
    jpeg: tuple[int, int] = (40, 98)
    p_jpeg: float = 0.75
    blur: tuple[float, float] = (0.3, 1.6)
    p_blur: float = 0.15
    noise: tuple[float, float] = (1.0, 8.0)
    p_noise: float = 0.15
    margin: tuple[float, float] = (0.85, 1.15)
    turn: float = 5.0
    shift: float = 0.03
    edge: tuple[float, float] = (0.01, 0.2)
    p_edge: float = 0.35
    p_contrast: float = 0.5
    p_tint: float = 0.3
    p_grey: float = 0.08
    p_erase: float = 0.15

    @staticmethod
    def of(told: Mapping[str, Any]) -> Ranges:
        """Reads the recipe's `augment` section; raises `ValueError` naming a key that is unknown or wrong."""
        if not isinstance(told, Mapping):
            raise ValueError("augment: expected names and their values")
        unknown = sorted(str(name) for name in set(told) - set(Ranges.__slots__))
        if unknown:
            raise ValueError(f"augment: unknown {', '.join(unknown)}; there are {', '.join(Ranges.__slots__)}")
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        ranges = Ranges(**values)
        for name, value in asdict(ranges).items():
            _check(name, value)
        return ranges


def _check(name: str, value: object) -> None:
    """Refuses what no draw could use: probabilities beyond 0..1, ranges that are none, or negative numbers."""
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf for number in numbers):
        raise ValueError(f"augment: {name}: {value!r} is not made of finite numbers of at least 0")
    if name.startswith("p_") and numbers[-1] > 1:
        raise ValueError(f"augment: {name}: {value!r} is not a probability")
    if isinstance(getattr(Ranges(), name), tuple) != isinstance(value, tuple) or list(numbers) != sorted(numbers):
        raise ValueError(f"augment: {name}: {value!r} is not of the form of {getattr(Ranges(), name)!r}")
    if isinstance(value, tuple) and (len(value) != 2 or (name in {"face", "sharp", "margin", "jpeg"} and value[0] <= 0)):
        raise ValueError(f"augment: {name}: {value!r} is not a pair from low to high above 0")


@dataclass(frozen=True, slots=True)
class Framing:
    """What was drawn of framing and resolution: what the leak test's probe may look at."""

    face: float
    margin: float
    offset: tuple[float, float]
    turn: float
    border: str
    outside: float


Drawn = tuple[NDArray[np.float32], Framing]


def draw_face(ranges: Ranges, rng: np.random.Generator) -> float:
    """Side of the template square, in pixels, that a picture is to be brought to."""
    if rng.random() < ranges.p_sharp:
        return float(rng.uniform(*ranges.sharp))
    return math.exp(rng.uniform(*np.log(ranges.face)))


def own_face(to_unit: Floats) -> float:
    """Side of the template square in a chip's own pixels."""
    return 1.0 / geometry.scale_of(to_unit)


def draw(chip: Chip, face: float, size: int, ranges: Ranges, rng: np.random.Generator) -> Drawn:
    """One training view of a chip, (size, size, 3) float32 RGB in 0..255, and how it was framed.

    `face` is what `draw_face` gave; a chip smaller than that keeps its own size.
    """
    pixels, unit = _resolution(chip, face, rng)
    if ranges.p_retouch and rng.random() < ranges.p_retouch:
        pixels = retouch(pixels, rng)
    pixels = _delivery(pixels, ranges, rng)
    matrix, margin, offset, turn = _placement(unit, size, ranges, rng)
    border = list(Border)[rng.integers(len(Border))]
    if rng.random() < ranges.p_edge:
        pixels, matrix = _edge(pixels, matrix, size, ranges, rng)
    view = warp(np.ascontiguousarray(pixels), matrix, size, border)
    outside = _outside(pixels, matrix, size)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return _colours(view, ranges, rng), Framing(own_face(unit), margin, offset, turn, border.value, outside)


def _resolution(chip: Chip, face: float, rng: np.random.Generator) -> tuple[Pixels, Floats]:
    """The chip shrunk to the face size by a drawn filter, never enlarged."""
    factor = face / own_face(chip.to_unit)
    if factor > 0.99:
        return chip.pixels, chip.to_unit
    height, width = chip.pixels.shape[:2]
    new_width, new_height = max(8, round(width * factor)), max(8, round(height * factor))
    small = cv2.resize(chip.pixels, (new_width, new_height), interpolation=_FILTERS[rng.integers(len(_FILTERS))])
    matrix = geometry.resizing((width, height), (new_width, new_height))
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


def _edge(pixels: Pixels, matrix: Floats, size: int, ranges: Ranges, rng: np.random.Generator) -> tuple[Pixels, Floats]:
    """Ends the picture inside the view, at a drawn side and depth, so that the border's fill stands there."""
    side, depth = int(rng.integers(4)), rng.uniform(*ranges.edge) * size
    middle, far = (size - 1) / 2.0, size - 1.0 - depth
    point = np.array([((depth, middle), (middle, depth), (far, middle), (middle, far))[side]])
    x, y = np.round(geometry.apply(geometry.invert(matrix), point)[0]).astype(int)
    height, width = pixels.shape[:2]
    # At least a few pixels stay, for a reflecting border to look at.
    x0, y0 = (min(max(x, 0), width - 8) if side == 0 else 0), (min(max(y, 0), height - 8) if side == 1 else 0)
    x1, y1 = (max(min(x + 1, width), 8) if side == 2 else width), (max(min(y + 1, height), 8) if side == 3 else height)
    return pixels[y0:y1, x0:x1], geometry.compose(matrix, geometry.scaling(1.0, (float(x0), float(y0))))


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
