"""`unmask-train evaluate`: measures a model version on prepared data by its card's task."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from unmask.core.cards import Card
from unmask_training.measuring.measures import markdown
from unmask_training.registry import EVALUATORS, find


def read_card(folder: Path) -> Card:
    """The card of a version folder."""
    text = (folder / "card.json").read_bytes()
    return Card.parse(text, hashlib.sha256(text).hexdigest(), str(folder / "card.json"))


def run(args: argparse.Namespace) -> int:
    """Prints the table, writes the JSON where asked."""
    card = read_card(args.model)
    figures = find(EVALUATORS, card.task, "task")(args.model, card, args.data, args.part)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(markdown(figures) if "by_kind" in figures else json.dumps(figures, indent=2))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("evaluate", help="measure a model version on prepared data")
    command.add_argument("model", type=Path, help="version folder, e.g. model_repository/detector/1")
    command.add_argument("data", type=Path, help="prepared data")
    command.add_argument("--part", default="val", choices=("val", "calibrate"), help="which part (default: val)")
    command.add_argument("--json", type=Path, help="also write the figures to this file")
    command.set_defaults(run=run)
