"""`unmask-train leave-one-out`: trains without a generator, a family or a real source, and tests on it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from unmask_training.detector.evaluate import main_sources
from unmask_training.experiments import plots
from unmask_training.experiments.corpus import families
from unmask_training.experiments.judging import scored
from unmask_training.experiments.published import ANCHOR_LEFT_OUT, SOURCE_MATRIX
from unmask_training.experiments.report import Report, Table, percent, shares
from unmask_training.experiments.runs import Outcome, Task, run
from unmask_training.experiments.settings import Setup, add_options, alarms, command_of, names, protocol_notes, set_up
from unmask_training.measuring.measures import auc, figure, joined

DOUBT: Final = (
    ", or farther from all known faces (mean cosine distance to the 5 nearest of other groups) than all but {:g} % of the "
    "known ones are"
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What one run does without: its name, the kinds, and whether a sibling (same family) stays known."""

    name: str
    kinds: tuple[str, ...]
    task: Task
    sibling: bool = False


def plan(setup: Setup, what: str, only: Sequence[str], told: Sequence[str]) -> list[LeftOut]:
    """The runs of one kind of leaving out; raises `ValueError` for unknown names and where nothing would be left."""
    sources, generators = setup.corpus.sources, setup.corpus.generators
    groups: Mapping[str, tuple[str, ...]]
    if what == "family":
        groups = families(setup.corpus, told)
    else:
        groups = {name: (name,) for name in (sources if what == "source" else generators)}
    setup.corpus.unknown(only, sorted(groups), "--only")
    if len(sources if what == "source" else generators) < 2:
        raise ValueError(f"leaving out the only {'source' if what == 'source' else 'generator'} leaves nothing to train on")
    plans = []
    for name, kinds in groups.items():
        if only and name not in only:
            continue
        kept = [tuple(kind for kind in half if kind not in kinds) for half in (sources, generators)]
        plans.append(LeftOut(name, kinds, Task(kept[0], kept[1], wide=True), _has_sibling(setup, kinds, told)))
    return plans


def measure(outcome: Outcome, left: LeftOut) -> dict[str, Any]:
    """How the pictures left out are called, with doubt and by thresholds alone; and the known ones, for comparison."""
    judging = outcome.judging
    known_kinds = list(left.task.generators)
    real_kinds = [kind for kind in main_sources(outcome.rows) if kind not in left.kinds]
    found: dict[str, Any] = {"kinds": list(left.kinds), "sibling": left.sibling}
    found |= {"judging": asdict(judging), "facts": outcome.facts}
    for name, kinds in (("left_out", list(left.kinds)), ("known_fakes", known_kinds), ("known_reals", real_kinds)):
        found[name] = called(outcome, kinds)
    found["members"] = {kind: called(outcome, (kind,)) for kind in left.kinds} if len(left.kinds) > 1 else {}
    rows, logits, _ = outcome.of(left.kinds)
    other_rows, other_logits, _ = outcome.of(real_kinds if rows and rows[0].label == "synthetic" else known_kinds)
    if rows and other_rows:
        both = joined(scored(judging, logits, rows), scored(judging, other_logits, other_rows))
        found["auc"] = figure(both, auc)
    return found


def called(outcome: Outcome, kinds: Sequence[str]) -> dict[str, Any]:
    """Shares called fake, unsure, real; `thresholds` the same without doubt; empty where there is no picture."""
    rows, logits, far = outcome.of(kinds)
    if not rows:
        return {}
    found = scored(outcome.judging, logits, rows, far)
    return shares(found, outcome.judging.at()) | {"thresholds": shares(found, outcome.judging.at(doubt=False))}


def table(setup: Setup, what: str, rows: dict[str, Any]) -> tuple[Table, bytes]:
    """The table, and the plot of the shares called fake, unsure and real."""
    header = [f"{what} left out", "n", "called fake %", "unsure %", "called real %", "fake or unsure %"]
    header += [
        "fake %, no doubt",
        "AUC",
        "known fakes called fake %",
        "known reals called real %",
        "known unsure % (fakes, reals)",
    ]
    body, drawn = [], {}
    for name, row in rows.items():
        if not row["left_out"]:
            continue
        shown = name + (" (SEEN by the trunk)" if setup.seen(row["kinds"]) else "")
        body.append([shown, *_cells(row["left_out"]), _auc(row), *_known(row)])
        body += [[f"- {kind}", *_cells(member), "", "", "", ""] for kind, member in row["members"].items() if member]
        drawn[shown] = {key: row["left_out"][key]["value"] for key in ("fake", "unsure", "real")}
    return Table(f"Leave one {what} out", header, body), plots.bars(drawn, f"Left out: {what}")


