"""`unmask-train fit`: trains whatever recipe a configuration names."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unmask_training.configuration import read_settings
from unmask_training.registry import RECIPES, find


def run(args: argparse.Namespace) -> int:
    """Reads the configuration and hands it to its recipe."""
    needs = f"needs a `recipe:`; there are {', '.join(sorted(RECIPES))}"
    told = read_settings(args.config, needs)
    if not isinstance(told.get("recipe"), str):
        raise ValueError(f"{args.config}: {needs}")
    if args.steps is not None:
        told["steps"] = args.steps
    path = find(RECIPES, told["recipe"], "recipe")(told, args.data, args.out, args.weights, args.resume)
    print(f"checkpoint: {path}")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("fit", help="train a recipe on prepared data")
    command.add_argument("--config", type=Path, required=True, help="YAML with `recipe:` and its settings")
    command.add_argument("--data", type=Path, required=True, help="prepared data")
    command.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    command.add_argument("--weights", type=Path, help="weights to start from (see weights.lock)")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    command.add_argument("--steps", type=int, help="override the configuration's number of steps")
    command.set_defaults(run=run)
