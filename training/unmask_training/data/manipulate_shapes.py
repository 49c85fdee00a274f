"""Shapes of doctored regions, in the unit square of the landmark template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import TEMPLATE

REGIONS: Final = (
    "eyes", "eyebrows", "nose", "mouth", "half_left", "half_right", "half_upper", "half_lower", "whole", "ellipse",
)  # fmt: skip
# Bounds of an ellipse's area as a share of the face box.
QUARTILES: Final = ((0.01, 0.08), (0.08, 0.16), (0.16, 0.25), (0.25, 0.36))
# The median face box (height .96, width .72 of the template square): what an ellipse's share refers to.
BOX_AREA: Final = 0.96 * 0.72
_RIGHT_EYE, _LEFT_EYE, _NOSE, _RIGHT_MOUTH, _LEFT_MOUTH = TEMPLATE
_MOUTH: Final = (_RIGHT_MOUTH + _LEFT_MOUTH) / 2.0
_FACE: Final = np.array([0.5, 0.62])
# Centre and radii of the parts by which the ciplab set names what its experts spliced; left and right are the picture's
# (seen in the pictures: the eye that does not match lies there).
PARTS: Final = {
    "left_eye": (_RIGHT_EYE, (0.13, 0.085)),
    "right_eye": (_LEFT_EYE, (0.13, 0.085)),
    "nose": (_NOSE - np.array([0.0, 0.05]), (0.11, 0.15)),
    "mouth": (_MOUTH, (0.19, 0.10)),
}


def blob(centre: Floats, radii: tuple[float, float], turn: float, rng: np.random.Generator, wobble: float = 0.06) -> Floats:
    """An ellipse with a wavering rim: (64, 2) points, so that no model can learn one outline."""
    angle = np.linspace(0.0, 2.0 * np.pi, 64, endpoint=False)
    rim = np.ones_like(angle)
    for wave in range(2, 6):
        rim += rng.normal(0.0, wobble / wave) * np.cos(wave * angle + rng.uniform(0.0, 2.0 * np.pi))
    points = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], axis=1) * rim[:, None]
    cosine, sine = np.cos(turn), np.sin(turn)
    result: Floats = points @ np.array([[cosine, sine], [-sine, cosine]]) + centre
    return result


def ellipse(quartile: int, rng: np.random.Generator) -> Floats:
    """A turned ellipse whose area lies in the quartile (1-4), its centre on the inner face."""
    low, high = QUARTILES[quartile - 1]
    area, aspect = rng.uniform(low, high) * BOX_AREA, np.exp(rng.uniform(-0.6, 0.6))
    radius = float(np.sqrt(area / np.pi))
    centre = _FACE + rng.uniform(-1.0, 1.0, 2) * np.array([0.24, 0.30]) * (1.0 - radius)
    return blob(centre, (radius * aspect, radius / aspect), rng.uniform(0.0, np.pi), rng, wobble=0.0)


def outlines(region: str, rng: np.random.Generator, quartile: int = 0) -> list[Floats]:
    """The polygons of a region, each (K, 2) in the unit square; left and right are the person's."""
    draw = rng.uniform
    turn = rng.normal(0.0, 0.06)
    if region == "ellipse":
        return [ellipse(quartile, rng)]
    if region == "eyes":
        return _eyes(rng, turn)
    if region == "eyebrows":
        rise = np.array([0.0, draw(0.08, 0.11)])
        radii = (draw(0.11, 0.15), draw(0.035, 0.055))
        return _one_or_both([blob(eye - rise, radii, turn, rng) for eye in (_RIGHT_EYE, _LEFT_EYE)], rng)
    if region == "nose":
        return [blob(_NOSE - np.array([0.0, draw(0.03, 0.08)]), (draw(0.09, 0.14), draw(0.12, 0.18)), turn, rng)]
    if region == "mouth":
        return [blob(_MOUTH, (draw(0.16, 0.23), draw(0.07, 0.12)), turn, rng)]
    face = blob(_FACE, (draw(0.32, 0.40), draw(0.38, 0.48)), turn, rng)
    return [face if region == "whole" else _half(face, region)]


def part_outlines(names: Iterable[str], rng: np.random.Generator) -> list[Floats]:
    """About where facial parts lie that somebody else changed and named (`PARTS`); raises `ValueError` for another name."""
    found = []
    for name in names:
        if name not in PARTS:
            raise ValueError(f"no facial part {name!r}; there are {', '.join(PARTS)}")
        centre, radii = PARTS[name]
        found.append(blob(centre, radii, 0.0, rng))
    return found


def _eyes(rng: np.random.Generator, turn: float) -> list[Floats]:
    draw = rng.uniform
    if draw() < 0.3:
        return [blob((_RIGHT_EYE + _LEFT_EYE) / 2.0, (draw(0.28, 0.36), draw(0.07, 0.11)), turn, rng)]
    radii = (draw(0.09, 0.14), draw(0.055, 0.09))
    return _one_or_both([blob(eye, radii, turn, rng) for eye in (_RIGHT_EYE, _LEFT_EYE)], rng)


def _one_or_both(pair: list[Floats], rng: np.random.Generator) -> list[Floats]:
    return pair if rng.uniform() < 0.5 else [pair[int(rng.integers(2))]]


def _half(face: Floats, region: str) -> Floats:
    """One half of the inner face; the person's left is on the picture's right."""
    face = face.copy()
    axis, keep = {
        "half_left": (0, np.maximum), "half_right": (0, np.minimum),
        "half_upper": (1, np.minimum), "half_lower": (1, np.maximum),
    }[region]  # fmt: skip
    face[:, axis] = keep(face[:, axis], _NOSE[axis])
    return face


def rasterise(polygons: list[Floats], to_unit: Floats, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (H, W) of unit-square polygons in a picture whose pixels `to_unit` maps to the unit square."""
    back = geometry.invert(to_unit)
    canvas = np.zeros(shape, dtype=np.uint8)
    points = [np.round(geometry.apply(back, polygon) * 16.0).astype(np.int32) for polygon in polygons]
    cv2.fillPoly(canvas, points, 255, shift=4)
    return canvas > 0
