"""`unmask-train manipulate`: doctored faces with exact masks, and their undoctored twins, from a folder of faces."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from unmask.core import geometry
from unmask.core.faces import Infer
from unmask.core.images import Pixels, shrink_area, unit_transform
from unmask.core.pictures import ImageLimits, decode
from unmask_training.data.chips import add_face_detector, face_detector, largest_face
from unmask_training.data.manipulate_engines import DONATED, ENGINES, Copier, Face, Mask, doctor
from unmask_training.data.manipulate_shapes import BOX_AREA, REGIONS, outlines, rasterise
from unmask_training.data.round_trips import RoundTrips

COLUMNS: Final = (
    "path", "mask", "label", "engine", "region", "quartile", "area", "source", "group", "base", "donor_source",
    "donor_generator", "donor_group", "donor_licence", "split", "width", "quality", "licence",
)  # fmt: skip
_ENGINE_SHARES: Final = (0.3, 0.2, 0.06, 0.06, 0.06, 0.12, 0.06, 0.14)
_REGION_SHARES: Final = (0.12, 0.1, 0.1, 0.12, 0.05, 0.05, 0.05, 0.05, 0.12, 0.24)
_TWINS: Final = 0.2
_GENERATED_DONORS: Final = 0.4
_LEAST_SIDE: Final = 208
_TRIES: Final = 8

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to a base: engine, region and, for an ellipse, its quartile (else 0)."""

    engine: str
    region: str
    quartile: int

    @staticmethod
    def draw(rng: np.random.Generator, copies: bool = True) -> Plan:
        """A plan by the shares above; inpainting only fills small regions, and round trips need autoencoders (`copies`)."""
        while True:
            engine, region = str(rng.choice(ENGINES, p=_ENGINE_SHARES)), str(rng.choice(REGIONS, p=_REGION_SHARES))
            if engine == "autoencoder" and not copies:
                continue
            small = engine == "opencv_inpaint"
            if small and (region == "whole" or region.startswith("half")):
                continue
            return Plan(engine, region, int(rng.integers(1, 3 if small else 5)) if region == "ellipse" else 0)


