"""What the localizer sees in training: doctored faces made on the spot or prepared, and undoctored ones, delivered alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask.core.images import Border, Chip, Pixels, View, ViewContract, shrink_area, view_transform, warp
from unmask_training.data.chips import Chips, Row
from unmask_training.data.manipulate_engines import DONATED, ENGINES, Face, doctor, jpeg
from unmask_training.data.manipulate_shapes import REGIONS, outlines, part_outlines, rasterise
from unmask_training.data.round_trips import RoundTrips
from unmask_training.localizer.rows import Mask, RegionRow, Regions

AUTOENCODERS: Final = "autoencoders.safetensors"
# `photoshop`: expert splices without masks, whose spliced parts are known by name; their masks are rough.
PHOTOSHOP: Final = "photoshop"
KINDS: Final = ("prepared", "faceswap", PHOTOSHOP, "made", "real", "synthetic")
_REGION_SHARES: Final = dict(zip(REGIONS, (0.12, 0.1, 0.1, 0.12, 0.05, 0.05, 0.05, 0.05, 0.12, 0.24), strict=True))
# What training begins with: the plainest engines, delivered nearly as they are.
_EASY_ENGINES: Final = {"splice_poisson": 0.1, "splice_feather": 0.65, "self_mirror": 0.1, "local_resample": 0.15}
_PLAIN_CHANGE: Final = 16.0
_ENGINES: Final = {
    "splice_poisson": 0.32, "splice_feather": 0.32, "self_mirror": 0.09, "local_resample": 0.19, "opencv_inpaint": 0.08,
}  # fmt: skip
_SUBSAMPLINGS: Final = (0x111111, 0x221111, 0x221111, 0x211111)
# Pieces below this many pixels of the view are crumbs of the warp, not regions.
_LEAST_PIECE: Final = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """One view: (S, S, 3) uint8 RGB, its mask (S, S), of which of `KINDS` it is, and the engine of a doctored one.

    Splices of generated donors are of the engine `generator_donor`, whichever way they were blended.
    """

    view: Pixels
    mask: Mask
    kind: str
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How every picture is delivered, doctored or not: ranges are uniform, `p_` are probabilities."""

    p_resize: float = 0.6
    resize: tuple[float, float] = (0.5, 1.0)
    p_jpeg: float = 0.85
    jpeg: tuple[int, int] = (40, 95)
    p_blur: float = 0.08
    blur: tuple[float, float] = (0.3, 1.0)
    p_light: float = 0.3
    turn: float = 3.0
    shift: float = 0.015
    scale: float = 0.03

    @staticmethod
    def of(told: Mapping[str, Any]) -> Delivery:
        """Reads the recipe's `delivery` section; raises `ValueError` naming an unknown key."""
        unknown = sorted(set(told) - set(Delivery.__slots__))
        if unknown:
            raise ValueError(f"delivery: unknown {', '.join(unknown)}; there are {', '.join(Delivery.__slots__)}")
        settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
        return Delivery(**settings)


_GENTLE: Final = Delivery(p_resize=0.1, resize=(0.8, 1.0), p_jpeg=0.5, jpeg=(85, 98), p_blur=0.0)


def plain(pixels: Pixels, to_unit: Floats, mask: Mask, contract: ViewContract) -> tuple[Pixels, Mask]:
    """The view that serving cuts, and the mask through the same transform."""
    chip = Chip(pixels, np.eye(2, 3), to_unit)
    return _cut(pixels, mask, view_transform(chip, contract), contract)


def _cut(pixels: Pixels, mask: Mask, matrix: Floats, contract: ViewContract) -> tuple[Pixels, Mask]:
    side = (contract.size, contract.size)
    # Linear and cut at one half: a nearest-pixel mask of a shrunk view would be ragged.
    placed = cv2.warpAffine(mask.astype(np.float32), matrix, side, flags=cv2.INTER_LINEAR) >= 0.5
    return warp(pixels, matrix, contract.size, contract.border), placed


