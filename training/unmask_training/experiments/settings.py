"""What an experiment was told, said once for all its runs: an output folder belongs to one set of settings."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from unmask_training.configuration import read_settings
from unmask_training.detector.network import read_state
from unmask_training.detector.recipe import Recipe
from unmask_training.experiments.corpus import Corpus, open_corpus
from unmask_training.tower.frozen import NAME as TOWER

SETTINGS: Final = "settings.json"
# Stands for a checkpoint that does not say what it saw.
EVERYTHING: Final = "*"


@dataclass(frozen=True, slots=True)
class Settings:
    """Protocol, data, recipe and start; `saw` are the generators and sources that the starting weights were trained on."""

    protocol: str
    data: str
    trunk: str
    weights: str
    saw: tuple[str, ...]
    recipe: Mapping[str, Any]
    views: int
    limit: int
    doubt: float
    seed: int


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a run needs: settings, data, recipe (all kinds with their shares), starting weights, output folder."""

    settings: Settings
    corpus: Corpus
    recipe: Recipe
    weights: Path | None
    out: Path

    def seen(self, kinds: Iterable[str]) -> list[str]:
        """Those of `kinds` that the starting weights have, or may have, been trained on."""
        everything = EVERYTHING in self.settings.saw
        return sorted(kind for kind in kinds if everything or kind in self.settings.saw)


def add_options(command: argparse.ArgumentParser) -> None:
    """The options that every experiment has."""
    command.add_argument("--data", type=Path, required=True, help="prepared data")
    command.add_argument("--out", type=Path, required=True, help="folder for runs and report; run again and it goes on")
    protocols = "frozen: heads over a fixed trunk; full: the whole network a run (default: frozen)"
    command.add_argument("--protocol", default="frozen", choices=("frozen", "full"), help=protocols)
    command.add_argument("--recipe", type=Path, help="YAML of `fit`: shares, size, augmentation (default: equal shares)")
    command.add_argument("--trunk", help=f"network (default: the recipe's, else mobilenet_v2); {TOWER} with frozen")
    command.add_argument("--weights", type=Path, help="weights to start from; needed by frozen: ImageNet's, not a detector's")
    command.add_argument("--steps", type=int, help="full: steps a run (default: the recipe's)")
    command.add_argument("--size", type=int, help="side of the view in pixels (default: the recipe's)")
    command.add_argument(
        "--views", type=int, default=2, help="frozen: augmented views a picture beside the plain one (default: 2)"
    )
    command.add_argument("--limit", type=int, default=0, help="at most so many pictures a kind (default: all)")
    doubt = "share of known faces that may be called unsure because they look unlike all others (default: .03; 0: none)"
    command.add_argument("--doubt", type=float, default=0.03, help=doubt)
    command.add_argument("--seed", type=int, default=1, help="of every draw (default: 1)")


def set_up(args: argparse.Namespace) -> Setup:
    """Reads the data, the recipe and the weights, and claims the output folder for these settings."""
    _check(args)
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = open_corpus(args.data, args.out, args.limit)
    recipe = _recipe(args, corpus)
    sha256, saw = ("", ()) if args.weights is None else _weights(args.weights)
    told = asdict(recipe)
    # json: what is compared with a stored file must have gone the same way.
    told = json.loads(json.dumps(told))
    settings = Settings(
        args.protocol, corpus.fingerprint, recipe.trunk, sha256, saw, told, args.views, args.limit, args.doubt, args.seed
    )
    _claim(args.out / SETTINGS, settings)
    return Setup(settings, corpus, recipe, args.weights, args.out)


def command_of(verb: str, args: argparse.Namespace, extra: Iterable[tuple[str, object]], *, whole: bool = False) -> str:
    """The command line that repeats this, with names for paths; `whole`, that of the full-size experiment."""
    parts = [f"unmask-train {verb} --data DATA --out OUT"]
    parts += [f"--{name} {value}" for name, value in extra if value]
    parts += [f"--protocol {'full' if whole else args.protocol}"]
    parts += [f"--recipe {args.recipe.name}"] if args.recipe else []
    parts += [f"--trunk {args.trunk}" if args.trunk else "", "--weights FILE" if args.weights else ""]
    numbers = {"doubt": args.doubt, "seed": args.seed}
    if not whole:
        numbers |= {
            "size": args.size,
            "steps": args.steps if args.protocol == "full" else None,
            "views": args.views,
            "limit": args.limit or None,
        }
    parts += [f"--{name} {value}" for name, value in numbers.items() if value is not None]
    return " ".join(part for part in parts if part)


