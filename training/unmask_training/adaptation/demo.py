"""`unmask-train adapt-demo`: learns from the first faces of a folder, tests on the others, and shows them before and after."""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.images import cut
from unmask_training.adaptation import command
from unmask_training.adaptation.adapt import Order, adapt
from unmask_training.adaptation.bench import Setting
from unmask_training.adaptation.heads import Head
from unmask_training.adaptation.parent import HEADS, Parent, new_weights
from unmask_training.adaptation.prototypes import FREE
from unmask_training.adaptation.samples import Sample, pictures_in, read_samples
from unmask_training.adaptation.sheet import Shown, page, sheet
from unmask_training.adaptation.version import Change, write_version
from unmask_training.data.chips import add_face_detector, face_detector
from unmask_training.measuring.measures import REAL, SYNTHETIC, UNSURE

_LABELS: Final = {REAL: "real", SYNTHETIC: "synthetic", UNSURE: "unsure"}


def run(args: argparse.Namespace) -> int:
    """Adapts to the first faces, scores the others by both graphs and draws them; 3 where the gate broke."""
    parent, infer = Parent.open(args.model), face_detector(args.face_detector)
    if args.forget:
        parent = forget(parent, args.forget, args.out / "forgetful")
    learn, test = _split(args.faces, args.out, args.learn)
    order = Order(args.generator, learn, seed=args.seed, force=True)
    found = adapt(parent, order, infer)
    if found.learned is None:
        raise ValueError("adapt-demo: nothing was learned")
    print(command.report(found.learned, args.generator))
    if found.learned.gate.broken:
        print(f"refused, nothing was written: {'; '.join(found.learned.gate.broken)}")
        return command.BROKEN
    written = command.write(parent, order, found, args.out / "models")
    samples = read_samples(test, infer, "test").samples
    shown = compare(parent, written, samples)
    title = summary(shown, args.generator, len(found.intake.samples))
    sheet(shown, title, args.out / "sheet.png")
    page(shown, title, found.learned.gate.table(), args.out / "views", args.out / "index.html")
    print(f"\n{title}\npictures: {args.out / 'sheet.png'}\npage:     {args.out / 'index.html'}")
    return 0


def _split(faces: Path, out: Path, count: int) -> tuple[Path, Path]:
    """Copies the first `count` pictures into out/learn, the others into out/test."""
    found = pictures_in(faces)
    if not 1 <= count < len(found):
        raise ValueError(f"--learn {count}: must leave some of the {len(found)} pictures in {faces} to test on")
    for name, part in (("learn", found[:count]), ("test", found[count:])):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        for path in part:
            shutil.copyfile(path, out / name / path.name)
    return out / "learn", out / "test"


def forget(parent: Parent, kinds: Sequence[str], out: Path) -> Parent:
    """The version as if its heads had never been shown some generators: fitted anew on the rest of its memory, in `out`.

    The projection stays, so that this shows what adaptation does, not how a generator does that nothing was ever fitted on.
    Raises `ValueError` for a generator that the memory does not hold.
    """
    setting = Setting.of(", ".join(kinds), kinds, parent.memory, parent.readout.prototypes)
    kept = [name for name in parent.card.classes if name not in kinds]
    weights = new_weights(parent, parent.card.classes[0], setting.readout, _row(parent, 0))
    known = parent.card.classes
    order = [*map(known.index, kept), *range(len(known), len(weights[HEADS[3]])), *(known.index(name) for name in kinds)]
    weights |= {name: weights[name][order] for name in HEADS[2:]}
    weights[HEADS[3]][-len(kinds) :] = FREE
    point = setting.point
    limits = {"real_below": point.point.real_below, "synthetic_above": point.point.fake_from}
    card = {
        "calibration": {"temperature": point.temperature, "bias": point.bias},
        "thresholds": {**parent.card.raw["thresholds"], **limits},
        "notes": [f"heads fitted anew without {', '.join(kinds)}, for a demonstration"],
    }
    shutil.rmtree(out, ignore_errors=True)
    write_version(parent, out / "detector/1", Change(weights, kept, setting.known, card))
    return Parent.open(out / "detector/1")


def _row(parent: Parent, place: int) -> Head:
    weight, bias = parent.family
    return Head(weight[place], float(bias[place]))


def compare(parent: Parent, folder: Path, samples: Sequence[Sample]) -> list[Shown]:
    """Scores and labels of the samples by the graphs of the parent and of the new version, as serving runs them."""
    views = np.stack([cut(sample.chip, parent.view) for sample in samples])
    was, now = (judged(version, views) for version in (parent, Parent.open(folder)))
    return [Shown(sample.path, view, *pair) for sample, view, *pair in zip(samples, views, was, now, strict=True)]


def judged(version: Parent, views: NDArray[np.uint8]) -> list[tuple[float, str]]:
    """Calibrated p(synthetic) and label of each view (N, S, S, 3) by a version's served graph."""
    features, readout = version.features(views), version.readout
    scores, calls = version.point.scores(readout(features)), version.point.calls(readout, features)
    return [(float(score), _LABELS[int(call)]) for score, call in zip(scores, calls, strict=True)]


def summary(shown: Sequence[Shown], generator: str, learned: int) -> str:
    """Two lines: how many are called what before and after."""
    lines = []
    for what, labels in (("before", [one.before[1] for one in shown]), ("after", [one.after[1] for one in shown])):
        count = Counter(labels)
        lines.append(
            f"{what}: {count['synthetic']} of {len(labels)} called synthetic, {count['unsure']} unsure, {count['real']} real"
        )
    return f"{generator}, {len(shown)} faces that were not among the {learned} learned from\n{'; '.join(lines)}"


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("adapt-demo", help="learn from some faces of a folder, show the others before and after")
    parser.add_argument("model", type=Path, help="version folder, e.g. model_repository/detector/3")
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="pictures of one generator")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where versions, pictures and page are written")
    parser.add_argument("--generator", default="mobilestylegan", metavar="NAME", help="its name (default: mobilestylegan)")
    parser.add_argument("--learn", type=int, default=10, metavar="N", help="how many to learn from (default: 10)")
    parser.add_argument("--forget", nargs="+", default=[], metavar="GENERATOR", help="begin with heads that never saw these")
    parser.add_argument("--seed", type=int, default=1, help="of augmentation and cross-fitting (default: 1)")
    add_face_detector(parser)
    parser.set_defaults(run=run)
