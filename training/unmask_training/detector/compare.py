"""`unmask-train recipes`: every trunk fitted by one configuration, measured on the same pictures, in one table."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from unmask.core.images import View, ViewContract
from unmask_training.configuration import read_settings
from unmask_training.data.chips import INDEX, Chips, Row
from unmask_training.detector.evaluate import detection_rows, main_sources
from unmask_training.detector.export import MARGIN
from unmask_training.detector.fit import fit
from unmask_training.detector.network import Detector, read_state
from unmask_training.detector.plain_graph import logits, milliseconds, session, write_plain
from unmask_training.detector.recipe import Recipe
from unmask_training.measuring.measures import Bools, Floats, Point, Scored, percent, pooled
from unmask_training.trunks import SPECS, spec

RESULTS: Final = "recipes.json"
SCHEMA: Final = "unmask.recipes/1"
REFERENCE: Final = "mobilenet_v2"
# All of the registry, and what is measured with two parts learning.
ROWS: Final = (*SPECS, "resnext101:frozen")
_FIGURES: Final = ("balanced_accuracy", "accuracy_on_fakes", "accuracy_on_reals", "auc")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What every row shares: the configuration as told, prepared data, output folder, published weights by trunk."""

    told: Mapping[str, Any]
    data: Path
    out: Path
    weights: Mapping[str, Path]

    def settings(self) -> dict[str, Any]:
        """What an output folder was begun with; rows under other settings do not belong into one table."""
        digest = hashlib.sha256((self.data / INDEX).read_bytes()).hexdigest()
        return {"schema": SCHEMA, "data": digest, "config": dict(self.told)}

    def start(self, name: str) -> Path | None:
        """The file of weights that was told for a trunk."""
        return self.weights.get(name.partition(":")[0])


def compare(comparison: Comparison, names: Sequence[str]) -> dict[str, Any]:
    """Fits and measures each named trunk that `recipes.json` does not hold yet; returns what it holds then.

    Raises `ValueError` for a folder that was begun with other settings, or a finished row with another start.
    """
    path = comparison.out / RESULTS
    chips, results = Chips(comparison.data), _begun(path, comparison)
    for name in names:
        folder, weights = comparison.out / name.replace(":", "-"), comparison.start(name)
        if name in results["recipes"]:
            _check_start(name, results["recipes"][name]["start"], weights)
            continue
        if (folder / "detector.pt").is_file():
            _check_start(name, read_state(folder / "detector.pt")["start"], weights)
        told = {**comparison.told, "trunk": name}
        results["recipes"][name] = measure(name, read_state(fit(told, comparison.data, folder, weights, resume=True)), chips)
        _write(path, results)
    return results


def measure(name: str, state: Mapping[str, Any], chips: Chips) -> dict[str, Any]:
    """One row: how it was fitted, size, time and the figures on `val`, of a checkpoint's averaged weights."""
    network = Detector(state["families"], 0.0, name)
    network.load_state_dict(state["average"])
    size = int(state["size"])
    with TemporaryDirectory() as folder:
        path, reference = Path(folder) / "plain.onnx", Path(folder) / "reference.onnx"
        gap = write_plain(network.eval(), size, path)
        write_plain(Detector(state["families"], 0.0, REFERENCE).eval(), size, reference)
        graph = session(path)
        ours, base = milliseconds([graph, session(reference)], size)
        figures = _figures(graph, ViewContract(View.ALIGNED, size, MARGIN), chips)
        megabytes = path.stat().st_size / 1e6
    return {
        "source": spec(name)[0].source,
        "learns": spec(name)[1],
        "start": dict(state["start"]),
        "steps": state["step"],
        "minutes": round(state["seconds"] / 60.0, 2),
        "parameters": sum(part.numel() for part in network.trunk.parameters()),
        "megabytes": round(megabytes, 2),
        "milliseconds": round(ours, 2),
        "times_reference": round(ours / base, 2),
        "onnx_gap": gap,
        **figures,
    }


def _figures(graph: Any, contract: ViewContract, chips: Chips) -> dict[str, Any]:
    """Threshold from the calibration part; figures with intervals on `val`, soft sources left out."""
    parts = {part: detection_rows(chips, part) for part in ("calibrate", "val")}
    empty = [part for part, rows in parts.items() if len({row.label for row in rows}) < 2]
    if empty:
        raise ValueError(f"prepared data: part {empty[0]!r} needs real and synthetic pictures")
    reals = main_sources(parts["val"])
    fitted, rows = parts["calibrate"], [row for row in parts["val"] if row.label == "synthetic" or row.kind in reals]
    # One threshold without a band of `unsure`: trunks are compared, not operating points.
    threshold = equal_error(logits(graph, contract, chips, fitted), _fake(fitted))
    kinds, groups = np.array([row.kind for row in rows]), np.array([row.group for row in rows])
    scored = Scored(logits(graph, contract, chips, rows), _fake(rows), kinds, groups)
    found = pooled(scored, Point(threshold, threshold))
    return {"threshold": threshold, "figures": {name: found[name] for name in _FIGURES}}


