"""`unmask-train leave-kind-out`: fits the heads without a generator, family or real source, and judges exactly that.

Everything that is fitted is fitted anew without it, on the features that `fit` keeps: whitening, prototypes, probe, operating
point and doubt.  The small network beside the tower has seen all kinds and is left out of it.  Left-out generators are then
taught from a few samples, as `adapt` does it, behind its gate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.core.readouts import DoubtMap
from unmask_training.adaptation.bench import drawn, left_out_of
from unmask_training.adaptation.gate import FAKES, REALS
from unmask_training.adaptation.heads import Head, Readout
from unmask_training.adaptation.learn import New, Task, learn
from unmask_training.adaptation.memory import PARTS, Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.adaptation.prototypes import Prototypes
from unmask_training.configuration import read_settings
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.evaluate import SOFT_SOURCES
from unmask_training.detector.network import Detector
from unmask_training.measuring.measures import REAL, SYNTHETIC, UNSURE, Scored, figure
from unmask_training.measuring.tiers import TIERS
from unmask_training.tower.export import STRANGE_SHARE, doubt_map
from unmask_training.tower.features import features_of
from unmask_training.tower.fit import Material, Numbered, cutter_of, held_rows, learnt_of, learnt_rows
from unmask_training.tower.heads import Learnt, fit_mixture, fit_projection, fit_prototypes
from unmask_training.tower.network import TowerDetector
from unmask_training.tower.parts import Floats, tower_bytes
from unmask_training.tower.recipe import TowerRecipe

_CALLS: Final = {"fake": SYNTHETIC, "unsure": UNSURE, "real": REAL}


@dataclass(frozen=True, slots=True)
class Kept:
    """Features (N, 5376) of one view of rows."""

    rows: tuple[Row, ...]
    features: Floats

    def without(self, kinds: Sequence[str]) -> Kept:
        """The rows of other kinds."""
        return self._where([row.kind not in kinds for row in self.rows])

    def only(self, kinds: Sequence[str]) -> Kept:
        """The rows of these kinds."""
        return self._where([row.kind in kinds for row in self.rows])

    def _where(self, chosen: Sequence[bool]) -> Kept:
        rows = tuple(row for row, keep in zip(self.rows, chosen, strict=True) if keep)
        return Kept(rows, self.features[np.array(chosen, dtype=bool)])


@dataclass(frozen=True, slots=True)
class Scene:
    """All features: what is learnt from, the plain views of every part, and the calibration part as each tier delivers it."""

    recipe: TowerRecipe
    learnt: Learnt
    plain: Kept
    tiers: tuple[Kept, ...]

    @staticmethod
    def of(material: Material) -> Scene:
        """From the features that `fit` kept; those of `val` are computed, and kept too."""
        session, rows = material.parts.session(material.raw), learnt_rows(material.chips, material.recipe)

        def kept(name: str, chosen: Numbered, view: str) -> Kept:
            found = features_of(session, cutter_of(material, view), chosen, material.kept(name))
            return Kept(tuple(row for _, row in chosen), found.astype(np.float32))

        calibrate, val = (held_rows(material.chips, part) for part in ("calibrate", "val"))
        tiers = tuple(kept(f"calibrate-{tier.name}", calibrate, tier.name) for tier in TIERS)
        parts = (kept("clean", rows, "clean"), tiers[0], kept("val-clean", val, "clean"))
        plain = Kept(sum((part.rows for part in parts), ()), np.concatenate([part.features for part in parts]))
        return Scene(material.recipe, learnt_of(material, rows), plain, tiers)


@dataclass(frozen=True, slots=True)
class Without:
    """A detector that some kinds are left out of: its readout, operating point, what it remembers, and what was left out."""

    readout: Readout
    point: Operating
    known: Memory
    left: Memory

    @staticmethod
    def of(scene: Scene, kinds: Sequence[str]) -> Without:
        """Fits it; raises `ValueError` for kinds that there are not, or when nothing of a class is left."""
        tiers = [kept.without(kinds) for kept in scene.tiers]
        network = _fitted(scene, kinds, tiers)
        readout = _readout(network)
        features = np.concatenate([_shown(network, kept.features) for kept in tiers])
        rows = [row for kept in tiers for row in kept.rows]
        known, left = (_memory(network, kept) for kept in (scene.plain.without(kinds), scene.plain.only(kinds)))
        return Without(readout, _point(readout, features, rows), known, left)

    def figures(self) -> dict[str, Any]:
        """Shares of the left-out pictures called fake, unsure, real; of known ones of `val` called rightly."""
        held = self.known.where((self.known.part == PARTS.index("val")) & ~np.isin(self.known.names, SOFT_SOURCES))
        right = {
            name: self._shares(held.where(held.fake == fake))[call]
            for name, fake, call in (("known_fakes", True, "fake"), ("known_reals", False, "real"))
        }
        return {"n": len(self.left), **self._shares(self.left), **right}

    def _shares(self, memory: Memory) -> dict[str, Any]:
        calls = self.point.calls(self.readout, memory.features.astype(np.float32))
        scored = Scored(calls.astype(np.float64), memory.fake, memory.names, memory.group.astype(np.str_))
        return {name: figure(scored, partial(_share, call=call)) for name, call in _CALLS.items()}

    def taught(self, count: int, seed: int) -> dict[str, float]:
        """Shares called fake of left-out pictures after learning from `count` others, and what known ones lost, in points."""
        chosen, tested = drawn(self.left, count, seed)
        plain = self.left.features.astype(np.float32)
        task = Task.of(self.known, self.readout, self.point, New("new", plain[chosen], plain[chosen][:, None]), seed)
        learned = learn(task)
        # A broken gate writes nothing: the present version stays, and nothing is lost.
        is_refused = bool(learned.gate.broken)
        readout = self.readout if is_refused else learned.readout
        called = self.point.calls(readout, plain[tested]) == SYNTHETIC
        lost = {name: 0.0 if is_refused else learned.gate.line(name).points for name in (FAKES, REALS)}
        return {"fake": float(called.mean()), "refused": float(is_refused), **lost}


def _share(scored: Scored, call: int) -> float:
    return float((scored.score == call).mean())


def _fitted(scene: Scene, kinds: Sequence[str], tiers: Sequence[Kept]) -> TowerDetector:
    learnt, families = scene.learnt, [name for name in scene.recipe.synthetic if name not in kinds]
    missing = sorted(set(kinds) - set(learnt.kind.tolist()))
    if missing:
        raise ValueError(f"{', '.join(missing)}: not learnt from; there are {', '.join(sorted(set(learnt.kind.tolist())))}")
    keep = ~np.isin(learnt.kind, kinds)
    weight = learnt.weight[keep] / learnt.weight[keep].sum()
    some = Learnt(learnt.features[keep], learnt.kind[keep], learnt.fake[keep], weight)
    if some.fake.all() or not some.fake.any():
        raise ValueError(f"without {', '.join(kinds)} nothing of a class is left")
    network = TowerDetector(families, Detector(families, 0.0), scene.recipe.size, scene.recipe.sigma)
    fit_projection(network, some, scene.recipe)
    fit_prototypes(network, some)
    fake = np.array([row.label == "synthetic" for kept in tiers for row in kept.rows])
    tower = np.concatenate([kept.features for kept in tiers])
    fit_mixture(network, tower, np.zeros(len(fake), dtype=np.float32), fake, scene.recipe.evidence)
    return network


def _readout(network: TowerDetector) -> Readout:
    head = Head(network.synthetic.weight[0].detach().numpy().astype(np.float64), float(network.synthetic.bias.detach()[0]))
    return Readout(head, Prototypes(*(getattr(network.prototypes, name).numpy() for name in Prototypes.__slots__)))


def _shown(network: TowerDetector, tower: Floats) -> NDArray[np.float32]:
    """Features (N, 2, 1025) as the graph gives them, without the small network's logit."""
    with torch.no_grad():
        shown = network.project(torch.from_numpy(tower)).numpy()
    padded = np.concatenate([shown, np.zeros((len(shown), 1), dtype=np.float32)], axis=1)
    return np.stack([padded, padded], axis=1)


