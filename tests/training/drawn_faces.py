"""Faces drawn on the spot, which the face detector finds, and prepared data in miniature."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from unmask.core import geometry
from unmask.core.images import Pixels

COLUMNS = ("path", "label", "generator", "source", "group", "split", "licence")
REALS, GENERATORS = ("photos", "portraits"), ("gan", "diffusion")


def drawn_face(side: int = 320, seed: int = 0) -> Pixels:
    """A cartoon portrait (side, side, 3), lit from one side, with noise of its own."""
    scale, skin, hair = side / 320, (215, 170, 145), (70, 45, 30)
    picture = np.full((side, side, 3), (120, 140, 160), np.uint8)

    def oval(x: int, y: int, a: int, b: int, colour: tuple[int, int, int], start: int = 0) -> None:
        centre, axes = (round(x * scale), round(y * scale)), (round(a * scale), round(b * scale))
        cv2.ellipse(picture, centre, axes, 0, start, 360, colour, -1, cv2.LINE_AA)

    oval(160, 150, 92, 118, hair)
    oval(160, 290, 34, 70, (200, 150, 125))
    oval(160, 175, 72, 95, skin)
    for x in (130, 190):
        oval(x, 145, 19, 6, hair, start=180)
        oval(x, 161, 15, 8, (250, 250, 250))
        oval(x, 161, 7, 7, (60, 40, 30))
    oval(160, 195, 9, 26, (195, 145, 120))
    for x in (153, 167):
        oval(x, 210, 4, 4, (120, 70, 60))
    oval(160, 236, 27, 9, (180, 70, 80))
    oval(160, 236, 25, 1, (110, 40, 50))
    light = 1.1 - 0.4 * np.linspace(0, 1, side)[None, :, None]
    soft = cv2.GaussianBlur(picture, (0, 0), 2 * scale) * light
    return np.clip(soft + np.random.default_rng(seed).normal(0, 4, soft.shape), 0, 255).astype(np.uint8)


def manifest(folder: Path, rows: Sequence[dict[str, str]], pictures: dict[str, Pixels]) -> Path:
    """A corpus: manifest.csv and its pictures as PNG."""
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    for path, pixels in pictures.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path)
    return folder


def pattern(fake: bool, side: int, seed: int) -> Pixels:
    """A textured square; the generated ones are greener, which a network learns in a few steps."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(60, 190, (5, 5, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    tint = np.array([-25.0, 40.0, -25.0]) if fake else np.array([15.0, -25.0, 15.0])
    return np.clip(smooth + tint + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def prepared(folder: Path, each: int = 12, side: int = 96) -> Path:
    """Prepared data of `each` made-up chips a kind: a third each for fitting, calibration and validation."""
    folder.mkdir(parents=True, exist_ok=True)
    to_unit = geometry.scaling(2.0 / side, (-0.5, -0.5))
    lines, pixels = [], b""
    for number, kind in enumerate((*REALS, *GENERATORS)):
        for i in range(each):
            fake, part = kind in GENERATORS, ("fit", "calibrate", "val")[i % 3]
            entry = {"path": f"{kind}/{i}.jpg", "label": "synthetic" if fake else "real", "kind": kind, "part": part}
            entry |= {"group": f"{kind}{i // 2}", "licence": "CC0", "face": side // 2, "offset": len(pixels)}
            matrices = {"to_chip": np.eye(2, 3).tolist(), "to_unit": to_unit.tolist()}
            lines.append(json.dumps(entry | matrices | {"shape": [side, side, 3]}) + "\n")
            pixels += pattern(fake, side, 1000 * number + i).tobytes()
    (folder / "index.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "chips.bin").write_bytes(pixels)
    return folder


def recipe(**changes: object) -> dict[str, object]:
    """A recipe for `prepared` data that a test can run."""
    shares = {"real": dict.fromkeys(REALS, 1.0), "synthetic": dict.fromkeys(GENERATORS, 1.0)}
    run = {"size": 32, "batch": 8, "steps": 4, "warmup": 2, "dropout": 0.0, "threads": 1, "seed": 7}
    return {"recipe": "mobilenet_v2", **shares, **run, "augment": {"face": [24.0, 48.0], "sharp": [40.0, 48.0]}} | changes
