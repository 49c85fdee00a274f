"""`unmask-train export`: a checkpoint becomes a version folder: ONNX, weights, calibration, card, figures."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from safetensors.torch import save_file

from unmask.core.cards import CARD_SCHEMA, Card
from unmask.core.golden import golden_pictures
from unmask_training.data.augment import jpeg
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.evaluate import detection_rows, evaluate, logits, scored
from unmask_training.detector.network import Detector, Served, read_state
from unmask_training.detector.recipe import Recipe
from unmask_training.measuring.calibration import card_calibration, fit_calibration, operating_point, reference_shares
from unmask_training.measuring.measures import markdown

MARGIN: Final = 1.0
_LARGEST: Final = 30_000_000
# In logits: processors round integer products alike, but float ones in another order.
_GOLDEN_TOLERANCE: Final = 0.1
_PARITY: Final = 1e-3
_LICENCE: Final = (
    "research and evaluation only, where the training data are (FFHQ CC-BY-NC-SA-4.0, DFDC terms, and others: see "
    "training.data); ImageNet start from torchvision (BSD-3-Clause)"
)


def load_network(checkpoint: Path) -> tuple[Detector, dict[str, Any]]:
    """The averaged weights of a checkpoint, and all that it says of itself."""
    state = read_state(checkpoint)
    if not {"families", "average", "size"} <= set(state):
        raise ValueError(f"{checkpoint}: not a detector's checkpoint")
    network = Detector(state["families"], trunk=state.get("trunk", "mobilenet_v2"))
    network.load_state_dict(state["average"])
    return network.eval(), state


def training_of(state: Mapping[str, Any], config: Path) -> dict[str, Any]:
    """What the card says of the fit, from the checkpoint itself.

    Raises `ValueError` when the checkpoint does not say how it was made, or by other settings than `config`'s: a card must
    not name a recipe that did not make its weights.
    """
    if "recipe" not in state:
        raise ValueError("checkpoint: does not say by which settings it was fitted; `unmask-train fit` writes one that does")
    told, stated = asdict(Recipe.of(yaml.safe_load(config.read_text(encoding="utf-8")))), dict(state["recipe"])
    steps = "" if told["steps"] == stated["steps"] else f" --steps {stated['steps']}"
    differ = sorted(key for key in told if key != "steps" and told[key] != stated.get(key))
    if differ:
        raise ValueError(f"{config}: the checkpoint was fitted with another {', '.join(differ)}")
    if state["step"] < stated["steps"] and not stated["minutes"]:
        raise ValueError(f"checkpoint: {state['step']} of {stated['steps']} steps done; go on with --resume")
    recipe = f"training/configs/{config.name}"
    weights = "" if state["start"]["kind"] == "scratch" else " --weights FILE"
    return {
        "seed": stated["seed"],
        "recipe": recipe,
        "command": f"unmask-train fit --config {recipe} --data DATA --out OUT{weights}{steps}",
        "steps": state["step"],
        "minutes": round(state["seconds"] / 60.0, 1),
        "start": dict(state["start"]),
    }


def write_graph(network: Detector, size: int, path: Path) -> float:
    """Writes the served ONNX graph; returns the largest difference to torch on random pictures, which must be <= 1e-3."""
    served = Served(network).eval()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=generator)
    names = ["synthetic", "family", "embedding"]
    torch.onnx.export(
        served,
        (sample,),
        str(path),
        input_names=["image"],
        output_names=names,
        dynamic_axes={name: {0: "batch"} for name in ["image", *names]},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(str(path)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = served(sample)
    found = session.run(names, {"image": sample.numpy()})
    gap = max(float(np.abs(np.asarray(f) - e.numpy()).max()) for f, e in zip(found, expected, strict=True))
    if gap > _PARITY:
        raise ValueError(f"{path}: the ONNX graph differs from torch by {gap:.2g}, more than {_PARITY}")
    return gap


def files_of(
    folder: Path, names: Sequence[str] = ("model.onnx", "weights.safetensors"), fetched: Sequence[str] = ()
) -> dict[str, Any]:
    """sha256 and length of each file that the card must name; raises `ValueError` for one over 30 MB that is not `fetched`."""
    entries = {}
    for name in names:
        data = (folder / name).read_bytes()
        if len(data) > _LARGEST and name not in fetched:
            raise ValueError(f"{folder / name}: {len(data)} bytes, more than the {_LARGEST} that may be committed")
        entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return entries


def golden_section(folder: Path, size: int) -> dict[str, Any]:
    """What the graph answers to golden pictures, for `unmask models verify` on other machines."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["synthetic"], {session.get_inputs()[0].name: golden_pictures(size)})
    return {"answers": [round(float(logit), 4) for logit in found], "tolerance": _GOLDEN_TOLERANCE}


