"""`unmask-train curves`: accuracy on a generator that training never saw, against the number of its samples adapted to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from unmask_training.data.chips import Row
from unmask_training.detector.evaluate import main_sources
from unmask_training.experiments import plots
from unmask_training.experiments.corpus import TRAINED_PARTS
from unmask_training.experiments.features import Features, Store
from unmask_training.experiments.heads import STRENGTHS, Examples, Head, fit_head, joined
from unmask_training.experiments.judging import scored
from unmask_training.experiments.published import FEW_SHOT_PERCENT, SOURCE_FEW_SHOT
from unmask_training.experiments.report import Report, Table
from unmask_training.experiments.runs import Outcome, Task, examples, run, store_of
from unmask_training.experiments.settings import Setup, add_options, alarms, command_of, names, protocol_notes, set_up
from unmask_training.measuring.measures import accuracy_at

# Fewer pictures than this to test on say nothing.
_LEAST_TESTED = 4
# What all samples of the new generator weigh together, as a share of all known fakes; these keep their weight, lest a single
# sample move the threshold for all of them.
NEW_SHARE = 0.25


class Adapter(Protocol):
    """A way of adapting: present head, replay memory and samples of the new generator to a new head."""

    def __call__(self, base: Head, memory: Examples, samples: Features, seed: int) -> Head:
        """`memory` holds the known kinds' views (M, C), weighted; `samples` the new generator's views (N, C)."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The baseline: logistic regression on the memory and the samples together, weighing `share` of the known fakes."""

    strength: float
    share: float = NEW_SHARE

    def __call__(self, base: Head, memory: Examples, samples: Features, seed: int) -> Head:
        """See `Adapter`; neither the base nor the seed matters to it."""
        fakes = memory.weight[memory.fake].sum()
        new = np.full(len(samples), "new")
        weight = np.full(len(samples), self.share * fakes / max(len(samples), 1))
        return fit_head(joined([memory, Examples(samples, np.ones(len(samples), bool), new, new, weight)]), self.strength)


@dataclass(frozen=True, slots=True)
class Scene:
    """What every draw shares: the run without the generator, its features, its memory, the generator's pictures."""

    outcome: Outcome
    store: Store
    memory: Examples
    pool: tuple[Row, ...]
    views: int
    seed: int


def measure(scene: Scene, adapter: Adapter, count: int, draw: int) -> dict[str, float]:
    """Accuracies (unsure wrong) at the run's thresholds after adapting to `count` pictures of one draw; 0: before."""
    samples, tested = split(scene.pool, count, np.random.default_rng([scene.seed, draw]))
    head = scene.outcome.head
    if samples:
        views = [scene.store.get(samples, view) for view in range(scene.views + 1)]
        head = adapter(head, scene.memory, np.concatenate(views), draw)
    left = {row.kind for row in scene.pool}
    known = [row for row in scene.outcome.rows if row.part == "val" and row.label == "synthetic" and row.kind not in left]
    main = set(main_sources(scene.outcome.rows))
    reals = [row for row in scene.outcome.rows if row.part == "val" and row.kind in main]
    judging = scene.outcome.judging
    found = {}
    for name, rows in (("new", tested), ("known_fakes", known), ("reals", reals)):
        judged = scored(judging, head(scene.store.get(rows)), rows) if rows else None
        found[name] = accuracy_at(judged, judging.at(doubt=False)) if judged else float("nan")
    return found