def equal_error(score: Floats, fake: Bools) -> float:
    """The threshold, between two scores, at which as large a share of fakes lies below as of reals above."""
    known = np.unique(score)
    between = (known[1:] + known[:-1]) / 2.0 if len(known) > 1 else known
    missed = np.searchsorted(np.sort(score[fake]), between) / fake.sum()
    alarms = 1.0 - np.searchsorted(np.sort(score[~fake]), between) / (~fake).sum()
    gap = np.abs(missed - alarms)
    best = np.flatnonzero(gap == gap.min())
    return float(between[best[len(best) // 2]])


def _fake(rows: Sequence[Row]) -> Bools:
    return np.array([row.label == "synthetic" for row in rows])


def _begun(path: Path, comparison: Comparison) -> dict[str, Any]:
    """What a folder holds already; an empty result is begun where there is none."""
    settings = comparison.settings()
    if not path.is_file():
        # Written before the first row is done, so that a fit that was cut off does not go on under other settings.
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, {**settings, "recipes": {}})
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name, value in settings.items() if results[name] != value]
        results["recipes"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the results of `unmask-train recipes`") from error
    if differ:
        raise ValueError(f"{path}: begun with another {', '.join(differ)}; take another --out")
    return dict(results)


def _check_start(name: str, start: Mapping[str, Any], weights: Path | None) -> None:
    """A row that began otherwise than is told now must not pass for what is asked."""
    told = None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()
    if start.get("sha256") != told:
        raise ValueError(f"recipe {name}: was begun with other weights than --weights tells; take another --out")


def _write(path: Path, results: Mapping[str, Any]) -> None:
    aside = path.with_suffix(".writing")
    aside.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def markdown(results: Mapping[str, Any]) -> str:
    """The table, a row for each recipe there is; those that were not run say so."""
    rows = results["recipes"]
    steps, batch, size = (results["config"][name] for name in ("steps", "batch", "size"))
    pictures = max((row["figures"]["auc"]["n"] for row in rows.values()), default=0)
    lines = [
        f"{steps} steps of {batch} views of {size} pixels for each recipe. {pictures} pictures of `val`, called fake from the",
        "calibration part's equal error on, without `unsure`; 95 % intervals by bootstrap over groups; time of the processor.",
        "",
        f"| recipe | start | balanced % | fakes % | reals % | AUC % | M parameters | MB | ms a face | × {REFERENCE} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*ROWS, *(name for name in rows if name not in ROWS)):
        cells = _cells(rows[name]) if name in rows else ["not run", *[""] * 8]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    start = {"imagenet": "ImageNet", "scratch": "from scratch"}.get(row["start"]["kind"], row["start"]["kind"])
    learns = {"all": "", "frozen": ", heads learn"}.get(row["learns"], f", {row['learns']} learns")
    figures = [percent(row["figures"][name]) for name in _FIGURES]
    sizes = [f"{row['parameters'] / 1e6:.2f}", f"{row['megabytes']:.1f}"]
    return [start + learns, *figures, *sizes, f"{row['milliseconds']:.1f}", f"{row['times_reference']:.2f}"]


def chosen(only: Sequence[str] | None, weights: Mapping[str, Path]) -> list[str]:
    """Which rows to run; raises `ValueError` for an unknown name, and for parts frozen at random when named.

    Without names all are run, but those that learn only a part of what no file of weights was told for.
    """
    lacking = [name for name in only or ROWS if spec(name)[1] != "all" and name.partition(":")[0] not in weights]
    if only and lacking:
        bare = lacking[0].partition(":")[0]
        raise ValueError(f"recipe {lacking[0]}: learns only {spec(lacking[0])[1]}, so it needs --weights {bare}=FILE")
    return [name for name in dict.fromkeys(only or ROWS) if name not in lacking]


def weights_of(told: Sequence[str]) -> dict[str, Path]:
    """`NAME=FILE` options by name; raises `ValueError` for an unknown name, one without weights, or no file."""
    found = {}
    for option in told:
        name, equals, file = option.partition("=")
        if not equals:
            raise ValueError(f"--weights {option}: expected NAME=FILE")
        if not spec(name)[0].pretrained:
            raise ValueError(f"--weights {option}: {name} has no published weights")
        if ":" in name:
            raise ValueError(f"--weights {option}: weights are for {name.partition(':')[0]}, whatever part of it learns")
        if not Path(file).is_file():
            raise ValueError(f"--weights {option}: no file there")
        found[name] = Path(file)
    return found


def run(args: argparse.Namespace) -> int:
    """Runs what is not done yet and prints the table."""
    needs = "needs the settings of a fit, without `recipe` and `trunk`"
    told = read_settings(args.config, needs)
    if "trunk" in told or "recipe" in told:
        raise ValueError(f"{args.config}: {needs}")
    told |= {name: value for name in ("steps", "size") if (value := getattr(args, name)) is not None}
    recipe = Recipe.of(told)
    told |= {name: getattr(recipe, name) for name in ("steps", "size", "batch")}
    weights = weights_of(args.weights)
    names = chosen(args.only, weights)
    print(markdown(compare(Comparison(told, args.data, args.out, weights), names)))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("recipes", help="fit every trunk by one configuration and compare them in a table")
    default = Path(__file__).resolve().parents[2] / "configs" / "recipes.yaml"
    command.add_argument("--data", type=Path, required=True, help="prepared data")
    command.add_argument("--out", type=Path, required=True, help=f"folder for {RESULTS} and checkpoints; run again, it goes on")
    command.add_argument("--config", type=Path, default=default, help="settings of the fits (default: configs/recipes.yaml)")
    command.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(ROWS)} (default: all)")
    command.add_argument("--steps", type=int, help="override the configuration's number of steps")
    command.add_argument("--size", type=int, help="override the configuration's side of a view in pixels")
    told = "published weights of a trunk to start from; repeatable (without: from scratch)"
    command.add_argument("--weights", action="append", default=[], metavar="NAME=FILE", help=told)
    command.set_defaults(run=run)
