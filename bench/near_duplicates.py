"""How far perceptual hashes of the same picture and of others are apart: what core.near.MATCH and ingestion.phash.FLAT rest on.

`python bench/near_duplicates.py --faces DIR` (or UNMASK_FACES) hashes all pictures of a folder with a manifest.csv and
prints, for several distances: pairs of different `group` within it (false matches), doctored pictures within it of their
originals (`pair`), the share of changed copies within it that also share a band of the index; then what a hash costs, and
the contrast of flat pictures and of the corpus.  It ends with 1 when the false matches within MATCH are not rare.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.core.images import Pixels
from unmask.core.near import MATCH, bands, distance
from unmask.core.pictures import ImageLimits, decode
from unmask.ingestion import phash
from unmask.ingestion.phash import FLAT, perceptual_hash

_DISTANCES: Final = (5, 10, MATCH, 20, 25, 31, 40)
_RARE: Final = 1e-6
_Rows = Sequence[Mapping[str, str]]
_Change = Callable[[Pixels], Pixels]


def read(path: Path) -> Pixels:
    """The picture as displayed."""
    return decode(path.read_bytes(), ImageLimits())


def again(picture: Pixels, quality: int) -> Pixels:
    """Saved as JPEG and read."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality)
    return decode(out.getvalue(), ImageLimits())


