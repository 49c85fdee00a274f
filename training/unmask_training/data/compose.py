"""Pictures of several faces, one of them generated in half of them: to check a whole picture's verdict end to end."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from tqdm import tqdm

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Pixels, shrink_area
from unmask_training.data.chips import Chips, Row

COLUMNS: Final = (
    "path", "label", "generator", "source", "group", "split", "licence", "faces", "boxes", "generated", "members",
)  # fmt: skip
# The square around a face in template squares: nearly every corpus has pixels of its own there, so that no face shows
# by its frame which corpus it is from.
_MARGIN: Final = 1.1
# Its centre in the template: the face detector's box reaches lower than the landmarks.
_CENTRE: Final = np.array([[0.5, 0.55]])
# Where the face detector's box lies in the template: the median over 132 faces of 14 corpora's pictures, x0 y0 x1 y1.
_BOX: Final = (0.15, 0.10, 0.85, 1.06)
_TILES: Final = (144, 208)
_ARRANGED: Final = {2: ((1, 2), (2, 1)), 3: ((1, 3),), 4: ((1, 4), (2, 2))}
_QUALITY: Final = (80, 95)


@dataclass(frozen=True, slots=True)
class _Tile:
    """A face that can be cut out as a square of pixels of its own: left, top, side in its chip's pixels."""

    row: Row
    left: int
    top: int
    side: int


