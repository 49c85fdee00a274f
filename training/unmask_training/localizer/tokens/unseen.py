"""`unmask-train leave-engine-out`: fits the head without an engine's forgeries, and looks for exactly those."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.masks import Heads
from unmask.core.vit_trunk import TOKENS
from unmask_training.configuration import read_settings
from unmask_training.data.chips import Chips
from unmask_training.localizer.calibrating import best_level, calibration_cases, drawing, scores_of
from unmask_training.localizer.evaluate import Case, masked_cases, outcome, whole_cases
from unmask_training.localizer.figures import Outcome, alarms, average_precision, figure, image_auc, pixel_f1, pixel_iou
from unmask_training.localizer.rows import Regions
from unmask_training.localizer.samples import PHOTOSHOP, Sampler, contract_of
from unmask_training.localizer.tokens.fit import fitted
from unmask_training.localizer.tokens.network import TokenLocalizer, planar
from unmask_training.localizer.tokens.recipe import TokenRecipe
from unmask_training.localizer.tokens.samples import Material, Shards, make, tokens_of
from unmask_training.tower.parts import tower_bytes

# Tools that work alike are left out together: a sibling would tell of them.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "autoencoder": ("autoencoder",),
    "generator_donor": ("generator_donor",),
    "local_resample": ("local_resample",),
    "photoshop": (PHOTOSHOP,),
    "opencv": ("opencv_inpaint", "opencv_ns", "opencv_telea"),
    "self": ("self_mirror", "self_warp", "self_clone"),
    "splice": ("splice_poisson", "splice_feather"),
    "swap": ("swap_whole", "faceswap"),
}
_BATCH: Final = 8
_MEASURES: Final = {"map50": average_precision, "pixel_f1": pixel_f1, "pixel_iou": pixel_iou, "found": alarms}


@dataclass(frozen=True, slots=True)
class Judged:
    """Cases of a part with their reduced tokens (N, P, C); the first `plainly` are as they are."""

    cases: list[Case]
    tokens: NDArray[np.float16]
    plainly: int

    @staticmethod
    def of(cases: list[Case], plainly: int, material: Material, what: str) -> Judged:
        """With tokens by the tower as it is served."""
        session, found = material.parts.session(material.raw, seam=TOKENS), []
        for start in tqdm(range(0, len(cases), _BATCH), desc=what, unit="batch", disable=None):
            views = np.stack([case.view for case in cases[start : start + _BATCH]])
            found.append(material.reduction(tokens_of(session, views)))
        return Judged(cases, np.concatenate(found), plainly)

    def heads(self, model: TokenLocalizer) -> Iterator[Heads]:
        """What the head says of every case."""
        for start in range(0, len(self.cases), _BATCH):
            tokens = torch.from_numpy(self.tokens[start : start + _BATCH].astype(np.float32))
            views = planar(torch.from_numpy(np.stack([case.view for case in self.cases[start : start + _BATCH]])))
            with torch.no_grad():
                cells, faces = model.head(tokens, views)
            for heat, score in zip(cells.sigmoid().numpy(), faces.sigmoid().numpy(), strict=True):
                yield {"heat": heat, "score": score}


def outcomes_of(model: TokenLocalizer, calibration: Judged, judged: Judged, without: Sequence[str]) -> list[Outcome]:
    """Outcomes at the thresholds that the calibration part gives, of which `without` is left out too."""
    kept = [(c, h) for c, h in zip(calibration.cases, calibration.heads(model), strict=True) if c.kind not in without]
    plainly = sum(case.kind not in without for case in calibration.cases[: calibration.plainly])
    cases, heads = [case for case, _ in kept], [found for _, found in kept]
    level = best_level(cases, heads)
    at = drawing(scores_of(cases, heads, plainly, level), level)
    return [outcome(case, found, at) for case, found in zip(judged.cases, judged.heads(model), strict=True)]


def figures_of(outcomes: Sequence[Outcome], engines: Sequence[str]) -> dict[str, Any]:
    """Figures of the doctored faces of some engines, AUC against all undoctored faces, and these' false alarms."""
    wanted = [o for o in outcomes if o.doctored and o.kind in engines]
    plain = [o for o in outcomes if not o.doctored]
    told: dict[str, Any] = {name: figure(wanted, measure) for name, measure in _MEASURES.items()}
    return told | {"auc": figure([*wanted, *plain], image_auc), "false_alarms": figure(plain, alarms)}


def leave_out(recipe: TokenRecipe, data: Path, out: Path, raw: bytes, only: Sequence[str] = ()) -> dict[str, Any]:
    """Per group of engines: figures of a head that never saw it (`unseen`), and of one that saw all (`seen`), on `val`."""
    if wrong := sorted(set(only) - set(GROUPS)):
        raise ValueError(f"--only: unknown {', '.join(wrong)}; there are {', '.join(GROUPS)}")
    sampler = Sampler(data, recipe.shares, "fit", recipe.delivery, recipe.engines)
    material = Material.of(recipe, sampler, raw, out / "tokens")
    make(recipe, sampler, material, out / "tokens")
    shards, view = Shards(out / "tokens", recipe.samples), contract_of(recipe.size, recipe.margin)
    calibration = Judged.of(*calibration_cases(view, data), material, "calibrate")
    whole = [case for case in whole_cases(view, Chips(data), "val") if ":" not in case.kind]
    cases = [*masked_cases(view, Regions(data), "val"), *whole]
    judged = Judged.of(cases, len(cases), material, "val")
    seen = outcomes_of(fitted(replace(recipe, without=()), material, shards), calibration, judged, ())
    present = {case.kind for case in cases if case.doctored}
    found: dict[str, Any] = {}
    for name, engines in GROUPS.items():
        if not (present & set(engines)) or (only and name not in only):
            continue
        model = fitted(replace(recipe, without=engines), material, shards)
        unseen = outcomes_of(model, calibration, judged, engines)
        found[name] = {"unseen": figures_of(unseen, engines), "seen": figures_of(seen, engines)}
    return found


def text(found: Mapping[str, Any]) -> str:
    """The figures as a table: unseen / seen."""
    names = [*_MEASURES, "auc", "false_alarms"]
    lines = ["| left out | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for group, both in found.items():
        cells = [f"{_short(both['unseen'][name])} / {_short(both['seen'][name])}" for name in names]
        lines.append(f"| {group} | {both['unseen']['found']['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(told: Mapping[str, Any]) -> str:
    return "-" if told["value"] is None else f"{told['value']:.2f}"


def run(args: argparse.Namespace) -> int:
    """Prints the table, writes JSON where asked."""
    recipe = TokenRecipe.of(read_settings(args.config, "needs the settings of a localizer on the tower"))
    found = leave_out(recipe, args.data, args.out, tower_bytes(args.weights), args.only)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(text(found))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("leave-engine-out", help="fit a localizer without a tool, and find what that tool did")
    command.add_argument("--config", type=Path, required=True, help="configuration of a localizer on the tower")
    command.add_argument("--data", type=Path, required=True, help="prepared data")
    command.add_argument("--out", type=Path, required=True, help="folder of `fit`: its kept tokens are used")
    command.add_argument("--weights", type=Path, help="the tower's file (`unmask models fetch clip_vit_b16 --out FILE`)")
    command.add_argument("--only", nargs="*", default=[], metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    command.add_argument("--json", type=Path, help="write the figures with their intervals here")
    command.set_defaults(run=run)