def protocol_notes(setup: Setup, verb: str, args: argparse.Namespace, extra: Iterable[tuple[str, object]]) -> list[str]:
    """Protocol, seed, command; and the command of the full-size experiment where this was a smaller one."""
    told = setup.settings
    views = f"the plain and {told.views} augmented views" if told.views else "the plain view"
    head = f"a logistic regression a run on {views} of each picture, drawn to answer all real sources alike"
    frozen = f"the trunk {told.trunk} stays as it came; {head}"
    full = f"the whole network ({told.trunk}) is trained a run, {setup.recipe.steps} steps of {setup.recipe.batch}"
    notes = [f"Protocol `{told.protocol}`: {frozen if told.protocol == 'frozen' else full}; seed {told.seed}."]
    notes += [f"A slice: at most {told.limit} pictures a kind."] if told.limit else []
    notes.append(f"Command: `{command_of(verb, args, extra)}`")
    if told.protocol == "frozen" or told.limit or args.steps is not None:
        notes.append(f"The full-size experiment: `{command_of(verb, args, extra, whole=True)}`")
    return notes


def alarms(setup: Setup, left_out: Iterable[str]) -> list[str]:
    """Says so when the starting weights know, or may know, what the experiment takes for unseen."""
    seen = setup.seen(left_out)
    if not seen:
        return []
    return [
        f"the starting weights were, or may have been, trained on {', '.join(seen)}: what is said here of these as unseen does "
        "not hold. Take ImageNet weights."
    ]


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _check(args: argparse.Namespace) -> None:
    if args.protocol == "frozen" and args.weights is None:
        raise ValueError("--protocol frozen needs --weights: a trunk that nobody trained tells nothing")
    if args.trunk == TOWER and args.protocol != "frozen":
        raise ValueError(f"--trunk {TOWER}: only --protocol frozen is there for it")
    if args.views < 0 or args.limit < 0 or args.seed < 0:
        raise ValueError("--views, --limit and --seed must be at least 0")
    if not 0.0 <= args.doubt < 1.0:
        raise ValueError(f"--doubt {args.doubt}: a share from 0 to below 1")


def _recipe(args: argparse.Namespace, corpus: Corpus) -> Recipe:
    """The told recipe on the kinds there are: a kind that it does not name has share 1."""
    told: dict[str, Any] = {}
    if args.recipe is not None:
        told = read_settings(args.recipe, "not a recipe")
    for half, kinds in (("real", corpus.sources), ("synthetic", corpus.generators)):
        shares = told.get(half) or {}
        if not isinstance(shares, Mapping):
            raise ValueError(f"{args.recipe}: {half}: expected names and their shares")
        told[half] = {kind: shares.get(kind, 1.0) for kind in kinds}
    told["seed"] = args.seed
    if args.steps is not None:
        told |= {"steps": args.steps, "minutes": 0.0}
    if args.size is not None:
        told["size"] = args.size
    if args.trunk == TOWER:
        return replace(Recipe.of(told), trunk=TOWER)
    if args.trunk is not None:
        told["trunk"] = args.trunk
    return Recipe.of(told)


def _weights(path: Path) -> tuple[str, tuple[str, ...]]:
    """sha256 of a file of weights, and the kinds that it was trained on: none for ImageNet's."""
    if not path.is_file():
        raise ValueError(f"{path}: no weights there; `unmask models fetch mobilenet_v2 --out FILE` brings ImageNet's")
    if path.suffix == ".onnx":  # the tower, which saw no face of any corpus by its name
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()
    state = read_state(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if "average" not in state:
        return sha256, ()
    recipe = state.get("recipe")
    # What a checkpoint started from may have seen more than its own recipe names.
    if recipe is None or dict(state.get("start") or {}).get("kind") == "checkpoint":
        return sha256, (EVERYTHING,)
    return sha256, tuple(sorted({*recipe["real"], *recipe["synthetic"]}))


def _claim(path: Path, settings: Settings) -> None:
    """Writes the settings, or raises `ValueError` naming what differs from those that the folder belongs to."""
    text = json.dumps(asdict(settings), indent=2) + "\n"
    if not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
    differ = sorted(name for name in now if now[name] != before.get(name))
    if differ:
        raise ValueError(f"{path.parent}: holds runs with another {', '.join(differ)}; take another --out or the same settings")