class Maker:
    """Makes one doctored face or twin after the other; the n-th depends on the seed and on n alone."""

    def __init__(
        self,
        faces: Path,
        infer: Infer,
        seed: int,
        split: str,
        sources: Sequence[str] = (),
        copier: Copier | None = None,
    ) -> None:
        with (faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        self._folder, self._infer, self._seed, self._split = faces, infer, seed, split
        self._copier = copier
        self._reals = [row for row in rows if row["label"] == "real" and (not sources or row["source"] in sources)]
        self._generated = [row for row in rows if row["label"] == "synthetic"]
        if not self._reals:
            raise ValueError(f"{faces}: no real faces of split {split!r} to start from")

    def make(self, number: int, out: Path) -> Row | None:
        """Writes picture and mask of one number; None where no face, donor or visible change was found."""
        rng = np.random.default_rng([self._seed, number])
        twin = rng.uniform() < _TWINS
        factor = rng.uniform(0.58, 0.95) if rng.uniform() < 0.85 else 1.0
        quality = int(rng.integers(80, 96))
        for _ in range(_TRIES):
            row = self._reals[int(rng.integers(len(self._reals)))]
            base = self._face(row, factor)
            made = None if base is None else self._changed(base, row, twin, rng)
            if base is not None and made is not None:
                pixels, mask, told = made
                return self._write(out, number, pixels, mask, quality, self._entry(row, base, mask, told))
        return None

    def _changed(self, base: Face, row: Row, twin: bool, rng: np.random.Generator) -> tuple[Pixels, Mask, Row] | None:
        if twin:
            return base.pixels, np.zeros(base.pixels.shape[:2], dtype=np.bool_), {"engine": "none", "region": "none"}
        plan, told, donor = Plan.draw(rng, self._copier is not None), {}, None
        if plan.engine in DONATED:
            generated = bool(self._generated) and rng.uniform() < _GENERATED_DONORS
            pool = self._generated if generated else [r for r in self._reals if r["group"] != row["group"]]
            if not pool:
                raise ValueError(f"{self._folder}: no second person to take a donor from")
            chosen = pool[int(rng.integers(len(pool)))]
            donor = self._face(chosen, 1.0)
            if donor is None:
                return None
            told = {f"donor_{key}": chosen[key] for key in ("source", "generator", "group", "licence")}
        mask = rasterise(outlines(plan.region, rng, plan.quartile), base.to_unit, base.pixels.shape[:2])
        made = doctor(base, donor, mask, plan.engine, rng, copier=self._copier)
        quartile = str(plan.quartile) if plan.quartile else ""
        return None if made is None else (*made, told | {"engine": plan.engine, "region": plan.region, "quartile": quartile})

    def _face(self, row: Row, factor: float) -> Face | None:
        """The picture, shrunk unless it is small already, and where its largest face lies."""
        pixels = decode((self._folder / row["path"]).read_bytes(), ImageLimits())
        if factor < 1.0 and min(pixels.shape[:2]) * factor >= _LEAST_SIDE:
            pixels, _ = shrink_area(pixels, factor)
        found = largest_face(pixels, self._infer)
        return None if found is None else Face(pixels, unit_transform(found.box, found.landmarks))

    def _entry(self, row: Row, base: Face, mask: Mask, told: Row) -> Row:
        share = min(1.0, float(mask.sum()) * geometry.scale_of(base.to_unit) ** 2 / BOX_AREA)
        origin = {"source": row["source"], "group": row["group"], "base": row["path"], "licence": row["licence"]}
        label, width = "manipulated" if mask.any() else "real", str(base.pixels.shape[1])
        return origin | told | {"label": label, "split": self._split, "width": width, "area": f"{share:.4f}"}

    @staticmethod
    def _write(out: Path, number: int, pixels: Pixels, mask: Mask, quality: int, entry: Row) -> Row:
        name = f"{entry['split']}/{entry['engine']}-{number:06d}"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
        (out / f"{name}.jpg").write_bytes(buffer.getvalue())
        cv2.imwrite(str(out / f"{name}.mask.png"), mask.astype(np.uint8) * 255)
        return entry | {"path": f"{name}.jpg", "mask": f"{name}.mask.png", "quality": str(quality)}


def manipulate(maker: Maker, out: Path, numbers: Sequence[int]) -> tuple[int, int]:
    """Makes these numbers and appends them to the manifest; those it holds already stay.  Returns made and given up."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "manifest.csv"
    done = set()
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            done = {int(Path(row["path"]).stem.rsplit("-", 1)[1]) for row in csv.DictReader(file)}
    todo, made = [number for number in numbers if number not in done], 0
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if not done and path.stat().st_size == 0:
            writer.writeheader()
        for number in tqdm(todo, desc="manipulate", unit="picture", mininterval=2.0):
            if (entry := maker.make(number, out)) is not None:
                writer.writerow(entry)
                file.flush()
                made += 1
    return made, len(todo) - made


def run(args: argparse.Namespace) -> int:
    """Makes them and says how many."""
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, not {args.count}")
    copier = None if args.autoencoders is None else RoundTrips.load(args.autoencoders)
    maker = Maker(args.faces, face_detector(args.face_detector), args.seed, args.split, args.sources or (), copier)
    made, lost = manipulate(maker, args.out, range(args.first, args.first + args.count))
    print(f"{made} pictures made in {args.out}; {lost} numbers given up")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command, and those of the localizer that stand beside it."""
    command = subparsers.add_parser("manipulate", help="make doctored faces with exact masks, and undoctored twins")
    command.add_argument("--faces", type=Path, required=True, help="folder with manifest.csv (label, source, group, split)")
    command.add_argument("--out", type=Path, required=True, help="folder for pictures, masks and manifest.csv")
    command.add_argument("--count", type=int, required=True, help="how many numbers to make")
    command.add_argument("--first", type=int, default=0, help="first number: ranges in several folders may run side by side")
    command.add_argument("--seed", type=int, default=1, help="seed (default: 1)")
    command.add_argument("--split", default="train", choices=("train", "val"), help="bases and donors come from it alone")
    command.add_argument("--sources", nargs="+", help="only these sources of real faces as bases and donors")
    command.add_argument("--autoencoders", type=Path, help="file of `autoencoders`; without it no region is a round trip")
    add_face_detector(command)
    command.set_defaults(run=run)
