"""`unmask-train sheet`: a picture of many faces, the true mask's outline in green and the drawn polygons in red."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from unmask.core.images import Pixels
from unmask.core.masks import Heads, face_score, shown_regions
from unmask_training.localizer.evaluate import Case, heads_of, masked_cases, view_of
from unmask_training.localizer.rows import Regions
from unmask_training.measuring.evaluating import read_card

_GREEN: Final = (0, 220, 60)
_RED: Final = (255, 40, 40)
_COLUMNS: Final = 8


def tile(case: Case, heads: Heads, thresholds: Mapping[str, float]) -> Pixels:
    """The view above, the same view with outlines below, its engine and best score written on it."""
    size = case.view.shape[0]
    marked = np.ascontiguousarray(case.view.copy())
    if case.mask is not None:
        outlines, _ = cv2.findContours(case.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(marked, outlines, -1, _GREEN, 1)
    for region in shown_regions(heads, size, thresholds):
        cv2.polylines(marked, [np.round(region.polygon).astype(np.int32)], True, _RED, 1)
    text = f"{case.kind[:22]} {case.region[:8]} {face_score(heads):.2f}"
    cv2.putText(marked, text, (2, size - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (255, 255, 0), 1, cv2.LINE_AA)
    return np.concatenate([case.view, marked]).astype(np.uint8, copy=False)


def sheet(folder: Path, data: Path, part: str, count: int, seed: int) -> Pixels:
    """Tiles of `count` doctored faces and twins drawn at random."""
    card = read_card(folder)
    cases = list(masked_cases(view_of(card), Regions(data), part))
    if not cases:
        raise ValueError(f"{data}: no doctored faces in part {part!r}")
    order = np.random.default_rng(seed).permutation(len(cases))[: max(count // _COLUMNS, 1) * _COLUMNS]
    chosen = [cases[i] for i in order]
    found = heads_of(folder, (case.view for case in chosen))
    tiles = [tile(case, heads, card.thresholds) for case, heads in zip(chosen, found, strict=True)]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
    return np.concatenate(rows)


def run(args: argparse.Namespace) -> int:
    """Writes the sheet as PNG."""
    pixels = sheet(args.model, args.data, args.part, args.count, args.seed)
    if not cv2.imwrite(str(args.out), np.ascontiguousarray(pixels[..., ::-1])):
        raise OSError(f"{args.out}: could not be written")
    print(args.out)
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("sheet", help="draw a localizer's polygons beside the true masks")
    command.add_argument("model", type=Path, help="version folder, e.g. model_repository/localizer/1")
    command.add_argument("data", type=Path, help="prepared data")
    command.add_argument("out", type=Path, help="PNG to write")
    command.add_argument("--part", default="val", choices=("val", "calibrate"), help="which part (default: val)")
    command.add_argument("--count", type=int, default=32, help="how many faces (default: 32)")
    command.add_argument("--seed", type=int, default=0, help="which faces (default: 0)")
    command.set_defaults(run=run)
