"""`unmask-train adapt-bench`: methods of adaptation compared by leaving generators out of the memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unmask_training.adaptation.gate import FAKES, REALS, Regression, judge
from unmask_training.adaptation.heads import Head, Readout, Replay, fit_head
from unmask_training.adaptation.memory import FIT, PARTS, Memory
from unmask_training.adaptation.methods import METHODS
from unmask_training.adaptation.operating import Operating
from unmask_training.adaptation.parent import Parent
from unmask_training.adaptation.prototypes import Prototypes
from unmask_training.measuring.measures import REAL, SYNTHETIC

# The pull of the head that starts without the left-out rows to no head at all.
_BASE_STRENGTH: Final = 0.003
SEEN: Final = (
    "The heads never saw what was left out. A trunk that was fitted on it did: then these figures compare methods, and promise "
    "nothing of new generators."
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A detector that does not know some generators: its readout, operating point, memory, and the rows that were left out."""

    name: str
    known: Memory
    left_out: Memory
    replay: Replay
    readout: Readout
    point: Operating
    regression: Regression

    @staticmethod
    def of(name: str, kinds: Sequence[str], memory: Memory, present: Prototypes) -> Setting:
        """Leaves `kinds` out of a memory; fits prototypes, head, calibration and thresholds anew on what stays.

        `present` are the version's prototypes: their width and how much they count stay.
        """
        missing = sorted(set(kinds) - set(np.unique(memory.names[memory.fake])))
        if missing:
            raise ValueError(f"{name}: the memory has no generated rows of {', '.join(missing)}")
        out = np.isin(memory.names, kinds) & memory.fake
        known = memory.where(~out)
        replay = Replay.of(known)
        prototypes = Prototypes.of(known, present.real.shape[1], present.mixing)
        empty, none = np.zeros((0, memory.features.shape[2]), dtype=np.float32), Head(np.zeros(memory.features.shape[2]), 0.0)
        head = fit_head(replay, empty, Readout(none, prototypes), _BASE_STRENGTH)
        readout = Readout(head, prototypes)
        point = _point(readout, known)
        return Setting(name, known, memory.where(out), replay, readout, point, Regression.of(known, readout, point))


def _point(readout: Readout, known: Memory) -> Operating:
    """From the calibration part."""
    rows = known.where(known.part == PARTS.index("calibrate"))
    return Operating.fitted(readout(rows.features).mean(axis=1), rows.fake, rows.names, rows.group.astype(np.str_))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One draw: accuracy on the left-out generators before and after, points that were lost, whether the gate broke."""

    before: float
    after: float
    fakes: float
    reals: float
    is_broken: bool


def drawn(left_out: Memory, count: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of `count` samples of that many groups, and of the rows to test on, which share no group with them.

    Samples come from the fit part, tests from the others where these hold 30 rows; else both from all rows.
    """
    enough = int(left_out.held_out.sum()) >= 30
    pool = np.flatnonzero(left_out.part == FIT) if enough else np.arange(len(left_out))
    order = np.random.default_rng(seed).permutation(pool)
    _, first = np.unique(left_out.group[order], return_index=True)
    chosen = order[np.sort(first)][:count]
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} groups of pictures to draw {count} samples from")
    rest = np.flatnonzero(left_out.held_out) if enough else np.arange(len(left_out))
    return chosen, rest[~np.isin(left_out.group[rest], left_out.group[chosen])]


def trial(setting: Setting, method: str, count: int, seed: int) -> Outcome:
    """Adapts to one draw of samples, on their plain features without augmentation, and measures it.

    The boldest knob whose gate holds is taken, the last where none does; whether the new gains is for the measurement to say.
    """
    chosen, tested = drawn(setting.left_out, count, seed)
    new = setting.left_out.features[chosen].astype(np.float32).reshape(-1, setting.left_out.features.shape[2])
    known, test, point = setting.regression, setting.left_out.features[tested].astype(np.float32), setting.point
    was = point.verdicts(setting.readout(test)) == SYNTHETIC
    fit, knobs = METHODS[method]
    for knob in knobs:
        scorer = fit(setting.replay, new, setting.readout, knob)
        logits = scorer(known.features)
        right = point.verdicts(logits) == np.where(known.fake, SYNTHETIC, REAL)
        gate = judge(known, right, point.scores(logits), ("new", np.zeros(1, np.bool_), np.ones(1, np.bool_)))
        if not gate.broken:
            break
    now = point.verdicts(scorer(test)) == SYNTHETIC
    lost = [gate.line(name).points for name in (FAKES, REALS)]
    return Outcome(float(was.mean()), float(now.mean()), lost[0], lost[1], bool(gate.broken))