def report(setup: Setup, args: argparse.Namespace, rows: dict[str, Any]) -> Report:
    """The table, stacked bars, the mean over what was left out, and how to repeat it."""
    extra = [("what", args.what), ("only", ",".join(args.only or ())), ("families", " --families ".join(args.families or ()))]
    notes = [
        "Tested on every picture of what was left out, known ones on `val`; intervals by bootstrap over groups.",
        "Unsure: between the thresholds" + (DOUBT.format(100 * setup.settings.doubt) if setup.settings.doubt else "") + ".",
        "Operating point: " + "; ".join(sorted({row["judging"]["how"] for row in rows.values()})) + ".",
        *_means(rows, args.what == "source"),
        *protocol_notes(setup, "leave-one-out", args, extra),
        *([ANCHOR_LEFT_OUT, SOURCE_MATRIX] if args.what == "generator" else []),
    ]
    figures = {"settings": asdict(setup.settings), "command": command_of("leave-one-out", args, extra), "rows": rows}
    kinds = tuple(kind for row in rows.values() for kind in row["kinds"])
    told, plot = table(setup, args.what, rows)
    pictures = {f"leave-one-out-{args.what}": plot}
    return Report(f"Leave one {args.what} out", [told], pictures, notes, figures, alarms(setup, kinds))


def run_command(args: argparse.Namespace) -> int:
    """Trains, tests, writes and prints the report."""
    setup = set_up(args)
    plans = plan(setup, args.what, args.only or (), args.families or ())
    bar = tqdm(plans, desc="leave one out", unit="detector")
    found = report(setup, args, {left.name: measure(run(setup, left.task), left) for left in bar})
    paths = found.write(setup.out, f"leave-one-out-{args.what}")
    print(found.markdown() + "\n".join(str(path) for path in paths))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("leave-one-out", help="train without a generator, family or real source, test on it")
    add_options(command)
    command.add_argument("--what", required=True, choices=("generator", "family", "source"), help="what is left out in turn")
    command.add_argument("--only", type=names, help="comma-separated; leave out these alone (default: each in turn)")
    command.add_argument("--families", action="append", metavar="NAME=A,B", help="a family's generators; may be repeated")
    command.set_defaults(run=run_command)


def _has_sibling(setup: Setup, kinds: Sequence[str], told: Sequence[str]) -> bool:
    if not set(kinds) <= set(setup.corpus.generators):
        return False
    try:
        groups = families(setup.corpus, told)
    except ValueError:  # none known of these data
        return False
    return any(set(kinds) & set(members) and set(members) - set(kinds) for members in groups.values())


def _cells(row: Mapping[str, Any]) -> list[str]:
    either = 100.0 * (row["fake"]["value"] + row["unsure"]["value"])
    shown = [percent(row[name]) for name in ("fake", "unsure", "real")]
    return [str(row["fake"]["n"]), *shown, f"{either:.1f}", percent(row["thresholds"]["fake"], bounds=False)]


def _auc(row: Mapping[str, Any]) -> str:
    area = row.get("auc")
    return "" if area is None else f"{area['value']:.3f} ({area['low']:.2f}-{area['high']:.2f})"


def _known(row: Mapping[str, Any]) -> list[str]:
    fakes, reals = row["known_fakes"], row["known_reals"]
    if not fakes or not reals:
        return ["", "", ""]
    unsure = ", ".join(percent(half["unsure"], bounds=False) for half in (fakes, reals))
    return [percent(fakes["fake"], bounds=False), percent(reals["real"], bounds=False), unsure]


def _means(rows: Mapping[str, Any], source: bool) -> list[str]:
    """The mean over what was left out, each alike; and over those with a known sibling."""
    chosen = {"all": list(rows.values()), "those with a known sibling": [row for row in rows.values() if row["sibling"]]}
    notes = []
    for name, found in chosen.items():
        kept = [row["left_out"] for row in found if row["left_out"]]
        if kept and (name == "all" or not source):
            fake, unsure = (100.0 * np.mean([row[key]["value"] for row in kept]) for key in ("fake", "unsure"))
            notes.append(f"Mean over {name} ({len(kept)}): called fake {fake:.1f} %, unsure {unsure:.1f} %.")
    return notes
