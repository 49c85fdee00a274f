"""The perceptual hash of a picture, by which near-duplicates are found (core/near.py); empty where it would say nothing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import cv2
import numpy as np
from PIL import Image

from unmask.core.images import Pixels

_BITS_A_SIDE: Final = 16
# imagehash takes the lowest 16 x 16 frequencies of 64 x 64 pixels.
_SIDE: Final = 4 * _BITS_A_SIDE
_AREA_SIDE: Final = 256
# Below it bits are decided by noise: gradients, soft blobs, plain noise and blank pages measure under 4, faces over 10
# (bench/near_duplicates.py prints both).
FLAT: Final = 4.0


def is_available() -> bool:
    """Whether imagehash (extra `service`) is installed."""
    return find_spec("imagehash") is not None


def perceptual_hash(picture: Pixels) -> str:
    """256 bits as 64 hex digits of a displayed picture, (H, W, 3) uint8 RGB; empty for a nearly flat one.

    imagehash.phash with hash_size=16, on the picture shrunk to 256 pixels by area first, which is several times as fast:
    a few bits may differ from those that imagehash itself gives for the whole picture.
    """
    import imagehash

    small = shrunk(picture)
    if contrast(small) < FLAT:
        return ""
    return str(imagehash.phash(small, hash_size=_BITS_A_SIDE))


def contrast(small: Image.Image) -> float:
    """How far bits are from turning: median distance of the hashed frequencies from their median (orthonormal DCT)."""
    low = cv2.dct(np.asarray(small, np.float32))[:_BITS_A_SIDE, :_BITS_A_SIDE]
    return float(np.median(np.abs(low - np.median(low))))


def shrunk(picture: Pixels) -> Image.Image:
    """The 64 x 64 grey pixels that are hashed."""
    height, width = picture.shape[:2]
    sides = min(width, _AREA_SIDE), min(height, _AREA_SIDE)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if sides != (width, height):
        grey = cv2.resize(grey, sides, interpolation=cv2.INTER_AREA)
    return Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
