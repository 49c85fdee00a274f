"""`unmask-train prepare-regions`: chips of doctored faces with their masks, kept without loss; and their reader."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.faces import Infer
from unmask.core.geometry import Floats
from unmask.core.images import Chip, Pixels, make_chip
from unmask.core.pictures import ImageLimits, decode
from unmask_training.data.chips import add_face_detector, face_detector, largest_face, part_of

INDEX: Final = "regions.jsonl"
PIXELS: Final = "regions.bin"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RegionRow:
    """One doctored face or undoctored twin: where its chip lies and what the manifest says of it."""

    path: str
    label: str
    engine: str
    region: str
    quartile: str
    source: str
    group: str
    donor_group: str
    part: str
    licence: str
    offset: int
    shape: tuple[int, int, int]
    to_unit: Floats


def parts_of(row: Mapping[str, str]) -> str:
    """The part of a doctored picture: that of its base and donor where both agree, else `none`: it is left out."""
    ours = part_of(row["split"], row["group"])
    donor = row.get("donor_group", "")
    return ours if not donor or part_of(row["split"], donor) == ours else "none"


def clean(mask: Mask) -> Mask:
    """A ragged mask (made from a difference) without its crumbs and holes: closed, opened, large pieces only."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    smooth = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, kernel[::2, ::2])
    contours, _ = cv2.findContours(smooth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    large = [c for c in contours if cv2.contourArea(c) >= 0.005 * mask.size]
    return cv2.drawContours(np.zeros_like(smooth), large, -1, 1, cv2.FILLED) > 0


def manifest_rows(folder: Path) -> list[dict[str, str]]:
    """Rows with a mask of a manifest of doctored faces, or of one of faces (the rows whose mask is named)."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.setdefault("engine", row.get("generator", ""))
        row.setdefault("region", "whole")
        row.setdefault("quartile", "")
        row.setdefault("donor_group", "")
    return [row for row in rows if row.get("mask")]


def prepare(folders: Sequence[Path], out: Path, infer: Infer) -> tuple[int, list[str]]:
    """Prepares every row that `out` does not hold yet; returns how many, and the pictures without a face."""
    out.mkdir(parents=True, exist_ok=True)
    done = {entry["path"] for entry in _entries(out)}
    todo = [(folder, row) for folder in folders for row in manifest_rows(folder) if row["path"] not in done]
    missed: list[str] = []
    with (out / INDEX).open("a", encoding="utf-8") as index, (out / PIXELS).open("ab") as pixels:
        for folder, row in tqdm(todo, desc="prepare regions", unit="picture", mininterval=5.0):
            entry: dict[str, Any] = {f.name: row[f.name] for f in fields(RegionRow) if f.name in row} | {"part": parts_of(row)}
            planes = _planes(folder, row, infer)
            if planes is None:
                missed.append(row["path"])
            else:
                chip, mask = planes
                entry |= {"offset": pixels.tell(), "shape": chip.pixels.shape, "to_unit": chip.to_unit.tolist()}
                pixels.write(chip.pixels.tobytes() + (mask.astype(np.uint8) * 255).tobytes())
                pixels.flush()
            index.write(json.dumps(entry) + "\n")
    return len(todo), missed


def _planes(folder: Path, row: Mapping[str, str], infer: Infer) -> tuple[Chip, Mask] | None:
    """The chip of the largest face and its mask in the chip's pixels."""
    picture = decode((folder / row["path"]).read_bytes(), ImageLimits())
    mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_GRAYSCALE)
    if mask is None or mask.shape != picture.shape[:2]:
        raise ValueError(f"{folder / row['mask']}: no mask of its picture's size")
    face = largest_face(picture, infer)
    if face is None:
        return None
    chip = make_chip(picture, face.box, face.landmarks)
    height, width = chip.pixels.shape[:2]
    placed = cv2.warpAffine(mask, chip.to_chip, (width, height), flags=cv2.INTER_LINEAR) > 127
    return chip, clean(placed) if row["engine"] == "faceswap" else placed


def _entries(out: Path) -> Iterator[Mapping[str, Any]]:
    path = out / INDEX
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


class Regions(Sequence[RegionRow]):
    """Prepared doctored faces: rows with a face, their chips and masks read from the file without copies."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise ValueError(f"{folder}: no prepared regions (no {INDEX}); run `unmask-train prepare-regions`")
        entries = [entry for entry in _entries(folder) if "offset" in entry]
        self.rows = [_row(entry) for entry in entries if entry["part"] != "none"]
        self._pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r") if self.rows else np.zeros(0, np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def planes(self, row: RegionRow) -> tuple[Pixels, Mask]:
        """The chip's (H, W, 3) pixels and (H, W) mask."""
        height, width, _ = row.shape
        middle, end = (row.offset + height * width * planes for planes in (3, 4))
        pixels = self._pixels[row.offset : middle].reshape(height, width, 3)
        return pixels, self._pixels[middle:end].reshape(height, width) > 0


def _row(entry: Mapping[str, Any]) -> RegionRow:
    height, width, channels = entry["shape"]
    told = dict(entry) | {"shape": (height, width, channels), "to_unit": np.array(entry["to_unit"], dtype=np.float64)}
    return RegionRow(**told)


def run(args: argparse.Namespace) -> int:
    """Prepares and says which pictures have no face."""
    count, missed = prepare(args.data, args.out, face_detector(args.face_detector))
    print(f"{count} pictures prepared in {args.out}; no face found in {len(missed)}")
    for path in missed:
        print(f"  {path}")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("prepare-regions", help="find faces in doctored pictures and keep chips and masks")
    command.add_argument("--data", type=Path, nargs="+", required=True, help="folders with manifest.csv naming masks")
    command.add_argument("--out", type=Path, required=True, help="folder of the prepared data (`prepare` may share it)")
    add_face_detector(command)
    command.set_defaults(run=run)
