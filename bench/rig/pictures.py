"""The mix that is measured: JPEGs of 1024 pixels with one face, every one under bytes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

_SIDE = 1024


def made(number: int, seed: int) -> list[bytes]:
    """Crops of scikit-image's astronaut (NASA, public domain), re-sampled to 1024 x 1024; JPEG of quality 85 to 95."""
    import skimage.data

    draw, found = np.random.default_rng(seed), []
    photograph = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    for _ in range(number):
        left, top = (int(value) for value in draw.integers(0, 60, 2))
        side = int(draw.integers(380, 450))
        found.append(_jpeg(photograph.crop((left, top, left + side, top + side)), int(draw.integers(85, 96))))
    return found


def read(folder: Path, number: int, seed: int) -> list[bytes]:
    """Pictures of a folder, drawn by the seed, their long side brought to 1024 pixels."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise SystemExit(f"bench: {folder} holds no picture")
    drawn = np.random.default_rng(seed).permutation(len(paths))[:number]
    return [_jpeg(Image.open(paths[index]).convert("RGB"), 90) for index in drawn]


def _jpeg(image: Image.Image, quality: int) -> bytes:
    factor = _SIDE / max(image.size)
    file = BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=quality
    )
    return file.getvalue()


class Unseen:
    """Endless pictures, over and over, each time under other bytes (a comment segment): no verdict of before answers."""

    def __init__(self, pictures: list[bytes], seed: int) -> None:
        self._pictures, self._seed = pictures, seed
        self._numbers = count()

    def take(self, number: int) -> Iterator[bytes]:
        """The next ones."""
        for _ in range(number):
            turn = next(self._numbers)
            picture, comment = self._pictures[turn % len(self._pictures)], f"{self._seed} {turn}".encode()
            yield picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]