def split(pool: Sequence[Row], count: int, rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """`count` drawn pictures, of different groups while there are any, and the others of groups that were not drawn."""
    order = [pool[i] for i in rng.permutation(len(pool))]
    first = {row.group: row for row in reversed(order)}
    spread = [row for row in order if first[row.group] is row]
    rest = [row for row in order if first[row.group] is not row]
    drawn = [*spread, *rest][:count]
    groups = {row.group for row in drawn}
    return drawn, [row for row in order if row.group not in groups]


def curve(scene: Scene, adapter: Adapter, counts: Sequence[int], draws: int) -> dict[str, Any]:
    """Mean and standard deviation over draws, by count; counts that would leave too little to test on are left out."""
    rows: dict[str, Any] = {}
    with tqdm(total=len(counts) * draws, desc="curve", unit="fit") as bar:
        for count in counts:
            least = min(len(split(scene.pool, count, np.random.default_rng([scene.seed, d]))[1]) for d in range(draws))
            if least < _LEAST_TESTED or (count and count > len(scene.pool) - _LEAST_TESTED):
                bar.update(draws)
                continue
            # Nothing is drawn for 0, so one measurement stands for all of them.
            found = [measure(scene, adapter, count, d) for d in range(draws if count else 1)]
            bar.update(draws)
            rows[str(count)] = {"draws": found, "tested": least} | {
                name: {"mean": float(np.mean([f[name] for f in found])), "std": _std([f[name] for f in found])}
                for name in found[0]
            }
    return rows


def scene_of(setup: Setup, left: Sequence[str]) -> Scene:
    """Trains without the generators, or reads that run; raises `ValueError` where they cannot be left out."""
    corpus = setup.corpus
    corpus.unknown(left, corpus.generators, "--left-out")
    task = Task(corpus.sources, tuple(name for name in corpus.generators if name not in left), wide=True)
    if not task.generators:
        raise ValueError(f"--left-out {', '.join(left)}: no other generator; none would be left to train on")
    outcome, store = run(setup, task), store_of(setup, task)
    memory = examples(setup, store, corpus.of(task.kinds, TRAINED_PARTS))
    pool = tuple(row for row in outcome.rows if row.kind in left)
    return Scene(outcome, store, memory, pool, setup.settings.views, setup.settings.seed)


def table(left: str, rows: dict[str, Any]) -> tuple[Table, bytes]:
    """The table and the plot: mean and standard deviation by the number of samples."""
    labels = {"new": f"{left} (left out)", "known_fakes": "known generators", "reals": "real pictures"}
    body = [
        [count, str(row["tested"]), *[f"{100 * row[name]['mean']:.1f} ± {100 * row[name]['std']:.1f}" for name in labels]]
        for count, row in rows.items()
    ]
    lines = {label: [(row[name]["mean"], row[name]["std"]) for row in rows.values()] for name, label in labels.items()}
    anchor = (f"FSD, 10 samples, GenImage ({FEW_SHOT_PERCENT} %)", FEW_SHOT_PERCENT / 100.0)
    plot = plots.curve([int(count) for count in rows], lines, anchor, f"Left out: {left}")
    return Table("Accuracy, %", ["samples", "tested", *labels.values()], body), plot


def report(setup: Setup, args: argparse.Namespace, rows: dict[str, Any], outcome: Outcome) -> Report:
    """The table and the curve, beside what was published, and how to repeat it."""
    extra = [("left-out", args.left_out), ("counts", ",".join(map(str, args.counts))), ("draws", args.draws)]
    skipped = [str(count) for count in _counts(args.counts) if str(count) not in rows]
    notes = [
        "Unsure counts as wrong, by the thresholds alone (no doubt); mean ± standard deviation over draws.",
        f"Adapted by logistic regression on frozen features with replay; samples weigh {NEW_SHARE:.0%} of all known fakes.",
        "Tested on the generator's pictures of groups that were not drawn, known ones on `val`; 0 samples: the run before.",
        f"Operating point, kept while adapting: {outcome.judging.how}.",
        *([f"Left out, too few pictures would be left to test on: {', '.join(skipped)} samples."] if skipped else []),
        *protocol_notes(setup, "curves", args, extra),
        SOURCE_FEW_SHOT,
    ]
    figures = {"settings": asdict(setup.settings), "command": command_of("curves", args, extra), "left_out": args.left_out}
    figures |= {"counts": rows, "judging": asdict(outcome.judging), "facts": outcome.facts}
    told, plot = table(args.left_out, rows)
    pictures, seen = {_stem(args): plot}, alarms(setup, names(args.left_out))
    return Report(f"Adapting to {args.left_out}", [told], pictures, notes, figures, seen)


def run_command(args: argparse.Namespace) -> int:
    """Trains, adapts, tests, writes and prints the report."""
    if args.draws < 1 or min(args.counts) < 0:
        raise ValueError("--draws must be at least 1, --counts at least 0")
    setup = set_up(args)
    scene = scene_of(setup, names(args.left_out))
    strength = float(scene.outcome.facts.get("strength", STRENGTHS[len(STRENGTHS) // 2]))
    rows = curve(scene, Replay(strength), _counts(args.counts), args.draws)
    found = report(setup, args, rows, scene.outcome)
    paths = found.write(setup.out, _stem(args))
    print(found.markdown() + "\n".join(str(path) for path in paths))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("curves", help="accuracy on a generator left out, by the number of samples adapted to")
    add_options(command)
    command.add_argument("--left-out", required=True, help="the generator; several, comma-separated, as one family")
    command.add_argument("--counts", type=_numbers, default=[1, 5, 10, 50], help="comma-separated (default: 1,5,10,50)")
    command.add_argument("--draws", type=int, default=5, help="draws of each number of samples (default: 5)")
    command.set_defaults(run=run_command)


def _stem(args: argparse.Namespace) -> str:
    return "curves-" + "-".join(names(args.left_out))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _counts(told: Sequence[int]) -> list[int]:
    return sorted({0, *told})


def _std(values: Sequence[float]) -> float:
    return float(np.std(np.asarray(values, dtype=np.float64)))