def compare(settings: Sequence[Setting], counts: Sequence[int], draws: int, seed: int) -> list[dict[str, Any]]:
    """A row for each left-out family, method and count: means and spread over draws."""
    plan = list(product(settings, METHODS, counts))
    rows = []
    for setting, method, count in tqdm(plan, desc="adapt-bench", unit="row", mininterval=1.0):
        found = [trial(setting, method, count, seed + i) for i in range(draws)]
        rows.append(_row(setting.name, method, count, found))
    return rows


def _row(name: str, method: str, count: int, found: Sequence[Outcome]) -> dict[str, Any]:
    after = np.array([outcome.after for outcome in found])
    return {
        "left_out": name,
        "method": method,
        "samples": count,
        "before": round(float(np.mean([outcome.before for outcome in found])), 4),
        "after": round(float(after.mean()), 4),
        "after_std": round(float(after.std(ddof=1)) if len(after) > 1 else 0.0, 4),
        "fakes_points": round(float(np.mean([outcome.fakes for outcome in found])), 2),
        "reals_points": round(float(np.mean([outcome.reals for outcome in found])), 2),
        "gate_broken": sum(outcome.is_broken for outcome in found),
        "draws": len(found),
    }


def choose(rows: Sequence[Mapping[str, Any]], slack: float = 0.2) -> str:
    """Method of the highest mean accuracy on what was left out, among those that break the gate least.

    `slack` is how much larger than the smallest the share of broken draws may be.
    """
    tried: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        tried.setdefault(row["method"], []).append(row)
    if not tried:
        raise ValueError("nothing to choose from")
    broken = {name: sum(r["gate_broken"] for r in found) / sum(r["draws"] for r in found) for name, found in tried.items()}
    allowed = [name for name in tried if broken[name] <= min(broken.values()) + slack]
    return max(allowed, key=lambda name: float(np.mean([row["after"] for row in tried[name]])))


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """As a table."""
    lines = ["| left out | method | samples | before % | after % (std) | known fakes | reals | gate broken |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        shares = f"{100 * row['before']:.1f} | {100 * row['after']:.1f} ({100 * row['after_std']:.1f})"
        lost = f"{row['fakes_points']:+.2f} | {row['reals_points']:+.2f} | {row['gate_broken']} of {row['draws']}"
        lines.append(f"| {row['left_out']} | {row['method']} | {row['samples']} | {shares} | {lost} |")
    return "\n".join(lines)


def left_out_of(told: Sequence[str], every: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=A,B` as kinds that are left out together, `NAME` as one by itself; without any, each of `every` by itself."""
    parts = [entry.partition("=") for entry in told or every]
    if wrong := [name + sign for name, sign, kinds in parts if not name or (sign and not all(kinds.split(",")))]:
        raise ValueError(f"left out {wrong[0]!r}: expected NAME or NAME=KIND,KIND")
    return {name: kinds.split(",") if kinds else [name] for name, _, kinds in parts}


def run(args: argparse.Namespace) -> int:
    """Compares and prints the table and the choice."""
    parent = Parent.open(args.model)
    memory, present = parent.memory, parent.readout.prototypes
    left = left_out_of(args.leave_out or (), np.unique(memory.names[memory.fake]).tolist())
    settings = [Setting.of(name, kinds, memory, present) for name, kinds in left.items()]
    rows = compare(settings, args.counts, args.draws, args.seed)
    method = choose(rows)
    print(f"{markdown(rows)}\n\n{SEEN}\nbest: {method}")
    if args.json is not None:
        told = {"model": parent.card.sha256, "seed": args.seed, "note": SEEN, "rows": rows, "best": method}
        args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("adapt-bench", help="compare methods of adaptation by leaving generators out of the memory")
    command.add_argument("model", type=Path, help="version folder, e.g. model_repository/detector/3")
    command.add_argument(
        "--leave-out", nargs="+", metavar="NAME or NAME=A,B", help="left out (default: each generator in turn)"
    )
    command.add_argument("--counts", type=int, nargs="+", default=[10, 50], help="samples to adapt to (default: 10 50)")
    command.add_argument("--draws", type=int, default=5, help="draws of samples (default: 5)")
    command.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    command.add_argument("--json", type=Path, help="also write the rows to this file")
    command.set_defaults(run=run)
