"""Prepared chips: their index and pixels on disk, the face detector they are made with, and their reader."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from unmask.core.faces import DetectedFace, DetectorSettings, Heads, Infer, find_faces
from unmask.core.geometry import Floats
from unmask.core.images import Chip, Pixels

INDEX: Final = "index.jsonl"
PIXELS: Final = "chips.bin"
_CALIBRATION_SHARE: Final = 12
# How far the tip of the nose stands before the eyes, in distances between the eyes' centres: 4.010 / 6.302 cm.
# Source: MediaPipe's canonical face model (canonical_face_model.obj), vertices 1 (nose) and 33, 133 (corners of an eye).
_NOSE_BEFORE_EYES: Final = 0.636


@dataclass(frozen=True, slots=True)
class Row:
    """One prepared picture: where its chip lies and what its corpus says of it.

    `extra` holds what else is known, as text: further columns of the manifest, `source`, `split` (the corpus's own word),
    `faces` (found in the picture) and `yaw` (degrees, rough).  It is empty in data that were prepared before it was kept.
    """

    path: str
    label: str
    kind: str
    group: str
    part: str
    face: int
    licence: str
    offset: int
    shape: tuple[int, int, int]
    to_chip: Floats
    to_unit: Floats
    extra: Mapping[str, str] = field(default_factory=dict)


def part_of(split: str, group: str) -> str:
    """`val`, or for training pictures `fit` or `calibrate`: every twelfth group, by its hash, so that it never moves."""
    if split == "val":
        return "val"
    number = int.from_bytes(hashlib.sha256(group.encode()).digest(), "big")
    return "calibrate" if number % _CALIBRATION_SHARE == 0 else "fit"


def face_detector(path: Path) -> Infer:
    """The served face detector (uint8 NHWC RGB) on one thread."""
    if not path.is_file():
        raise ValueError(f"{path}: no face detector there; `unmask models fetch` makes it")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def infer(canvases: Pixels) -> Heads:
        loc, conf, landmarks = session.run(["loc", "conf", "landmarks"], {"image": canvases})
        return loc, conf, landmarks

    return infer


def add_face_detector(command: argparse.ArgumentParser) -> None:
    """Adds the option that says which face detector is used."""
    default = Path(__file__).resolve().parents[3] / "model_repository" / "face_detector" / "1" / "model.onnx"
    command.add_argument("--face-detector", type=Path, default=default, help="its ONNX file (default: the repository's)")


def faces_of(picture: Pixels, infer: Infer) -> list[DetectedFace]:
    """The faces that serving would find, largest first; in hundredths of a pixel, as alignment stores its rows."""
    found = find_faces(picture, infer, DetectorSettings())
    return [DetectedFace(_hundredths(face.box), _hundredths(face.landmarks), face.confidence) for face in found]


def largest_face(picture: Pixels, infer: Infer) -> DetectedFace | None:
    """The face that serving would put first, or None."""
    return next(iter(faces_of(picture, infer)), None)


def _hundredths(values: Floats) -> Floats:
    return np.array([round(float(value), 2) for value in values.flat]).reshape(values.shape)


def yaw_of(landmarks: Floats) -> float:
    """Rough yaw in degrees from the five landmarks (5, 2); positive where the nose points to the picture's right.

    Weak perspective: eyes E apart and a nose d before them show, turned by yaw, E cos(yaw) and d sin(yaw), so
    tan(yaw) = (offset of the nose from the eyes' middle, along their line) / (distance of the eyes) / (d / E).  The
    proportion d / E is an average person's, so that single faces are off by some degrees, and profiles by more.
    """
    across = landmarks[1] - landmarks[0]
    distance = float(np.linalg.norm(across))
    if distance < 1e-6:
        return 0.0
    offset = float((landmarks[2] - (landmarks[0] + landmarks[1]) / 2.0) @ across) / distance
    return math.degrees(math.atan(offset / distance / _NOSE_BEFORE_EYES))


def drop_torn_line(index: Path) -> None:
    """Cuts off a last line that was not written to its end: its picture is done again."""
    if index.is_file() and not (data := index.read_bytes()).endswith(b"\n"):
        index.write_bytes(data[: data.rfind(b"\n") + 1])


def entries(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The index line by line, nothing where there is none; an entry without `offset` is a picture without a face."""
    path = folder / INDEX
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)


class Chips(Sequence[Row]):
    """Prepared data: rows with a face, and their chips read from the file without copies."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise ValueError(f"{folder}: not prepared data (no {INDEX}); run `unmask-train prepare`")
        self.rows: list[Row] = []
        self.faceless: list[str] = []
        for entry in entries(folder):
            if "offset" in entry:
                self.rows.append(_row(entry))
            else:
                self.faceless.append(str(entry["path"]))
        if not self.rows:
            raise ValueError(f"{folder}: no face in any of its {len(self.faceless)} pictures")
        self._pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def chip(self, row: Row) -> Chip:
        """The chip as serving would cut it from the picture."""
        flat = self._pixels[row.offset : row.offset + int(np.prod(row.shape))]
        return Chip(flat.reshape(row.shape), row.to_chip, row.to_unit)


def _row(entry: Mapping[str, Any]) -> Row:
    height, width, channels = entry["shape"]
    same: dict[str, Any] = {
        name: entry[name] for name in ("path", "label", "kind", "group", "part", "face", "licence", "offset")
    }
    same |= {name: np.array(entry[name], dtype=np.float64) for name in ("to_chip", "to_unit")}
    return Row(**same, shape=(height, width, channels), extra=dict(entry.get("extra", {})))
