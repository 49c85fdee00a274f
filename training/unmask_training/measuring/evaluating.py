"""`unmask-train evaluate`: measures a model version on prepared data by its card's task."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from unmask.core.cards import Card
from unmask_training.measuring.measures import markdown
from unmask_training.measuring.tiers import PREPROCESS
from unmask_training.registry import EVALUATORS, find


def read_card(folder: Path) -> Card:
    """The card of a version folder."""
    text = (folder / "card.json").read_bytes()
    return Card.parse(text, hashlib.sha256(text).hexdigest(), str(folder / "card.json"))


def run(args: argparse.Namespace) -> int:
    """Prints the tables, writes JSON and page where asked."""
    card = read_card(args.model)
    if card.task == "synthetic":
        return _detector(args, card)
    told = {"--tiers": args.tiers, "--by": args.by, "--preprocess": args.preprocess != PREPROCESS[0], "--html": args.html}
    if wrong := [option for option, value in told.items() if value]:
        raise ValueError(f"{args.model}: {', '.join(wrong)}: for detectors only; this model's task is {card.task!r}")
    figures = find(EVALUATORS, card.task, "task")(args.model, card, args.data, args.part)
    _write(args.json, _json(figures))
    print(markdown(figures) if "by_kind" in figures else json.dumps(figures, indent=2))
    return 0


def _detector(args: argparse.Namespace, card: Card) -> int:
    from unmask_training.detector.evaluate import report
    from unmask_training.measuring.report import page, text

    for path in (args.json, args.html):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent}")
    options = {"tiers": args.tiers, "by": args.by, "preprocess": args.preprocess}
    found = {**report(args.model, card, args.data, args.part, **options), "command": _command(args, card)}
    _write(args.json, _json(found))
    _write(args.html, "" if args.html is None else page(found))
    print(text(found))
    return 0


def _command(args: argparse.Namespace, card: Card) -> str:
    """The command that repeats these figures, without the places where things lay."""
    words = ["unmask-train", "evaluate", f"{card.name}/{card.version}", "DATA", "--part", args.part]
    words += ["--tiers"] if args.tiers else []
    words += [word for column in args.by for word in ("--by", column)]
    return shlex.join([*words, "--preprocess", args.preprocess])


def _json(figures: dict[str, Any]) -> str:
    return json.dumps(figures, indent=2, allow_nan=False) + "\n"


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text, encoding="utf-8")


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("evaluate", help="measure a model version on prepared data")
    command.add_argument("model", type=Path, help="version folder, e.g. model_repository/detector/1")
    command.add_argument("data", type=Path, help="prepared data")
    command.add_argument("--part", default="val", choices=("val", "calibrate"), help="which part (default: val)")
    command.add_argument("--tiers", action="store_true", help="also as the web delivers pictures, and as it does at its worst")
    command.add_argument("--by", action="append", default=[], metavar="COLUMN", help="also by a manifest column; repeatable")
    command.add_argument(
        "--preprocess", default=PREPROCESS[0], choices=PREPROCESS,
        help="the view: as the card cuts it, or the whole chip squeezed or padded to a square (default: crop)",
    )  # fmt: skip
    command.add_argument("--json", type=Path, help="also write all figures to this file")
    command.add_argument("--html", type=Path, help="also write a page with plots to this file")
    command.set_defaults(run=run)
