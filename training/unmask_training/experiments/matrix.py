"""`unmask-train matrix`: a detector a generator, each tested on every generator."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from unmask_training.detector.evaluate import main_sources
from unmask_training.experiments import plots
from unmask_training.experiments.judging import scored
from unmask_training.experiments.published import ANCHOR_MATRIX, SOURCE_MATRIX
from unmask_training.experiments.report import Report, Table, percent
from unmask_training.experiments.runs import Outcome, Task, run
from unmask_training.experiments.settings import Setup, add_options, alarms, command_of, names, protocol_notes, set_up
from unmask_training.measuring.measures import accuracy_at, auc, figure, joined

ALL = "all"


def measure(outcome: Outcome, generators: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy and AUC on each generator of `val`, accuracy on its pooled reals; by the thresholds alone, no doubt."""
    judging = outcome.judging
    right = partial(accuracy_at, point=judging.at(doubt=False))
    sources = main_sources(outcome.rows)
    real_rows, real_logits, _ = outcome.of(sources)
    reals = scored(judging, real_logits, real_rows)
    found: dict[str, Any] = {"real": figure(reals, right), "judging": asdict(judging) | {"doubt": None}, "facts": outcome.facts}
    found["tests"] = {}
    for name in generators:
        rows, logits, _ = outcome.of((name,))
        if rows:
            tested = scored(judging, logits, rows)
            found["tests"][name] = {"accuracy": figure(tested, right), "auc": figure(joined(tested, reals), auc)}
    return found


def matrix(setup: Setup, generators: tuple[str, ...]) -> dict[str, Any]:
    """Rows of the matrix by what was trained on; the last is `all`."""
    tasks = {name: Task(setup.corpus.sources, (name,)) for name in generators}
    tasks[ALL] = Task(setup.corpus.sources, generators)
    return {name: measure(run(setup, task), generators) for name, task in tqdm(tasks.items(), desc="matrix", unit="detector")}


def report(setup: Setup, args: argparse.Namespace, rows: dict[str, Any]) -> Report:
    """Tables of accuracy and AUC, a heat map of each, what was published, and how to repeat it."""
    generators = tuple(name for name in rows if name != ALL)
    tables, pictures = [], {}
    for name, title in (("accuracy", "Accuracy, %"), ("auc", "AUC against the pooled reals, %")):
        cells = [[_cell(row, test, name) for test in generators] for row in rows.values()]
        values = np.array([[cell["value"] if cell else np.nan for cell in line] for line in cells])
        header, body = ["trained on", *generators], [[percent(cell) if cell else "" for cell in line] for line in cells]
        columns = list(generators)
        if name == "accuracy":
            header, columns = [*header, "real pictures"], [*columns, "real"]
            values = np.column_stack([values, [row["real"]["value"] for row in rows.values()]])
            body = [[*line, percent(row["real"])] for line, row in zip(body, rows.values(), strict=True)]
        tables.append(Table(f"{title} (95 %): trained on a row, tested on a column", header, _named(rows, body)))
        pictures[f"matrix-{name}"] = plots.heat_map(values, list(rows), columns, title)
    extra = (("generators", ",".join(args.generators or ())),)
    notes = [
        "Tested on `val`; unsure counts as wrong; intervals by bootstrap over groups.",
        "Operating point: " + "; ".join(sorted({row["judging"]["how"] for row in rows.values()})) + ".",
        *protocol_notes(setup, "matrix", args, extra),
        ANCHOR_MATRIX,
        SOURCE_MATRIX,
    ]
    figures = {"settings": asdict(setup.settings), "command": command_of("matrix", args, extra), "rows": rows}
    return Report("Detectors of one generator each", tables, pictures, notes, figures, alarms(setup, generators))


def run_command(args: argparse.Namespace) -> int:
    """Trains, tests, writes and prints the report."""
    setup = set_up(args)
    told = tuple(args.generators or setup.corpus.generators)
    setup.corpus.unknown(told, setup.corpus.generators, "--generators")
    if len(set(told)) < 2:
        raise ValueError("a matrix needs at least two generators")
    found = report(setup, args, matrix(setup, tuple(dict.fromkeys(told))))
    paths = found.write(setup.out, "matrix")
    print(found.markdown() + "\n".join(str(path) for path in paths))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("matrix", help="train a detector a generator, test each on every generator")
    add_options(command)
    command.add_argument("--generators", type=names, help="comma-separated; these alone (default: all in the data)")
    command.set_defaults(run=run_command)


def _cell(row: dict[str, Any], test: str, name: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = row["tests"].get(test, {}).get(name)
    return found


def _named(rows: dict[str, Any], body: list[list[str]]) -> list[list[str]]:
    return [[name, *line] for name, line in zip(rows, body, strict=True)]
