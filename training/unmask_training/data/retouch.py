"""What people and phones do to honest pictures, drawn for every class alike: sharpening, smoothed skin, tone, resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from unmask.core.images import Pixels


def retouch(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """One drawn change of (H, W, 3) uint8 RGB pixels; the size stays.

    A detector that takes an enhanced or beautified photograph for a generated one is of no use to a platform: these are the
    commonest edits there, so both classes show them.
    """
    return _EDITS[rng.integers(len(_EDITS))](np.ascontiguousarray(pixels), rng)


def _sharpened(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Unsharp mask, as cameras and editors apply it."""
    soft = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.8, 2.5))
    amount = rng.uniform(0.3, 1.5)
    return cv2.addWeighted(pixels, 1.0 + amount, soft, -amount, 0.0).astype(np.uint8, copy=False)


def _smoothed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Skin without pores, edges kept: the beauty filter, mixed with the picture as it was."""
    smooth = cv2.bilateralFilter(pixels, 5, rng.uniform(15.0, 50.0), rng.uniform(2.0, 5.0))
    share = rng.uniform(0.4, 1.0)
    return cv2.addWeighted(smooth, share, pixels, 1.0 - share, 0.0).astype(np.uint8, copy=False)


def _toned(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A tone curve for each channel, near to each other: filters and white balance."""
    common = rng.uniform(-0.35, 0.35)
    grid = np.linspace(0.0, 1.0, 256)
    curves = [grid ** np.exp(common + rng.normal(0.0, 0.05)) * 255.0 for _ in range(3)]
    table = np.stack(curves, axis=-1).round().astype(np.uint8)
    return cv2.LUT(pixels, table[None]).astype(np.uint8, copy=False)


def _resampled(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Smaller and back again, as thumbnails and upscalers leave it."""
    height, width = pixels.shape[:2]
    factor = rng.uniform(0.5, 0.9)
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    back = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)[rng.integers(3)]
    return cv2.resize(small, (width, height), interpolation=back).astype(np.uint8, copy=False)


_EDITS: Final[tuple[Callable[[Pixels, np.random.Generator], Pixels], ...]] = (_sharpened, _smoothed, _toned, _resampled)
