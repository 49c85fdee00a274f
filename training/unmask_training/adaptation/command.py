"""`unmask-train adapt`: learns a new generator, and writes the next version and a release of it if the gate lets it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from unmask.core.images import cut
from unmask_training.adaptation.adapt import Adapted, Order, adapt, listed
from unmask_training.adaptation.gate import Gate, path_table
from unmask_training.adaptation.learn import Learned, new_line
from unmask_training.adaptation.parent import Parent
from unmask_training.adaptation.version import publish, release_base, write_release
from unmask_training.data.chips import add_face_detector, face_detector

BROKEN: Final = 3
# So many samples the new graph is tried on before it is there.
_CHECKED: Final = 8


def run(args: argparse.Namespace) -> int:
    """Adapts and says what came of it: 0 written or not needed, 2 samples that will not do, 3 the gate broke."""
    parent = Parent.open(args.model)
    order = Order(args.generator, args.samples, args.reals, args.data, args.seed, args.force_samples)
    found = adapt(parent, order, face_detector(args.face_detector))
    print("\n".join([found.intake.summary(), *(f"  {line}" for line in listed(found.intake.left_out())), *found.said]))
    if found.learned is None:
        print("not needed: the present version detects these; --force-samples adapts nevertheless. Nothing was written")
        return 0
    print(report(found.learned, order.generator))
    if found.learned.gate.broken:
        print(f"refused, nothing was written: {'; '.join(found.learned.gate.broken)}")
        return BROKEN
    write(parent, order, found, args.repository or parent.folder.resolve().parent.parent)
    return 0


def report(learned: Learned, generator: str) -> str:
    """The gate's table, and the path where it was searched."""
    lines = ["", learned.gate.table()]
    if not learned.is_held_out:
        lines.append("a single sample: its own line was not held out")
    lines += ["", "what the new prototype may add to the logit:", path_table(learned.path, new_line(generator))]
    lines += [] if learned.gate.broken else [f"taken: {learned.bias:g}"]
    errors = f"calibration error on known pictures {learned.gate.ece_before:.3f} before, {learned.gate.ece_after:.3f} after"
    return "\n".join([*lines, "", errors])


def write(parent: Parent, order: Order, found: Adapted, repository: Path) -> Path:
    """Writes version and release, and prints what comes next; returns the version's folder."""
    if found.learned is None or found.change is None:
        raise ValueError("nothing was learned that could be written")
    base = release_base(parent)
    change = replace(found.change, card=card_entries(parent, order, found, found.learned))
    views = np.stack([cut(sample.chip, parent.view) for sample in found.intake.samples[:_CHECKED]])
    folder = publish(parent, repository, change, views)
    print(f"written: {folder}")
    if base is None:
        print("no release: the repository lacks a face detector or a localizer; `unmask-train release` makes one")
        return folder
    name = f"{base['name']}-{order.generator}"
    path = write_release(base, repository, folder, name, figures(found.learned.gate))
    print(f"         {path}\nnext:\n  unmask models config --models {repository}\n  and where the platform runs:")
    for verb in (
        f"push detector/{folder.name} --to s3://BUCKET",
        f"put-release {path}",
        f"shadow {name} --share 0.1",
        f"disagreement {name}",
        f"promote {name}",
        "rollback",
    ):
        print(f"  unmask models {verb}")
    return folder


def figures(gate: Gate) -> dict[str, Any]:
    """What card and release say of the gate."""
    errors = {"ece_before": round(gate.ece_before, 4), "ece_after": round(gate.ece_after, 4)}
    return {"gate": gate.figures(), **errors}


def card_entries(parent: Parent, order: Order, found: Adapted, learned: Learned) -> dict[str, Any]:
    """What the card of the new version says otherwise than its parent's; calibration and thresholds stay."""
    more = "".join(f" {option}" for option, told in (("--reals DIR", order.reals), ("--data DATA", order.data)) if told)
    training = {
        "recipe": "adapt",
        "command": f"unmask-train adapt MODEL --generator {order.generator} --samples DIR{more} --seed {order.seed}"
        + (" --force-samples" if order.force else ""),
        "seed": order.seed,
        "method": "prototype",
        "bias": learned.bias,
        "generator": order.generator,
        "samples": len(found.intake.samples),
        "sample_sha256": [sample.sha256 for sample in found.intake.samples],
        "data": parent.card.raw.get("training", {}).get("data", []),
    }
    return {
        "parent": {"version": parent.card.version, "sha256": parent.card.sha256},
        "training": training,
        "metrics": {
            "data": "held-out rows of the memory; samples cross-fitted",
            **figures(learned.gate),
        },
        # The parent's scores: with other heads they lie otherwise, and drift would be measured against what never was.
        "reference": None,
        "notes": [
            f"adapted from version {parent.card.version} to {order.generator}: the trunk is the same",
            "memory.safetensors holds features that derive from faces, no pictures",
            f"figures of the rest: see the card of version {parent.card.version}",
        ],
    }


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("adapt", help="learn a new generator from a few pictures: next version, behind a gate")
    command.add_argument("model", type=Path, help="version folder, e.g. model_repository/detector/3")
    command.add_argument("--generator", required=True, metavar="NAME", help="the new generator's short name")
    command.add_argument("--samples", type=Path, required=True, metavar="DIR", help="1 to 1000 pictures of it, best 10 to 50")
    command.add_argument("--reals", type=Path, metavar="DIR", help="pictures that are real and must stay so")
    command.add_argument("--data", type=Path, help="prepared data, replayed beside the version's memory")
    command.add_argument("--repository", type=Path, metavar="DIR", help="where to write (default: the model's repository)")
    command.add_argument("--seed", type=int, default=1, help="of augmentation and cross-fitting (default: 1)")
    command.add_argument("--force-samples", action="store_true", help="go on with few, mixed or known samples")
    add_face_detector(command)
    command.set_defaults(run=run)