def deliver(
    pixels: Pixels, to_unit: Floats, mask: Mask, contract: ViewContract, how: Delivery, rng: np.random.Generator
) -> tuple[Pixels, Mask]:
    """Resized, encoded, a little off its landmarks and mirrored by chance: the same for every class."""
    if rng.uniform() < how.p_resize:
        pixels, shrink = shrink_area(pixels, float(rng.uniform(*how.resize)))
        mask = cv2.resize(mask.astype(np.float32), pixels.shape[1::-1], interpolation=cv2.INTER_AREA) >= 0.5
        to_unit = geometry.compose(to_unit, geometry.invert(shrink))
    if rng.uniform() < how.p_blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(*how.blur)).astype(np.uint8)
    if rng.uniform() < how.p_jpeg:
        pixels = jpeg(pixels, int(rng.integers(how.jpeg[0], how.jpeg[1] + 1)), int(rng.choice(_SUBSAMPLINGS)))
    matrix = view_transform(Chip(pixels, np.eye(2, 3), to_unit), contract)
    view, placed = _cut(pixels, mask, geometry.compose(_jitter(contract.size, how, rng), matrix), contract)
    if rng.uniform() < 0.5:
        view, placed = view[:, ::-1], placed[:, ::-1]
    if rng.uniform() < how.p_light:
        lit = (view.astype(np.float32) - 128.0) * rng.uniform(0.8, 1.2) + 128.0 + rng.uniform(-15.0, 15.0)
        view = np.clip(lit * rng.uniform(0.94, 1.06, 3), 0.0, 255.0).astype(np.uint8)
    return np.ascontiguousarray(view), np.ascontiguousarray(placed)


def _jitter(size: int, how: Delivery, rng: np.random.Generator) -> Floats:
    """A small similarity about the view's middle: landmarks differ from delivery to delivery."""
    factor, turn = np.exp(rng.normal(0.0, how.scale)), np.deg2rad(rng.normal(0.0, how.turn))
    linear = factor * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.full(2, (size - 1) / 2.0)
    return np.column_stack([linear, middle - linear @ middle + rng.normal(0.0, how.shift * size, 2)])


