"""The tower's features of prepared faces, view by view, kept on disk: the tower is run once, heads are fitted many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.images import Border, View, ViewContract
from unmask.core.vit_trunk import PIXELS
from unmask_training.data.augment import Ranges, draw, draw_face
from unmask_training.data.chips import Chips, Row
from unmask_training.tower.parts import pixels_of

_BATCH: Final = 16
Half = NDArray[np.float16]
Cutter = Callable[[tuple[int, Row]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Draws augmented view number `view` of a row, the same at every call."""

    chips: Chips
    size: int
    augment: Ranges
    seed: int

    def __call__(self, row: Row, number: int, view: int) -> NDArray[np.uint8]:
        """(S, S, 3) RGB; `number` is the row's place in the data, of which the draw is a function."""
        chip = self.chips.chip(row)
        rng = np.random.default_rng([view + 1000 * self.seed, number])
        drawn, _ = draw(chip, draw_face(self.augment, rng), self.size, self.augment, rng)
        return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def contract(size: int) -> ViewContract:
    """The view that the detector takes."""
    return ViewContract(View.ALIGNED, size, 1.0, Border.REFLECT)


def features_of(session: onnxruntime.InferenceSession, cutter: Cutter, rows: Sequence[tuple[int, Row]], kept: Path) -> Half:
    """Features (N, 5376) of the views that `cutter` makes of numbered rows, from the file `kept` where it holds them.

    The file is written at the end: what was cut off begins with its view again.  Raises `ValueError` when the file holds
    other rows.
    """
    numbers = np.array([number for number, _ in rows], dtype=np.int64)
    if kept.is_file():
        with np.load(kept) as held:
            if np.array_equal(held["numbers"], numbers):
                return np.asarray(held["features"], dtype=np.float16)
        raise ValueError(f"{kept}: features of other rows; give another --out, or delete it")
    found = [
        np.asarray(session.run(None, {PIXELS: pixels_of(batch)})[0], dtype=np.float16)
        for batch in _ahead(rows, cutter, kept.stem)
    ]
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(".writing.npz")
    np.savez(aside, features=np.concatenate(found), numbers=numbers)
    aside.replace(kept)
    return np.concatenate(found)


def _ahead(items: Sequence[Any], cutter: Cutter, what: str) -> Iterator[NDArray[np.uint8]]:
    """Batches of views, the next one cut while the present one is in use."""
    cv2.setNumThreads(1)
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]

    def views(batch: Sequence[Any]) -> NDArray[np.uint8]:
        return np.stack([cutter(item) for item in batch])

    with ThreadPoolExecutor(1) as pool, tqdm(total=len(items), desc=what, unit="face", disable=None) as bar:
        coming = pool.submit(views, batches[0])
        for following in [*batches[1:], []]:
            batch = coming.result()
            if following:
                coming = pool.submit(views, following)
            yield batch
            bar.update(len(batch))
