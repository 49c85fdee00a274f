"""The perceptual hash: the same for copies, another for others, none for what has nothing to hash."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import pictures
from tests.conftest import missing
from unmask.core.near import MATCH, distance
from unmask.core.pictures import DecodedCache, ImageLimits, decode
from unmask.ingestion import phash
from unmask.ingestion.handler import ingest
from unmask.ingestion.phash import perceptual_hash

if not phash.is_available():
    missing("imagehash (extra service) is not installed")

import imagehash

LIMITS = ImageLimits()
Pixels = NDArray[np.uint8]
# Of `drawing()`, as it was first counted.
KEPT = "814476f9690663b84be6ecc1997c29555ec0cb9ba51e972224ff9bc6718907bc"


def drawing(seed: int = 0, side: int = 512) -> Pixels:
    """Overlapping discs of many sizes."""
    rng, canvas = np.random.default_rng(seed), np.full((side, side, 3), 90, np.uint8)
    for _ in range(60):
        x, y, radius = (int(value) for value in rng.integers((0, 0, side // 40), (side, side, side // 5)))
        cv2.circle(canvas, (x, y), radius, rng.integers(0, 256, 3).tolist(), -1)
    return canvas


def brighter(picture: Pixels) -> Pixels:
    values: Pixels = np.clip(picture * np.float32(1.15), 0, 255).astype(np.uint8)
    return values


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "jpeg 50": lambda p: decode(pictures.jpeg(p, quality=50, subsampling=2), LIMITS),
    "webp": lambda p: decode(pictures.encode(p, "WEBP", quality=60), LIMITS),
    "half": lambda p: np.asarray(cv2.resize(p, (256, 256), interpolation=cv2.INTER_AREA), np.uint8),
    "larger": lambda p: np.asarray(cv2.resize(p, (1500, 1500), interpolation=cv2.INTER_CUBIC), np.uint8),
    "other sides": lambda p: np.asarray(cv2.resize(p, (400, 300), interpolation=cv2.INTER_AREA), np.uint8),
    "brighter": brighter,
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_match(copy: str) -> None:
    for seed in range(10):
        picture = drawing(seed)
        assert distance(perceptual_hash(picture), perceptual_hash(COPIES[copy](picture))) <= MATCH


def test_others_do_not_match() -> None:
    hashes = [perceptual_hash(drawing(seed)) for seed in range(40)]
    assert min(distance(a, b) for index, a in enumerate(hashes) for b in hashes[:index]) > 2 * MATCH


def test_a_hash_is_64_hex_digits_and_stays_what_it_is() -> None:
    """Hashes are kept for years: a library that counts otherwise must not come in unseen (4 bits are its rounding)."""
    hashed = perceptual_hash(drawing())
    assert len(hashed) == 64 and hashed == f"{int(hashed, 16):064x}"
    assert distance(hashed, KEPT) <= 4


def test_shrinking_by_area_first_changes_few_bits() -> None:
    for seed in range(10):
        picture = drawing(seed, side=1024)
        whole = str(imagehash.phash(Image.fromarray(picture), hash_size=16))
        assert distance(perceptual_hash(picture), whole) <= 6


def noise(sigma: float) -> Pixels:
    return np.clip(np.random.default_rng(1).normal(120, sigma, (300, 300, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "flat",
    [
        np.zeros((300, 300, 3), np.uint8),
        np.full((1, 1, 3), 200, np.uint8),
        np.full((2000, 30, 3), 255, np.uint8),
        noise(2),
        noise(40),
        pictures.scene(600, 400),
        cv2.GaussianBlur(drawing(), (0, 0), 120).astype(np.uint8),
    ],
    ids="black pixel strip faint noise gradient blur".split(),
)
def test_nearly_flat_pictures_have_no_hash(flat: Pixels) -> None:
    assert perceptual_hash(flat) == ""


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (3, 5), (20, 20_000)])
def test_any_sides_are_taken(shape: tuple[int, int]) -> None:
    stripes = np.random.default_rng(0).integers(0, 2, (*shape, 1), np.uint8).repeat(3, axis=2) * np.uint8(255)
    assert len(perceptual_hash(stripes)) in {0, 64}


def test_the_displayed_picture_is_hashed() -> None:
    """A phone's picture and its copy with the turn written into the pixels are one."""
    shown = drawing()
    turned = ingest_hash(pictures.oriented(6, "JPEG", shown))
    assert distance(turned, ingest_hash(pictures.png(shown))) <= MATCH
    assert distance(turned, perceptual_hash(pictures.stored_for(6, shown))) > 2 * MATCH


def ingest_hash(data: bytes) -> str:
    """What the handler keeps."""
    return ingest("default", data, limits=LIMITS, cache=DecodedCache(10_000_000), fingerprint=perceptual_hash).phash


def test_without_imagehash_pictures_have_no_hash() -> None:
    data = pictures.png(drawing())
    assert ingest("default", data, limits=LIMITS, cache=DecodedCache(10_000_000)).phash == ""
