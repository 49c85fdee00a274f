"""Recipe `clip_vit_b16`: measures the tower, keeps its features, fits what stands on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.core.images import cut
from unmask_training.adaptation.heads import kind_weights
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.network import Detector, read_state
from unmask_training.measuring.tiers import TIERS
from unmask_training.tower.features import Cutter, Viewer, contract, features_of
from unmask_training.tower.frozen import augmented
from unmask_training.tower.heads import Learnt, fit_family, fit_mixture, fit_projection, fit_prototypes
from unmask_training.tower.network import TowerDetector
from unmask_training.tower.parts import Floats, Parts, measure, tower_bytes
from unmask_training.tower.recipe import AUGMENTED, VIEWS, TowerRecipe
from unmask_training.tower.tune import Scene, tuned_norms
from unmask_training.tower.vision import VisionTower

CHECKPOINT: Final = "tower.pt"
_ROOT: Final = Path(__file__).resolve().parents[3]
Numbered = Sequence[tuple[int, Row]]


@dataclass(frozen=True, slots=True)
class Material:
    """What a fit works with: its recipe, data, the tower's bytes and parts, and the folder of the features that it keeps."""

    recipe: TowerRecipe
    chips: Chips
    raw: bytes
    parts: Parts
    folder: Path

    @staticmethod
    def of(recipe: TowerRecipe, chips: Chips, raw: bytes, folder: Path, norms: Floats | None = None) -> Material:
        """With the tower's parts as `folder` keeps them, or measured on augmented views of training pictures and kept there."""
        kept = folder / "parts.npz"
        if not kept.is_file():
            views = augmented(chips, recipe.size, recipe.augment, recipe.seed, recipe.measured)
            measure(raw, recipe.size, views, norms).save(kept)
        return Material(recipe, chips, raw, Parts.read(kept), folder)

    @property
    def viewer(self) -> Viewer:
        """Cuts the views."""
        return Viewer(self.chips, self.recipe.size, self.recipe.augment, self.recipe.seed)

    def kept(self, name: str) -> Path:
        """File of kept features."""
        return self.folder / "features" / f"{name}.npz"


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Fits by the recipe on prepared `data`; writes and returns the checkpoint `out`/tower.pt.

    `weights` is the tower's file; features of a view that `out` holds are not computed again, and tuning goes on where it was.
    """
    recipe = TowerRecipe.of(told)
    raw = tower_bytes(weights)
    if not resume and (out / CHECKPOINT).is_file():
        raise ValueError(f"{out / CHECKPOINT}: is there; --resume goes on with its kept features")
    chips = Chips(data)
    rows = learnt_rows(chips, recipe)
    material = Material.of(recipe, chips, raw, out)
    if recipe.tune.steps:
        seen = view_names(("clean", AUGMENTED), recipe.tune.copies)
        frozen = _features(material, rows, seen)
        scene = Scene(material.viewer, rows, recipe.tune)
        norms = tuned_norms(VisionTower(raw, material.parts.positions), scene, frozen, out / "tune.pt")
        material = Material.of(recipe, chips, raw, out / "tuned", norms)
    learnt = learnt_of(material, rows)
    network = _network(material, learnt)
    shares = _mixture(network, material)
    state = {"recipe": _plain(recipe), "network": network.state_dict(), "families": list(recipe.synthetic)}
    state |= {"size": recipe.size, "sigma": recipe.sigma, "shares": shares, "step": len(learnt.features)}
    torch.save(state | {"weights": hashlib.sha256(raw).hexdigest()}, out / CHECKPOINT)
    return out / CHECKPOINT


def _network(material: Material, learnt: Learnt) -> TowerDetector:
    """The network with all that is fitted on the tower's features."""
    recipe = material.recipe
    network = TowerDetector(recipe.synthetic, beside_of(_ROOT / recipe.beside), recipe.size, recipe.sigma)
    network.hold(*(torch.from_numpy(value) for value in material.parts.all()))
    fit_projection(network, learnt, recipe)
    network.halve()
    fit_family(network, learnt, recipe.synthetic)
    fit_prototypes(network, learnt)
    return network


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


def learnt_of(material: Material, rows: Numbered) -> Learnt:
    """Features of the rows' views, the clean one first."""
    views, kinds = material.recipe.views, np.array([row.kind for _, row in rows])
    names = view_names(sorted(views, key=VIEWS.index), material.recipe.copies)
    fake = np.array([row.label == "synthetic" for _, row in rows])
    weight = np.concatenate([kind_weights(fake, kinds) * views[name.partition("-")[0]] for name in names])
    features = _features(material, rows, names)
    return Learnt(features, np.tile(kinds, len(names)), np.tile(fake, len(names)), weight / weight.sum())


def view_names(views: Sequence[str], copies: int) -> list[str]:
    """What the views are kept by: augmented ones are numbered."""
    numbered = [f"{AUGMENTED}-{copy}" for copy in range(1, copies + 1)] if AUGMENTED in views else []
    return [*(name for name in views if name != AUGMENTED), *numbered]


def _features(material: Material, rows: Numbered, names: Sequence[str]) -> Floats:
    """Features (V * N, 5376) of the named views of the rows, each computed once."""
    session = material.parts.session(material.raw)
    found = [features_of(session, cutter_of(material, name), rows, material.kept(name)) for name in names]
    return np.concatenate(found).astype(np.float32)


def cutter_of(material: Material, name: str) -> Cutter:
    """Cuts a numbered row's view of that name."""
    view, viewer = contract(material.recipe.size), material.viewer
    if name.startswith(AUGMENTED):
        copy = int(name.partition("-")[2])
        return lambda item: viewer(item[1], item[0], copy)
    if name == "mirror":
        return lambda item: np.ascontiguousarray(cut(material.chips.chip(item[1]), view)[:, ::-1])
    [tier] = [tier for tier in TIERS if tier.name == name]
    return lambda item: np.asarray(cut(tier.deliver(material.chips.chip(item[1]), item[1].path), view), dtype=np.uint8)


def beside_of(folder: Path) -> Detector:
    """The small network of a version folder, with its averaged weights."""
    state = read_state(folder / "weights.safetensors")
    network = Detector(state["families"], 0.0)
    network.load_state_dict(state["average"])
    network.eval()
    return network


def _mixture(network: TowerDetector, material: Material) -> dict[str, float]:
    """Weighs probe, prototypes and small network on the calibration part, clean and as tiers deliver it."""
    rows = held_rows(material.chips, "calibrate")
    session, parts = material.parts.session(material.raw), []
    for tier in TIERS:
        cutter = cutter_of(material, tier.name)
        tower = features_of(session, cutter, rows, material.kept(f"calibrate-{tier.name}"))
        parts.append((tower, beside_logits(network.beside, [cutter(item) for item in rows])))
    fake = np.array([row.label == "synthetic" for _, row in rows])
    tower = np.concatenate([part for part, _ in parts])
    logits = np.concatenate([part for _, part in parts])
    truth, evidence = np.tile(fake, len(parts)), material.recipe.evidence
    found = fit_mixture(network, tower.astype(np.float32), logits, truth, evidence)
    return dict(zip(("probe", "prototypes", "beside"), found, strict=True))


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
