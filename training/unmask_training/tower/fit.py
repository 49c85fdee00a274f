"""Recipe `clip_vit_b16`: measures the tower, keeps its features, fits what stands on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.images import cut
from unmask_training.data.augment import draw, draw_face
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.network import Detector, read_state
from unmask_training.measuring.tiers import TIERS, Tier
from unmask_training.tower.features import Viewer, contract, features, features_of
from unmask_training.tower.heads import Learnt, fit_beside, fit_family, fit_projection, fit_prototypes
from unmask_training.tower.network import TowerDetector
from unmask_training.tower.parts import Parts, measure
from unmask_training.tower.recipe import TowerRecipe

CHECKPOINT: Final = "tower.pt"
_ROOT: Final = Path(__file__).resolve().parents[3]
Numbered = Sequence[tuple[int, Row]]


@dataclass(frozen=True, slots=True)
class Material:
    """What a fit works with: its recipe, data, kept features, the tower's bytes and parts."""

    recipe: TowerRecipe
    chips: Chips
    out: Path
    raw: bytes
    parts: Parts

    @property
    def viewer(self) -> Viewer:
        """Cuts the views."""
        return Viewer(self.chips, self.recipe.size, self.recipe.augment, self.recipe.seed)

    def kept(self, name: str) -> Path:
        """File of kept features."""
        return self.out / "features" / f"{name}.npz"


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Fits by the recipe on prepared `data`; writes and returns the checkpoint `out`/tower.pt.

    `weights` is the tower's file; features of a view that `out` holds are not computed again.
    """
    recipe = TowerRecipe.of(told)
    if weights is None or not weights.is_file():
        raise ValueError(
            "the tower's weights are needed: --weights FILE; `unmask models fetch clip_vit_b16 --out FILE` brings them"
        )
    if not resume and (out / CHECKPOINT).is_file():
        raise ValueError(f"{out / CHECKPOINT}: is there; --resume goes on with its kept features")
    chips, raw = Chips(data), weights.read_bytes()
    rows = learnt_rows(chips, recipe)
    material = Material(recipe, chips, out, raw, _parts(recipe, chips, raw, out))
    learnt = _learnt(material, rows)
    network = TowerDetector(recipe.synthetic, beside_of(_ROOT / recipe.beside), recipe.size, recipe.sigma)
    parts = material.parts
    network.hold(*(torch.from_numpy(value) for value in (parts.positions, parts.smoothing, parts.ranges)))
    fit_projection(network, learnt, recipe)
    fit_family(network, learnt, recipe.synthetic)
    fit_prototypes(network, learnt.features[: len(rows)], recipe.seed)
    shares = _beside(network, material)
    state = {"recipe": _plain(recipe), "network": network.state_dict(), "families": list(recipe.synthetic)}
    state |= {"size": recipe.size, "sigma": recipe.sigma, "shares": list(shares), "step": len(learnt.features)}
    torch.save(state | {"weights": hashlib.sha256(raw).hexdigest()}, out / CHECKPOINT)
    return out / CHECKPOINT


def learnt_rows(chips: Chips, recipe: TowerRecipe) -> list[tuple[int, Row]]:
    """Number and row of what is learnt from; raises `ValueError` naming a kind that has none."""
    wanted = {**dict.fromkeys(recipe.real, "real"), **dict.fromkeys(recipe.synthetic, "synthetic")}
    found = [
        (number, row)
        for number, row in enumerate(chips.rows)
        if row.part == "fit" and wanted.get(row.kind) == row.label and not (row.kind in recipe.halved and number % 2)
    ]
    empty = sorted(set(wanted) - {row.kind for _, row in found})
    if empty:
        raise ValueError(f"no prepared training pictures of {', '.join(empty)}")
    return found


def held_rows(chips: Chips, part: str) -> list[tuple[int, Row]]:
    """Number and row of real and wholly synthetic pictures of a part."""
    return [(i, row) for i, row in enumerate(chips.rows) if row.part == part and row.label in {"real", "synthetic"}]


def _parts(recipe: TowerRecipe, chips: Chips, raw: bytes, out: Path) -> Parts:
    """Measured on augmented views of training pictures, or as `out` keeps them."""
    kept = out / "parts.npz"
    if kept.is_file():
        with np.load(kept) as held:
            return Parts(held["positions"], held["smoothing"], held["ranges"])
    rows = [row for row in chips.rows if row.part == "fit"]

    def views() -> Iterator[NDArray[Any]]:
        rng = np.random.default_rng(recipe.seed)
        for _ in tqdm(range(recipe.measured), desc="ranges", unit="face", disable=None):
            chip = chips.chip(rows[rng.integers(len(rows))])
            yield draw(chip, draw_face(recipe.augment, rng), recipe.size, recipe.augment, rng)[0]

    parts = measure(raw, recipe.size, views())
    out.mkdir(parents=True, exist_ok=True)
    np.savez(kept, positions=parts.positions, smoothing=parts.smoothing, ranges=parts.ranges)
    return parts


def _learnt(material: Material, rows: Numbered) -> Learnt:
    """Features of all views of the rows, the clean one first."""
    session = material.parts.session(material.raw)
    views = range(material.recipe.views + 1)
    found = [features(session, material.viewer, rows, view, material.kept(f"view-{view}")) for view in views]
    kind = np.array([row.kind for _, row in rows])
    fake = np.array([row.label == "synthetic" for _, row in rows])
    return Learnt(np.concatenate(found).astype(np.float32), np.tile(kind, len(found)), np.tile(fake, len(found)))


def beside_of(folder: Path) -> Detector:
    """The small network of a version folder, with its averaged weights."""
    state = read_state(folder / "weights.safetensors")
    network = Detector(state["families"], 0.0)
    network.load_state_dict(state["average"])
    network.eval()
    return network


def _beside(network: TowerDetector, material: Material) -> tuple[float, float]:
    """Weighs tower and small network on the calibration part, clean and as tiers deliver it."""
    rows = held_rows(material.chips, "calibrate")
    session, parts = material.parts.session(material.raw), []
    for tier in TIERS:
        tower = features_of(session, _cutter(material, tier), rows, material.kept(f"calibrate-{tier.name}"))
        parts.append((tower, beside_logits(network.beside, [_cutter(material, tier)(item) for item in rows])))
    fake = np.array([row.label == "synthetic" for _, row in rows])
    tower = np.concatenate([part for part, _ in parts])
    logits = np.concatenate([part for _, part in parts])
    return fit_beside(network, tower.astype(np.float32), logits, np.tile(fake, len(parts)))


def _cutter(material: Material, tier: Tier) -> Any:
    """Cuts a numbered row's view as a tier delivers its chip."""
    view = contract(material.recipe.size)
    return lambda item: cut(tier.deliver(material.chips.chip(item[1]), item[1].path), view)


def beside_logits(network: Detector, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Logits (N,) of views (S, S, 3)."""
    found = []
    with torch.no_grad():
        for start in range(0, len(views), 32):
            pixels = torch.from_numpy(np.stack(views[start : start + 32])).permute(0, 3, 1, 2).float()
            found.append(network(pixels)[0].numpy())
    return np.concatenate(found)


def _plain(recipe: TowerRecipe) -> dict[str, Any]:
    """As `torch.load` of weights alone can read it."""
    return {key: list(value) if isinstance(value, list | tuple) else value for key, value in asdict(recipe).items()}