class Sampler:
    """Draws samples by the shares of `KINDS`; within real ones sources weigh by the square root of their number."""

    def __init__(
        self,
        folder: Path,
        shares: Mapping[str, float],
        part: str,
        delivery: Delivery,
        engines: Mapping[str, float] | None = None,
    ) -> None:
        self._engines = _weights(engines or _ENGINES, ENGINES, "engines")
        self._easy = _weights(_EASY_ENGINES, ENGINES, "engines")
        self._copier = RoundTrips.load(folder / AUTOENCODERS) if "autoencoder" in self._engines[0] else None
        self._kinds, self._weights = _weights(shares, KINDS, "shares")
        self.chips, self.regions, self.delivery = Chips(folder), Regions(folder), delivery
        doctored = [row for row in self.regions if row.part == part and row.label == "manipulated"]
        self._swaps = [row for row in doctored if row.engine == "faceswap"]
        self._prepared = [row for row in doctored if row.engine != "faceswap"]
        twins = [row for row in self.regions if row.part == part and row.label == "real"]
        chips = [row for row in self.chips if row.part == part]
        reals: list[Row | RegionRow] = [*(row for row in chips if row.label == "real"), *twins]
        self._synthetic = [row for row in chips if row.label == "synthetic"]
        self._named = [row for row in chips if row.kind == PHOTOSHOP and row.extra.get("regions")]
        pools = {"prepared": self._prepared, "faceswap": self._swaps, PHOTOSHOP: self._named, "synthetic": self._synthetic}
        empty = [kind for kind in pools if shares.get(kind, 0.0) > 0.0 and not pools[kind]]
        if empty or not reals:
            raise ValueError(f"{folder}: nothing in part {part!r} for {', '.join(empty) or 'real'}")
        self._reals = _by_source(reals)

    def draw(self, contract: ViewContract, rng: np.random.Generator, ease: float = 0.0) -> list[Sample]:
        """One sample, or of a face doctored now two: itself, and its undoctored self delivered in exactly the same way.

        `ease` is the probability of a plainly visible splice: the trainer lowers it, so that faint traces come after seams.
        The pair differs in the forgery alone, which a network finds sooner than among all that sets two people apart.
        """
        easy = rng.uniform() < ease
        kind = "made" if easy else str(rng.choice(self._kinds, p=self._weights))
        pixels, to_unit, mask, before, engine = self._planes(kind, rng, easy)
        seed = int(rng.integers(1 << 31))
        samples = []
        for name, planes, truth in ((kind, pixels, mask), ("real", before, np.zeros_like(mask))):
            if planes is not None:
                way = np.random.default_rng(seed)
                view, placed = deliver(planes, to_unit, truth, contract, _GENTLE if easy else self.delivery, way)
                samples.append(Sample(view, placed, name, engine if planes is pixels else ""))
        return samples

    def _planes(self, kind: str, rng: np.random.Generator, easy: bool) -> tuple[Pixels, Floats, Mask, Pixels | None, str]:
        if kind in {"prepared", "faceswap"}:
            pool = self._prepared if kind == "prepared" else self._swaps
            row = pool[int(rng.integers(len(pool)))]
            prepared, mask = self.regions.planes(row)
            return prepared, row.to_unit, mask, None, row.engine
        if kind == "synthetic":
            face = self._face(self._synthetic[int(rng.integers(len(self._synthetic)))])
            return face.pixels, face.to_unit, np.zeros(face.pixels.shape[:2], dtype=np.bool_), None, ""
        if kind == PHOTOSHOP:
            named = self._named[int(rng.integers(len(self._named)))]
            face, parts = self._face(named), part_outlines(named.extra["regions"].split("|"), rng)
            return face.pixels, face.to_unit, rasterise(parts, face.to_unit, face.pixels.shape[:2]), None, PHOTOSHOP
        face = self._real(rng)
        made = self._made(face, rng, easy) if kind == "made" else None
        if made is None:
            return face.pixels, face.to_unit, np.zeros(face.pixels.shape[:2], dtype=np.bool_), None, ""
        return made[0], face.to_unit, made[1], face.pixels, made[2]

    def _made(self, face: Face, rng: np.random.Generator, easy: bool) -> tuple[Pixels, Mask, str] | None:
        """A splice made now; its donor another real face or, in two of five, a generated one.  Easy ones are plain to see."""
        for _ in range(4):
            names, weights = self._easy if easy else self._engines
            engine = str(rng.choice(names, p=weights))
            region = str(rng.choice(REGIONS, p=list(_REGION_SHARES.values())))
            small = engine == "opencv_inpaint"
            quartile = int(rng.integers(1, 3 if small else 5))
            if small and (region == "whole" or region.startswith("half")):
                continue
            generated = self._synthetic and rng.uniform() < 0.4
            donor = None
            if engine in DONATED:
                donor = self._face(self._synthetic[int(rng.integers(len(self._synthetic)))]) if generated else self._real(rng)
            mask = rasterise(outlines(region, rng, quartile), face.to_unit, face.pixels.shape[:2])
            made = doctor(face, donor, mask, engine, rng, matched=0.1 if easy else 0.85, copier=self._copier)
            if made is None:
                continue
            if not easy or _change(face.pixels, *made) >= _PLAIN_CHANGE:
                return *made, "generator_donor" if donor is not None and generated else engine
        return None

    def _real(self, rng: np.random.Generator) -> Face:
        names, weights = self._reals[1], self._reals[2]
        rows = self._reals[0][str(rng.choice(names, p=weights))]
        return self._face(rows[int(rng.integers(len(rows)))])

    def _face(self, row: Row | RegionRow) -> Face:
        pixels = self.regions.planes(row)[0] if isinstance(row, RegionRow) else self.chips.chip(row).pixels
        return Face(np.ascontiguousarray(pixels), row.to_unit)


def _weights(shares: Mapping[str, float], known: Sequence[str], what: str) -> tuple[list[str], Floats]:
    """Names and probabilities; raises `ValueError` naming an unknown one."""
    unknown = sorted(set(shares) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    weights = np.array(list(shares.values()), dtype=np.float64)
    return list(shares), weights / weights.sum()


def _change(before: Pixels, after: Pixels, mask: Mask) -> float:
    """Mean difference under the mask, grey levels."""
    return float(np.abs(after[mask].astype(np.int16) - before[mask]).mean())


_Sources = tuple[dict[str, list[Row | RegionRow]], list[str], Floats]


def _by_source(rows: Sequence[Row | RegionRow]) -> _Sources:
    """Rows by source, the sources' names and their weights."""
    found: dict[str, list[Row | RegionRow]] = {}
    for row in rows:
        found.setdefault(f"twin:{row.source}" if isinstance(row, RegionRow) else row.kind, []).append(row)
    weights = np.sqrt([len(found[name]) for name in found])
    return found, list(found), weights / weights.sum()


def pieces(mask: Mask) -> list[Mask]:
    """The connected pieces of a mask as instances, largest first; crumbs of the warp are left out."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [index for index in range(1, count) if areas[index] >= _LEAST_PIECE]
    return [labels == index for index in sorted(kept, key=lambda index: -int(areas[index]))]


def contract_of(size: int, margin: float) -> ViewContract:
    """The localizer's view: aligned, mirrored at the border."""
    return ViewContract(View.ALIGNED, size, margin, Border.REFLECT)