def _memory(network: TowerDetector, kept: Kept) -> Memory:
    if not kept.rows:
        raise ValueError("no pictures of what is left out")
    return Memory.of_rows(_shown(network, kept.features), kept.rows)


def _point(readout: Readout, features: NDArray[np.float32], rows: Sequence[Row]) -> Operating:
    """From the calibration part as all tiers deliver it, with the doubt that `export` gives a version."""
    fake = np.array([row.label == "synthetic" for row in rows])
    kinds, groups = (np.array([getattr(row, name) for row in rows]) for name in ("kind", "group"))
    told = doubt_map(readout.distance(features))
    doubt = DoubtMap(tuple(told["distances"]), tuple(told["doubts"]))
    return Operating.fitted(readout(features)[:, 0], fake, kinds, groups).doubting(doubt, STRANGE_SHARE)


def leave_out(scene: Scene, left: Mapping[str, Sequence[str]], counts: Sequence[int], draws: int, seed: int) -> dict[str, Any]:
    """Figures by what is left out; generators are taught too."""
    found: dict[str, Any] = {}
    for name, kinds in left.items():
        without = Without.of(scene, kinds)
        found[name] = without.figures() | {"kinds": list(kinds)}
        if without.left.fake.all():
            possible = [count for count in counts if count <= len(np.unique(without.left.group)) // 2]
            taught = {count: [without.taught(count, seed + i) for i in range(draws)] for count in possible}
            found[name]["taught"] = {str(count): _spread(rows) for count, rows in taught.items()}
        print(_line(name, found[name]), flush=True)
    return found


def _spread(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}
    return found | {"fake_std": round(float(np.std([row["fake"] for row in rows])), 4)}


HEADER: Final = (
    "| left out | n | called fake % | unsure % | known fakes, reals right % | taught from: called fake % ± std |\n"
    "|---|---|---|---|---|---|"
)


def _line(name: str, row: Mapping[str, Any]) -> str:
    def share(key: str) -> str:
        told = row[key]
        return f"{100 * told['value']:.1f} ({100 * told['low']:.0f}-{100 * told['high']:.0f})"

    right = ", ".join(f"{100 * row[key]['value']:.0f}" for key in ("known_fakes", "known_reals"))
    taught = "; ".join(
        f"{count}: {100 * told['fake']:.1f} ± {100 * told['fake_std']:.1f}" for count, told in row.get("taught", {}).items()
    )
    return f"| {name} | {row['n']} | {share('fake')} | {share('unsure')} | {right} | {taught} |"


def run(args: argparse.Namespace) -> int:
    """Leaves out what was told, each in turn, and prints a row of each."""
    recipe = TowerRecipe.of(read_settings(args.config, "not a recipe"))
    material = Material.of(recipe, Chips(args.data), tower_bytes(args.weights), args.out)
    left = left_out_of(args.leave or (), [*recipe.synthetic, *recipe.real])
    print(HEADER)
    found = leave_out(Scene.of(material), left, args.counts, args.draws, args.seed)
    if args.json is not None:
        args.json.write_text(json.dumps({"seed": args.seed, "draws": args.draws, "rows": found}, indent=2) + "\n", "utf-8")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("leave-kind-out", help="fit the tower's heads without a kind, judge it, teach it")
    command.add_argument("--config", type=Path, required=True, help="the recipe, e.g. training/configs/detector_tower.yaml")
    command.add_argument("--data", type=Path, required=True, help="prepared data")
    command.add_argument("--out", type=Path, required=True, help="the folder of `fit`, with the features that it keeps")
    command.add_argument("--weights", type=Path, required=True, help="the tower's file")
    command.add_argument("--leave", nargs="+", metavar="NAME or NAME=A,B", help="left out (default: each kind in turn)")
    command.add_argument("--counts", type=int, nargs="+", default=[10, 50], help="samples to teach from (default: 10 50)")
    command.add_argument("--draws", type=int, default=5, help="draws of samples (default: 5)")
    command.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    command.add_argument("--json", type=Path, help="also write the figures to this file")
    command.set_defaults(run=run)