def smaller(picture: Pixels, share: float) -> Pixels:
    """Both sides shrunk by area."""
    height, width = (round(side * share) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def cropped(picture: Pixels, share: float) -> Pixels:
    """Without so much of each side at every edge."""
    top, left = (round(side * share) for side in picture.shape[:2])
    return np.ascontiguousarray(picture[top : picture.shape[0] - top, left : picture.shape[1] - left])


def brighter(picture: Pixels, factor: float) -> Pixels:
    """All values by a factor."""
    values: Pixels = np.clip(picture * np.float32(factor), 0, 255).astype(np.uint8)
    return values


CHANGES: Final[Mapping[str, _Change]] = {
    **{f"JPEG {quality}": partial(again, quality=quality) for quality in (95, 75, 50)},
    **{f"resized to {share}": partial(smaller, share=share) for share in (0.9, 0.75, 0.5)},
    "0.5, then JPEG 75": lambda picture: again(smaller(picture, 0.5), 75),
    **{f"brightness {factor}": partial(brighter, factor=factor) for factor in (0.8, 0.9, 1.1, 1.2)},
    **{f"{100 * share:.0f} % cut off each edge": partial(cropped, share=share) for share in (0.01, 0.02)},
}


def false_matches(hashes: Sequence[str], groups: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Pairs of different groups at each distance, and how many pairs of them there are."""
    bits = np.array([list(bytes.fromhex(text)) for text in hashes], np.uint8).view(np.uint64)
    group = np.unique(np.array(groups), return_inverse=True)[1]
    counts = np.zeros(257, np.int64)
    for index in range(len(bits) - 1):
        apart = np.bitwise_count(bits[index + 1 :] ^ bits[index]).sum(axis=1, dtype=np.int64)
        counts += np.bincount(apart[group[index + 1 :] != group[index]], minlength=257)
    return counts, int(counts.sum())


def found(pictures: Sequence[Pixels], change: _Change) -> list[int]:
    """Distances of changed copies; 257 where the index would not find it (no shared band, no hash)."""
    apart = []
    for picture in pictures:
        one, other = perceptual_hash(picture), perceptual_hash(change(picture))
        shares = bool(one and other and set(bands(one)) & set(bands(other)))
        apart.append(distance(one, other) if shares else 257)
    return apart


def line(name: str, apart: Sequence[int]) -> str:
    """Shares within each distance."""
    shares = (f"{100 * np.mean(np.array(apart) <= most):7.1f}" for most in _DISTANCES)
    return f"{name:<28} {len(apart):>5} {' '.join(shares)}"


def flat_pictures() -> Iterator[tuple[str, Pixels]]:
    """What must have no hash, of 512 pixels: 40 of each kind."""
    rng, side = np.random.default_rng(0), 512
    for _ in range(40):
        level = rng.uniform(40, 210, 3)
        yield "one colour", np.full((side, side, 3), level, np.uint8)
        for sigma in (2, 10, 40):
            yield f"noise of {sigma}", np.clip(rng.normal(level, sigma, (side, side, 3)), 0, 255).astype(np.uint8)
        for name, corners, how in (("gradient", 2, cv2.INTER_LINEAR), ("soft blobs", 4, cv2.INTER_CUBIC)):
            small = rng.uniform(0, 255, (corners, corners, 3)).astype(np.float32)
            yield name, np.clip(cv2.resize(small, (side, side), interpolation=how), 0, 255).astype(np.uint8)


def print_flat(corpus: Sequence[float]) -> None:
    """Contrast by kind."""
    print(f"\ncontrast (no hash under {FLAT:g})      n     least   median   most   no hash %")
    kinds: dict[str, list[float]] = {}
    for name, picture in flat_pictures():
        kinds.setdefault(name, []).append(phash.contrast(phash.shrunk(picture)))
    for name, values in (*kinds.items(), ("the corpus", corpus)):
        least, median, most = np.percentile(values, [0, 50, 100])
        none = 100 * np.mean(np.array(values) < FLAT)
        print(f"{name:<28} {len(values):>5} {least:8.2f} {median:8.2f} {most:7.2f}   {none:7.1f}")


def print_cost(picture: Pixels) -> None:
    """Milliseconds of one hash at several sides, median of 20."""
    costs = []
    for side in (256, 1024, 4096):
        large, spent = cv2.resize(picture, (side, side)).astype(np.uint8), []
        for _ in range(20):
            start = time.perf_counter()
            perceptual_hash(large)
            spent.append(time.perf_counter() - start)
        costs.append(f"{side} px {1000 * np.median(spent):.1f} ms")
    print("\none hash: " + ", ".join(costs))


def main() -> int:
    """Prints the tables; 1 when false matches are not rare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=os.environ.get("UNMASK_FACES"), help="folder with manifest.csv")
    parser.add_argument("--number", type=int, default=500, help="pictures that are changed (default: 500)")
    args = parser.parse_args()
    if args.faces is None:
        parser.error("say where the pictures are: --faces or UNMASK_FACES")
    with (args.faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    print(f"$ python bench/near_duplicates.py --faces DIR --number {args.number}")
    contrasts = {row["path"]: phash.contrast(phash.shrunk(read(args.faces / row["path"]))) for row in rows}
    hashes = {row["path"]: perceptual_hash(read(args.faces / row["path"])) for row in rows}
    known = [row for row in rows if hashes[row["path"]]]
    counts, pairs = false_matches([hashes[row["path"]] for row in known], [row["group"] for row in known])
    print(f"\n{'within, bits':<28} {'n':>5} " + " ".join(f"{most:>7}" for most in _DISTANCES))
    within = [int(counts[: most + 1].sum()) for most in _DISTANCES]
    print(f"{'false matches, pairs':<28} {pairs / 1e6:4.0f}M " + " ".join(f"{count:>7}" for count in within))
    print(f"{'false matches, a pair':<28}       " + " ".join(f"{count / pairs:7.0e}" for count in within))
    doctored = [row for row in known if row["pair"] and hashes.get(row["pair"])]
    print(line("face swaps, % of originals", [distance(hashes[row["path"]], hashes[row["pair"]]) for row in doctored]))
    step = max(len(rows) // args.number, 1)
    sample = [read(args.faces / row["path"]) for row in known[::step]]
    print("changed copies found, %")
    for name, change in CHANGES.items():
        print(line(name, found(sample, change)))
    print_cost(sample[0])
    print_flat(list(contrasts.values()))
    return int(counts[: MATCH + 1].sum() / pairs >= _RARE)


if __name__ == "__main__":
    sys.exit(main())
