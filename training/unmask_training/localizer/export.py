"""`unmask-train export-localizer`: a checkpoint becomes a version folder: ONNX, weights, calibration, card, figures."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from unmask.core.cards import CARD_SCHEMA
from unmask.core.images import ViewContract
from unmask_training.data.chips import Chips
from unmask_training.detector.export import files_of
from unmask_training.detector.network import read_state
from unmask_training.localizer.base import Localizer
from unmask_training.localizer.calibrating import completed
from unmask_training.localizer.networks import NETWORKS
from unmask_training.localizer.rows import Regions
from unmask_training.localizer.samples import contract_of

_PARITY: Final = 1e-3
_LICENCE: Final = (
    "AGPL-3.0 (network and loss of ultralytics); research and evaluation only, where the training data are (FFHQ "
    "CC-BY-NC-SA-4.0, DFDC terms, and others: see training.data)"
)


class Served(nn.Module):
    """uint8 NHWC RGB in, the network's `heads` out; normalisation inside."""

    def __init__(self, model: Localizer) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Heads of a batch (N, S, S, 3)."""
        heads: tuple[torch.Tensor, ...] = self.model.served(image.permute(0, 3, 1, 2).float() / 255.0)
        return heads


def load_network(checkpoint: Path) -> tuple[Localizer, ViewContract, dict[str, Any]]:
    """The averaged network of a checkpoint, its view and its recipe."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    recipe = state["recipe"]
    model = NETWORKS[recipe["recipe"]]()
    model.load_state_dict(state["average"])
    told = {"steps": int(state["number"]), "minutes": round(float(state["elapsed"]) / 60.0, 1)}
    told_of = {"run": told, "start": state.get("start", {})}
    return model.eval(), contract_of(recipe["size"], recipe["margin"]), recipe | told_of


def write_graph(model: Localizer, size: int, path: Path) -> float:
    """Writes the served graph; returns the largest difference to torch (boxes in view sides), which must be <= 1e-3."""
    served = Served(model).eval()
    generator = torch.Generator().manual_seed(0)
    sample = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
    names = model.heads
    axes = {name: {0: "batch"} for name in ("image", *names)}
    with torch.no_grad():
        # YOLO's head keeps its anchors after the first call; they must not be traced as inputs of this batch.
        served(sample)
        torch.onnx.export(
            served, (sample,), str(path), input_names=["image"], output_names=list(names), dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )  # fmt: skip
        wider = torch.randint(0, 256, (5, size, size, 3), dtype=torch.uint8, generator=generator)
        expected = [value.numpy() for value in served(wider)]
    onnx.checker.check_model(onnx.load(str(path)))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(list(names), {"image": wider.numpy()})
    gap = max(_gap(name, one, other, size) for name, one, other in zip(names, found, expected, strict=True))
    if gap > _PARITY:
        raise ValueError(f"{path}: the ONNX graph differs from torch by {gap:.2g}, more than {_PARITY}")
    return gap


def _gap(name: str, one: NDArray[np.float32], other: NDArray[np.float32], size: int) -> float:
    """The largest difference; boxes, the first four rows of `predictions`, in sides of the view."""
    scale = np.array([size] * 4 + [1.0] * (one.shape[1] - 4))[None, :, None] if name == "predictions" else 1.0
    return float(np.abs((one - other) / scale).max())


def base_card(
    folder: Path,
    view: ViewContract,
    outputs: Sequence[Mapping[str, Any]],
    files: Mapping[str, Any],
    training: Mapping[str, Any],
    licence: str,
) -> dict[str, Any]:
    """The card before calibration."""
    framing = {"view": view.view.value, "size": view.size, "margin": view.margin, "border": view.border.value}
    return {
        "schema": CARD_SCHEMA,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": "regions",
        "files": dict(files),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **framing},
        "outputs": list(outputs),
        "max_batch_size": 32,
        "classes": ["manipulated"],
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "thresholds": {},
        "training": dict(training),
        "licence": licence,
        "parent": None,
    }


def data_of(data: Path) -> list[dict[str, Any]]:
    """What was trained on: pictures by source and licence, doctored ones by engine."""
    fitted: list[tuple[str, str]] = []
    for row in Regions(data):
        if row.part == "fit":
            fitted.append((f"manipulated:{row.engine}" if row.label == "manipulated" else f"twin:{row.source}", row.licence))
    fitted += [(row.kind, row.licence) for row in Chips(data) if row.part == "fit" and row.label != "manipulated"]
    counts = Counter(fitted)
    return [{"source": source, "licence": licence, "pictures": n} for (source, licence), n in sorted(counts.items())]


def export(
    checkpoint: Path, folder: Path, data: Path, recipe_path: str, notes: Sequence[str] = (), *, large: bool = False
) -> dict[str, Any]:
    """Fills a version folder and returns its card, figures on `val` included.

    Files too large to be committed are refused unless they are told to be `large`.
    """
    model, view, recipe = load_network(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    gap = write_graph(model, view.size, folder / "model.onnx")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    start = {"detector": " --weights model_repository/detector/1/weights.safetensors"}.get(recipe["start"].get("kind", ""), "")
    training = {
        "seed": recipe["seed"],
        "recipe": recipe_path,
        "command": f"unmask-train fit --config {recipe_path}{start}",
        **{key: recipe[key] for key in ("start", "run")},
        "data": data_of(data),
    }
    names = ("model.onnx", "weights.safetensors")
    files = files_of(folder, names, fetched=names if large else ())
    card = base_card(folder, view, model.outputs(view.size), files, training, _LICENCE)
    return completed(folder, card, data, [f"ONNX and torch agree to {gap:.1g} on random pictures", *notes])


def run(args: argparse.Namespace) -> int:
    """Exports and prints thresholds and the pooled figures."""
    folder, recipe_path = args.repository / "localizer" / str(args.version), f"training/configs/{args.config.name}"
    if "tower" in read_state(args.checkpoint):
        from unmask_training.localizer.tokens import export as tokens

        if args.weights is None:
            raise ValueError(f"{args.checkpoint}: stands on a tower; --weights FILE says where its file is")
        card = tokens.export(args.checkpoint, folder, args.data, recipe_path, args.weights, args.note)
    else:
        card = export(args.checkpoint, folder, args.data, recipe_path, args.note, large=args.large)
    print(f"{folder}: thresholds {card['thresholds']}, calibration {card['calibration']}")
    print(json.dumps(card["metrics"]["pooled"], indent=2))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("export-localizer", help="turn a localizer's checkpoint into a version of the repository")
    command.add_argument("checkpoint", type=Path, help="localizer.pt from `fit`")
    command.add_argument("--repository", type=Path, required=True, help="model repository to write to")
    command.add_argument("--data", type=Path, required=True, help="prepared data, for calibration and figures")
    command.add_argument("--config", type=Path, required=True, help="the configuration that it was fitted with")
    command.add_argument("--weights", type=Path, help="the tower's file, for a checkpoint that stands on one")
    command.add_argument("--version", type=int, default=1, help="version number (default: 1)")
    command.add_argument("--note", action="append", default=[], help="a remark for the card; may be repeated")
    command.add_argument("--large", action="store_true", help="allow files over 30 MB, which are not for a git repository")
    command.set_defaults(run=run)
