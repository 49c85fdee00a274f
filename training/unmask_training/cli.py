"""`unmask-train`: prepare data, fit, evaluate, export, release."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from unmask.core.errors import UnmaskError

_MODULES: Final = (
    "unmask_training.data.preparing",
    "unmask_training.data.round_trips",
    "unmask_training.data.manipulate",
    "unmask_training.fitting",
    "unmask_training.detector.compare",
    "unmask_training.measuring.evaluating",
    "unmask_training.measuring.adversarial",
    "unmask_training.experiments.matrix",
    "unmask_training.experiments.leave_one_out",
    "unmask_training.experiments.curves",
    "unmask_training.detector.export",
    "unmask_training.adaptation.command",
    "unmask_training.adaptation.bench",
    "unmask_training.adaptation.demo",
    "unmask_training.localizer.rows",
    "unmask_training.localizer.export",
    "unmask_training.localizer.gallery",
    "unmask_training.localizer.tokens.unseen",
    "unmask_training.tower.unseen",
    "unmask_training.release",
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="unmask-train", description=__doc__)
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _MODULES:
        import_module(name).add_parser(verbs)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 2 for wrong usage or data, with one line that names it."""
    args = parser().parse_args(arguments)
    try:
        code: int = args.run(args)
    except (UnmaskError, ValueError, OSError) as error:
        # One line, whatever was said in several: YAML's errors draw a picture of the place.
        print(f"unmask-train: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return code