def compose(chips: Chips, out: Path, count: int, seed: int) -> Path:
    """Writes `count` composed JPEGs and their manifest.csv to `out`; returns the folder.  The same for the same seed.

    Two to four faces of part `val`, of different groups, stand side by side or on a grid, all of one size, in one JPEG
    encoded once.  Every second picture holds exactly one generated face and is labelled `synthetic`, the others none.
    Columns beyond the usual ones: `faces` (how many), `boxes` (JSON: a list of x0 y0 x1 y1 in pixels, about where the
    face detector puts them), `generated` (which of them, from 0; empty where none), `members` (JSON: the faces' names in the
    index).  These are for `unmask check`: preparing them would take the largest face alone, by another's label.
    Raises `ValueError` where there are too few faces.
    """
    pools = {label: _tiles(chips, label) for label in ("real", "synthetic")}
    for label, pool in pools.items():
        least = 4 if label == "real" else 1
        groups = {tile.row.group for tile in pool}
        if len(groups) < least:
            raise ValueError(
                f"--compose needs {label} faces of at least {least} groups in part val, {_TILES[0]} pixels large or more with"
                f" their surroundings; there are {len(groups)}"
            )
    out.mkdir(parents=True, exist_ok=True)
    with (out / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for number in tqdm(range(count), desc="compose", unit="picture", mininterval=2.0):
            writer.writerow(_compose(chips, pools, out, number, np.random.default_rng([seed, number])))
    return out


def _tiles(chips: Chips, label: str) -> list[_Tile]:
    """The faces of a label in `val` that have pixels of their own all around, in the order of their names."""
    found: list[_Tile] = []
    for row in sorted(chips.rows, key=lambda row: row.path):
        if row.part != "val" or row.label != label:
            continue
        side = int(_MARGIN / geometry.scale_of(row.to_unit))
        centre = geometry.apply(geometry.invert(row.to_unit), _CENTRE)[0]
        left, top = (round(float(value) - side / 2.0) for value in centre)
        if side >= _TILES[0] and left >= 0 and top >= 0 and left + side <= row.shape[1] and top + side <= row.shape[0]:
            found.append(_Tile(row, left, top, side))
    return found


def _compose(
    chips: Chips, pools: Mapping[str, Sequence[_Tile]], out: Path, number: int, rng: np.random.Generator
) -> dict[str, str]:
    """Draws, writes and describes one picture."""
    count, fake = int(rng.integers(2, 5)), number % 2 == 1
    wanted = ["real"] * count
    generated = int(rng.integers(count))
    if fake:
        wanted[generated] = "synthetic"
    tiles = _drawn(pools, wanted, rng)
    side = int(rng.integers(_TILES[0], min(_TILES[1], *(tile.side for tile in tiles)) + 1))
    canvas, boxes = _canvas(chips, tiles, side, rng)
    buffer = io.BytesIO()
    quality = int(rng.integers(_QUALITY[0], _QUALITY[1] + 1))
    Image.fromarray(canvas).save(buffer, "JPEG", quality=quality, subsampling=2)
    # The name says nothing of the truth.
    name = f"composed-{number:06d}"
    (out / f"{name}.jpg").write_bytes(buffer.getvalue())
    rows = [tile.row for tile in tiles]
    told = {
        "path": f"{name}.jpg",
        "label": "synthetic" if fake else "real",
        "source": "composed",
        "group": name,
        "split": "val",
    }
    told |= {"generator": rows[generated].kind if fake else "", "generated": str(generated) if fake else ""}
    told |= {"licence": "; ".join(sorted({row.licence for row in rows})), "faces": str(count)}
    return told | {"boxes": json.dumps(boxes), "members": json.dumps([row.path for row in rows])}


def _drawn(pools: Mapping[str, Sequence[_Tile]], wanted: Sequence[str], rng: np.random.Generator) -> list[_Tile]:
    """A face for each label, of groups that differ; kinds are drawn alike before faces are."""
    tiles: list[_Tile] = []
    # The generated one first: reals have other groups to turn to.
    order = sorted(range(len(wanted)), key=lambda i: wanted[i] == "real")
    for i in order:
        taken = {tile.row.group for tile in tiles}
        left = [tile for tile in pools[wanted[i]] if tile.row.group not in taken]
        kinds = sorted({tile.row.kind for tile in left})
        kind = kinds[rng.integers(len(kinds))]
        of_kind = [tile for tile in left if tile.row.kind == kind]
        tiles.append(of_kind[rng.integers(len(of_kind))])
    return [tiles[order.index(i)] for i in range(len(wanted))]


def _canvas(chips: Chips, tiles: Sequence[_Tile], side: int, rng: np.random.Generator) -> tuple[Pixels, list[list[float]]]:
    """The faces on one canvas (H, W, 3), and the box of each face in it."""
    arrangements = _ARRANGED[len(tiles)]
    rows, columns = arrangements[rng.integers(len(arrangements))]
    gap = int(rng.integers(0, side // 6 + 1))
    height, width = (many * (side + gap) + gap for many in (rows, columns))
    canvas = np.full((height, width, 3), rng.integers(40, 216), np.uint8)
    boxes: list[list[float]] = []
    for place, tile in enumerate(tiles):
        y, x = (gap + int(at) * (side + gap) for at in divmod(place, columns))
        source = chips.chip(tile.row).pixels[tile.top : tile.top + tile.side, tile.left : tile.left + tile.side]
        small, matrix = shrink_area(source, side / tile.side)
        canvas[y : y + side, x : x + side] = small
        placed = geometry.compose(matrix, geometry.scaling(1.0, (float(-tile.left), float(-tile.top))))
        placed = geometry.compose(geometry.scaling(1.0, (float(x), float(y))), placed)
        boxes.append(_box(geometry.compose(placed, geometry.invert(tile.row.to_unit)), width, height))
    return canvas, boxes


def _box(from_unit: Floats, width: int, height: int) -> list[float]:
    """The upright box of a face's middle height and width, within the canvas, in tenths of a pixel."""
    centre = np.array([[(_BOX[0] + _BOX[2]) / 2.0, (_BOX[1] + _BOX[3]) / 2.0]])
    half = np.array([_BOX[2] - _BOX[0], _BOX[3] - _BOX[1]]) / 2.0 * geometry.scale_of(from_unit)
    corners = geometry.apply(from_unit, centre) + np.stack([-half, half])
    low, high = np.maximum(corners.min(axis=0), 0.0), np.minimum(corners.max(axis=0), (width, height))
    return [round(float(value), 1) for value in (*low, *high)]
