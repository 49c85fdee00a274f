"""Engines that doctor one region of a face: splices, its own mirror, warp or clone, round trips, filters, inpainting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Pixels, shrink_area

Mask = NDArray[np.bool_]
ENGINES: Final = (
    "splice_poisson", "splice_feather", "self_mirror", "self_warp", "self_clone", "local_resample", "opencv_inpaint",
    "autoencoder",
)  # fmt: skip
# The same content at the same place: colours fit already, and a soft edge is all it takes.
_OWN: Final = ("local_resample", "self_warp", "autoencoder")
_EITHER: Final = ("self_mirror", "self_clone")
DONATED: Final = ("splice_poisson", "splice_feather")
FILTERS: Final = ("tone", "down_up", "blur", "bilateral", "noise", "sharpen", "jpeg", "median")
# Below this mean difference (grey levels) inside the mask nothing was changed that an encode would leave standing.
_LEAST_CHANGE: Final = 3.0
# Poisson blending needs a rim of known pixels around the region.
_RIM: Final = 3
_FLIP: Final = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, slots=True)
class Face:
    """A face to take from or to change: (H, W, 3) uint8 RGB, and the (2, 3) map of its pixels to the unit square."""

    pixels: Pixels
    to_unit: Floats


class Copier(Protocol):
    """What the engine `autoencoder` copies with; see `round_trips.RoundTrips`."""

    def copy(self, pixels: Pixels, mask: Mask, rng: np.random.Generator) -> Pixels:
        """The picture, the mask's surroundings copied."""
        ...


def doctor(
    base: Face,
    donor: Face | None,
    mask: Mask,
    engine: str,
    rng: np.random.Generator,
    *,
    matched: float = 0.85,
    copier: Copier | None = None,
) -> tuple[Pixels, Mask] | None:
    """Changes the masked pixels; every other pixel stays as it is, bit by bit.

    Returns the picture and the mask of the pixels written, or None where the result would hardly differ from the base, or
    differ in colour so much that nobody would publish it.  `matched` is the probability that colours are matched first.
    """
    mask = mask.copy()
    mask[:_RIM], mask[-_RIM:], mask[:, :_RIM], mask[:, -_RIM:] = False, False, False, False
    if int(mask.sum()) < 40:
        return None
    source = _source(base, donor, mask, engine, rng, copier)
    new, mask = _blended(base.pixels, source, mask, engine, rng, matched)
    result = np.where(mask[..., None], new, base.pixels)
    change = np.abs(result[mask].astype(np.int16) - base.pixels[mask])
    return None if not _LEAST_CHANGE <= float(change.mean()) <= 70.0 else (result, mask)


def _source(base: Face, donor: Face | None, mask: Mask, engine: str, rng: np.random.Generator, copier: Copier | None) -> Pixels:
    """Where the new content comes from, in the base's pixels."""
    if engine in DONATED and donor is not None:
        return place(donor, base, rng)
    if engine == "self_mirror":
        mirrored = geometry.compose(geometry.invert(base.to_unit), geometry.compose(_FLIP, base.to_unit))
        return _warp(base.pixels, mirrored, base)
    if engine == "self_warp":
        return _liquified(base.pixels, mask, rng)
    if engine == "self_clone":
        return _moved(base.pixels, mask, rng)
    if engine == "local_resample":
        return _filtered(base.pixels, str(rng.choice(FILTERS)), rng)
    if engine == "autoencoder":
        if copier is None:
            raise ValueError("engine 'autoencoder' needs autoencoders (--autoencoders FILE; `unmask-train autoencoders`)")
        return copier.copy(base.pixels, mask, rng)
    return base.pixels


def _liquified(pixels: Pixels, mask: Mask, rng: np.random.Generator) -> Pixels:
    """Pixels pushed about smoothly, as face-tuning tools do, by up to a sixth of the region's width."""
    height, width = mask.shape
    reach = np.sqrt(float(mask.sum())) * rng.uniform(0.08, 0.16)
    coarse = rng.normal(0.0, 1.0, (2, 5, 5)).astype(np.float32)
    flow = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in coarse]) * reach
    # Nothing moves at the rim: only the inside of the region is new.
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    flow *= np.clip(inside / max(4.0, float(inside.max()) * 0.6), 0.0, 1.0)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    way = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    places = [(base + shift).astype(np.float32) for base, shift in zip((columns, rows), flow, strict=True)]
    moved = cv2.remap(pixels, places[0], places[1], way, borderMode=cv2.BORDER_REFLECT_101)
    return moved.astype(np.uint8, copy=False)