def data_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What was trained on: pictures by kind and licence."""
    counts = Counter((row.kind, row.licence) for row in rows)
    return [{"source": kind, "licence": licence, "pictures": n} for (kind, licence), n in sorted(counts.items())]


def base_card(folder: Path, network: Detector, size: int, training: Mapping[str, Any]) -> dict[str, Any]:
    """The card before calibration."""
    families, view = len(network.families), {"view": "aligned", "size": size, "margin": MARGIN, "border": "reflect"}
    shapes = {"synthetic": [-1], "family": [-1, families], "embedding": [-1, 1280]}
    return {
        "schema": CARD_SCHEMA,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": "synthetic",
        "files": files_of(folder),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **view},
        "outputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()],
        "max_batch_size": 32,
        "classes": list(network.families),
        "golden": golden_section(folder, size),
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "thresholds": {},
        "training": dict(training),
        "licence": _LICENCE,
        "parent": None,
    }


def delivered(chips: Chips, rows: Sequence[Row]) -> Chips:
    """The same rows after JPEG 70 of their chips: calibration must hold for pictures that came through a platform."""

    class Delivered(Chips):
        def __init__(self) -> None:
            self.rows = list(rows)

        def chip(self, row: Row) -> Any:
            chip = chips.chip(row)
            return type(chip)(jpeg(np.ascontiguousarray(chip.pixels), 70), chip.to_chip, chip.to_unit)

    return Delivered()


def calibrate(folder: Path, card: dict[str, Any], data: Path) -> dict[str, Any]:
    """The card with temperature, bias and thresholds from the calibration part, as it is and after JPEG 70."""
    chips = Chips(data)
    rows = detection_rows(chips, "calibrate")
    parsed = Card.parse(json.dumps(card).encode(), "")
    parts = [logits(folder, parsed, source, rows) for source in (chips, delivered(chips, rows))]
    twice = [*rows, *rows]
    raw, truth = np.concatenate(parts), np.array([row.label == "synthetic" for row in twice])
    card = {**card, "calibration": card_calibration(fit_calibration(raw, truth))}
    parsed = Card.parse(json.dumps(card).encode(), "")
    found = scored(parsed, raw, twice)
    card["thresholds"] = operating_point(found)
    card["reference"] = reference_shares(found)
    return card


def export(checkpoint: Path, folder: Path, data: Path, config: Path, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Fills a version folder and returns its card, figures on `val` included."""
    network, state = load_network(checkpoint)
    training, size = training_of(state, config), int(state["size"])
    folder.mkdir(parents=True, exist_ok=True)
    gap = write_graph(network, size, folder / "model.onnx")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "weights.safetensors")
    chips = Chips(data)
    fitted = [row for row in chips.rows if row.part == "fit" and row.label in {"real", "synthetic"}]
    card = base_card(folder, network, size, {**training, "data": data_of(fitted)})
    card = calibrate(folder, card, data)
    parsed = Card.parse(json.dumps(card).encode(), "")
    card["metrics"] = {"data": "val, groups never trained on", **evaluate(folder, parsed, data)}
    card["notes"] = [
        f"ONNX and torch agree to {gap:.1g} on random pictures",
        "doubt and defence are not given by this graph",
        *notes,
    ]
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def run(args: argparse.Namespace) -> int:
    """Exports and prints the figures."""
    folder = args.repository / "detector" / str(args.version)
    if "shares" in read_state(args.checkpoint):
        from unmask_training.tower import export as tower

        if args.weights is None:
            raise ValueError(f"{args.checkpoint}: stands on a tower; --weights FILE says where its file is")
        card = tower.export(args.checkpoint, folder, args.data, args.config, args.weights, args.note)
    else:
        card = export(args.checkpoint, folder, args.data, args.config, args.note)
    print(f"{folder}: thresholds {card['thresholds']}, calibration {card['calibration']}")
    print(markdown(card["metrics"]))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("export", help="turn a detector's checkpoint into a version of the model repository")
    command.add_argument("checkpoint", type=Path, help="detector.pt or tower.pt from `fit`")
    command.add_argument("--repository", type=Path, required=True, help="model repository to write to")
    command.add_argument("--data", type=Path, required=True, help="prepared data, for calibration and figures")
    command.add_argument("--config", type=Path, required=True, help="the configuration that it was fitted with")
    command.add_argument("--weights", type=Path, help="the tower's file, for a checkpoint that stands on one")
    command.add_argument("--version", type=int, default=1, help="version number (default: 1)")
    command.add_argument("--note", action="append", default=[], metavar="TEXT", help="a line for the card's notes; repeatable")
    command.set_defaults(run=run)
