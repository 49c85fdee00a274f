"""`unmask-train prepare`: every picture of a manifest once through face detection, its chip kept without loss."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from tqdm import tqdm

from unmask.core.faces import DetectedFace, DetectorSettings, Heads, Infer, find_faces
from unmask.core.geometry import Floats
from unmask.core.images import Chip, Pixels, make_chip
from unmask.core.pictures import ImageLimits, decode

INDEX: Final = "index.jsonl"
PIXELS: Final = "chips.bin"
_CALIBRATION_SHARE: Final = 12
_COLUMNS: Final = {"path", "label", "generator", "source", "group", "split", "licence"}


@dataclass(frozen=True, slots=True)
class Row:
    """One prepared picture: where its chip lies and what the manifest says of it."""

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


def largest_face(picture: Pixels, infer: Infer) -> DetectedFace | None:
    """The face that serving would put first, or None; in hundredths of a pixel, as alignment stores its rows."""
    face = next(iter(find_faces(picture, infer, DetectorSettings())), None)
    if face is None:
        return None
    return DetectedFace(_hundredths(face.box), _hundredths(face.landmarks), face.confidence)


def _hundredths(values: Floats) -> Floats:
    return np.array([round(float(value), 2) for value in values.flat]).reshape(values.shape)


def prepare(faces: Path, out: Path, infer: Infer) -> tuple[int, list[str]]:
    """Prepares every row of `faces/manifest.csv` that `out` does not hold yet; returns how many, and the faceless."""
    with (faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        lacking = sorted(_COLUMNS - set(reader.fieldnames or ()))
        if lacking:
            raise ValueError(f"{faces / 'manifest.csv'}: no column {', '.join(lacking)}")
        manifest = list(reader)
    out.mkdir(parents=True, exist_ok=True)
    _drop_torn_line(out / INDEX)
    done = {entry["path"] for entry in _entries(out)}
    missed: list[str] = []
    with (out / INDEX).open("a", encoding="utf-8") as index, (out / PIXELS).open("ab") as pixels:
        # A run that was cut off may have left pixels without an index line; they are simply never read.
        for row in tqdm([row for row in manifest if row["path"] not in done], desc="prepare", unit="picture"):
            picture = decode((faces / row["path"]).read_bytes(), ImageLimits())
            face = largest_face(picture, infer)
            entry: dict[str, Any] = {key: row[key] for key in ("path", "label", "group", "licence")}
            entry |= {"kind": row["generator"] or row["source"], "part": part_of(row["split"], row["group"])}
            if face is None:
                missed.append(row["path"])
            else:
                chip = make_chip(picture, face.box, face.landmarks)
                entry |= {"offset": pixels.tell(), "shape": chip.pixels.shape, "face": round(face.side)}
                entry |= {"to_chip": chip.to_chip.tolist(), "to_unit": chip.to_unit.tolist()}
                pixels.write(chip.pixels.tobytes())
                pixels.flush()
            index.write(json.dumps(entry) + "\n")
    return len(manifest) - len(done), missed


def _drop_torn_line(index: Path) -> None:
    """Cuts off a last line that was not written to its end: its picture is done again."""
    if index.is_file() and not (data := index.read_bytes()).endswith(b"\n"):
        index.write_bytes(data[: data.rfind(b"\n") + 1])


def _entries(out: Path) -> Iterator[Mapping[str, Any]]:
    path = out / INDEX
    if path.is_file():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


class Chips(Sequence[Row]):
    """Prepared data: rows with a face, and their chips read from the file without copies."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise ValueError(f"{folder}: not prepared data (no {INDEX}); run `unmask-train prepare`")
        self.rows = [_row(entry) for entry in _entries(folder) if "offset" in entry]
        self.faceless = [str(entry["path"]) for entry in _entries(folder) if "offset" not in entry]
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
    return Row(**same, shape=(height, width, channels))


def run(args: argparse.Namespace) -> int:
    """Prepares and says which pictures have no face."""
    count, missed = prepare(args.faces, args.out, face_detector(args.face_detector))
    print(f"{count} pictures prepared in {args.out}; no face found in {len(missed)}")
    for path in missed:
        print(f"  {path}")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("prepare", help="find faces and keep their chips, so that training need not decode")
    command.add_argument("--faces", type=Path, required=True, help="folder with manifest.csv")
    command.add_argument("--out", type=Path, required=True, help="folder for the prepared data")
    add_face_detector(command)
    command.set_defaults(run=run)