def _moved(pixels: Pixels, mask: Mask, rng: np.random.Generator) -> Pixels:
    """The picture shifted, so that the region shows another place of the same picture: copy and move."""
    side = np.sqrt(float(mask.sum()))
    angle, far = rng.uniform(0.0, 2.0 * np.pi), side * rng.uniform(0.6, 1.4)
    shift = np.round(np.array([np.cos(angle), np.sin(angle)]) * far)
    matrix = geometry.scaling(1.0, (float(shift[0]), float(shift[1])))
    moved = cv2.warpAffine(pixels, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return moved.astype(np.uint8, copy=False)


def place(donor: Face, base: Face, rng: np.random.Generator) -> Pixels:
    """The donor's pixels where the base's face is: by the landmarks of both, a little off as by hand."""
    size, turn = np.exp(rng.normal(0.0, 0.03)), rng.normal(0.0, 0.02)
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([0.5, 0.65])
    jitter = np.column_stack([linear, centre - linear @ centre + rng.normal(0.0, 0.01, 2)])
    return _warp(donor.pixels, geometry.compose(geometry.invert(base.to_unit), geometry.compose(jitter, donor.to_unit)), base)


def _warp(pixels: Pixels, matrix: Floats, base: Face) -> Pixels:
    factor = geometry.scale_of(matrix)
    if factor < 1.0:
        pixels, shrink = shrink_area(pixels, factor)
        matrix = geometry.compose(matrix, geometry.invert(shrink))
    height, width = base.pixels.shape[:2]
    warped = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return warped.astype(np.uint8, copy=False)


def _blended(
    base: Pixels, source: Pixels, mask: Mask, engine: str, rng: np.random.Generator, matched: float
) -> tuple[Pixels, Mask]:
    """The new picture and the mask of what it writes, by the engine's way of blending."""
    if engine == "opencv_inpaint":
        method = cv2.INPAINT_TELEA if rng.uniform() < 0.5 else cv2.INPAINT_NS
        return cv2.inpaint(base, mask.astype(np.uint8), float(rng.integers(3, 8)), method).astype(np.uint8), mask
    if engine in _OWN:
        return _feathered(base, source, mask, rng.uniform(0.5, 3.0))
    if rng.uniform() < matched:
        source = match_colours(source, base, mask)
    if engine == "splice_poisson" or (engine in _EITHER and rng.uniform() < 0.5):
        return _poisson(base, source, mask, mixed=rng.uniform() < 0.1), mask
    return _feathered(base, source, mask, rng.uniform(0.6, 5.0))


def match_colours(source: Pixels, base: Pixels, mask: Mask) -> Pixels:
    """Gives the source the base's mean and spread of each Lab channel under the mask."""
    ours = cv2.cvtColor(source, cv2.COLOR_RGB2LAB).astype(np.float32)
    theirs = cv2.cvtColor(base, cv2.COLOR_RGB2LAB)[mask].astype(np.float32)
    under = ours[mask]
    spread = np.clip((theirs.std(axis=0) + 1.0) / (under.std(axis=0) + 1.0), 0.7, 1.4)
    matched = np.clip((ours - under.mean(axis=0)) * spread + theirs.mean(axis=0), 0.0, 255.0).astype(np.uint8)
    back: Pixels = cv2.cvtColor(matched, cv2.COLOR_LAB2RGB).astype(np.uint8, copy=False)
    return back


def _feathered(base: Pixels, source: Pixels, mask: Mask, sigma: float) -> tuple[Pixels, Mask]:
    """A soft edge; the mask grows to all pixels with at least 5 % of the source."""
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)[..., None]
    mixed = base + (source.astype(np.float32) - base) * alpha
    return np.round(mixed).astype(np.uint8), alpha[..., 0] >= 0.05


def _poisson(base: Pixels, source: Pixels, mask: Mask, *, mixed: bool) -> Pixels:
    """Gradient-domain blending.  Source: Perez et al., Poisson image editing, SIGGRAPH 2003."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    centre = (x + width // 2, y + height // 2)
    flag = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
    return cv2.seamlessClone(source, base, mask.astype(np.uint8) * 255, centre, flag).astype(np.uint8, copy=False)


def _filtered(pixels: Pixels, name: str, rng: np.random.Generator) -> Pixels:
    """The whole picture through one local filter."""
    filtered = _DRAWN[name](pixels, rng)
    return np.clip(np.round(filtered), 0.0, 255.0).astype(np.uint8)


def _down_up(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    small, _ = shrink_area(pixels, rng.uniform(0.25, 0.6))
    way = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    return cv2.resize(small, pixels.shape[1::-1], interpolation=way).astype(np.uint8, copy=False)


def _sharpened(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    blurred = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(1.2, 3.0))
    return cv2.addWeighted(pixels, 2.2, blurred, -1.2, 0.0).astype(np.uint8, copy=False)


_DRAWN: Final[dict[str, Callable[[Pixels, np.random.Generator], NDArray[Any]]]] = {
    "tone": lambda p, rng: (p - 128.0) * rng.uniform(0.6, 1.4) + 128.0 + rng.uniform(-30.0, 30.0, 3),
    "down_up": _down_up,
    "blur": lambda p, rng: cv2.GaussianBlur(p, (0, 0), rng.uniform(1.2, 3.0)),
    "bilateral": lambda p, rng: cv2.bilateralFilter(p, 7, rng.uniform(30.0, 80.0), 5.0),
    "noise": lambda p, rng: p + rng.normal(0.0, rng.uniform(6.0, 16.0), p.shape),
    "sharpen": _sharpened,
    "jpeg": lambda p, rng: jpeg(p, int(rng.integers(10, 35)), 0x221111),
    "median": lambda p, rng: cv2.medianBlur(p, int(rng.choice([5, 7]))),
}


def jpeg(pixels: Pixels, quality: int, sampling: int) -> Pixels:
    """RGB pixels through one JPEG encode in memory; `sampling` as OpenCV names it (0x221111 is 4:2:0)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)[1]
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8, copy=False)
