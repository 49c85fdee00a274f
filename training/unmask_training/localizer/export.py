"""`unmask-train export-localizer`: a checkpoint becomes a version folder: ONNX, weights, calibration, card, figures."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from unmask.core.cards import CARD_SCHEMA, Card, logit_of
from unmask.core.images import ViewContract
from unmask.core.masks import HEAT_LEVEL, Heads, face_score, regions_of
from unmask_training.data.chips import Chips
from unmask_training.detector.export import files_of
from unmask_training.localizer.base import Localizer
from unmask_training.localizer.evaluate import Case, evaluate, heads_of, masked_cases, whole_cases
from unmask_training.localizer.networks import NETWORKS
from unmask_training.localizer.rows import Regions
from unmask_training.localizer.samples import Delivery, Sampler, contract_of
from unmask_training.measuring.calibration import card_calibration, fit_calibration

_PARITY: Final = 1e-3
# At these false-positive rates on undoctored real faces of the calibration part regions are drawn, and `unsure` begins:
# below the 3 % that are allowed, because a few hundred faces place so high a quantile only roughly.
_REGION_RATE: Final = 0.01
_UNSURE_RATE: Final = 0.02
_POINTS: Final = (0.005, 0.01, 0.02, 0.03, 0.05)
_MADE: Final = 500
_LEVELS: Final = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
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
    folder: Path, view: ViewContract, training: Mapping[str, Any], model: Localizer, *, large: bool = False
) -> dict[str, Any]:
    """The card before calibration; files too large to be committed are refused unless they are told to be `large`."""
    files = ("model.onnx", "weights.safetensors")
    framing = {"view": view.view.value, "size": view.size, "margin": view.margin, "border": view.border.value}
    return {
        "schema": CARD_SCHEMA,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": "regions",
        "files": files_of(folder, files, fetched=files if large else ()),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **framing},
        "outputs": model.outputs(view.size),
        "max_batch_size": 32,
        "classes": ["manipulated"],
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "thresholds": {},
        "training": dict(training),
        "licence": _LICENCE,
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


@dataclass(frozen=True, slots=True)
class Scores:
    """Of faces of the calibration part: raw face scores, those of their strongest regions, the truth, and which were
    delivered anew (the others are as they are)."""

    best: NDArray[np.float64]
    strongest: NDArray[np.float64]
    truth: NDArray[np.bool_]
    anew: NDArray[np.bool_]


def calibration_cases(card: Card, data: Path) -> tuple[list[Case], int]:
    """Doctored faces, the prepared ones and splices made for it, and every real face and twin; and how many of them are as
    they are (they come first)."""
    view = card.view
    if view is None:
        raise ValueError(f"model {card.name} {card.version}: the card states no view")
    cases = [*masked_cases(card, Regions(data), "calibrate"), *whole_cases(card, Chips(data), "calibrate")]
    cases = [case for case in cases if not case.kind.startswith("synthetic:") and case.kind != "photoshop"]
    plainly, rng = len(cases), np.random.default_rng(0)
    for kind in ("made", "real"):
        sampler = Sampler(data, {kind: 1.0}, "calibrate", Delivery())
        samples = [sampler.draw(view, rng)[0] for _ in range(_MADE)]
        doctored = kind == "made"
        cases += [Case(s.view, s.mask, doctored, kind, "") for s in samples if bool(s.mask.any()) == doctored]
    return cases, plainly


def scores_of(cases: Sequence[Case], found: Sequence[Heads], plainly: int, level: float) -> Scores:
    """Scores at a heat level."""
    regions = [regions_of(heads, case.view.shape[0], score_threshold=0.0, heat_level=level, limit=1)
               for case, heads in zip(cases, found, strict=True)]  # fmt: skip
    return Scores(
        best=np.array([face_score(heads) for heads in found]),
        strongest=np.array([rows[0].score if rows else 0.0 for rows in regions]),
        truth=np.array([case.doctored for case in cases]),
        anew=np.arange(len(cases)) >= plainly,
    )


def best_level(cases: Sequence[Case], found: Sequence[Heads]) -> float:
    """The heat level at which masks of doctored faces agree best with the truth (mean IoU); the default without heat."""
    pairs = [
        (c.mask, h["heat"]) for c, h in zip(cases, found, strict=True) if c.doctored and c.mask is not None and "heat" in h
    ]
    if not pairs:
        return HEAT_LEVEL
    return max(_LEVELS, key=lambda level: float(np.mean([_agreement(mask, heat, level) for mask, heat in pairs])))


def _agreement(mask: NDArray[np.bool_], heat: NDArray[np.floating], level: float) -> float:
    full = cv2.resize(np.asarray(heat, dtype=np.float32), mask.shape[::-1], interpolation=cv2.INTER_LINEAR) >= level
    return float((full & mask).sum() / max(1, (full | mask).sum()))


def clipped_logits(best: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of raw scores, clipped as serving clips them."""
    return np.array([logit_of(value) for value in np.clip(best, 1e-4, 1.0 - 1e-4)])


def thresholds(scores: Scores, card: Card) -> dict[str, float]:
    """Raw `region_score`, and calibrated probabilities at false-positive rates that hold as they are and delivered anew.

    A region is drawn only on faces that are at least `unsure`: nothing is marked on a face that is called real.
    """

    def raw_at(values: NDArray[np.float64], rate: float) -> float:
        parts = (values[~scores.truth & ~scores.anew], values[~scores.truth & scores.anew])
        undoctored = [np.sort(part) for part in parts if part.size]
        return max(float(part[len(part) - 1 - int(rate * len(part))]) for part in undoctored) + 1e-4

    def probability(raw: float) -> float:
        return round(card.calibration.probability(logit_of(float(np.clip(raw, 1e-4, 1.0 - 1e-4)))), 4)

    points = {f"fpr_{rate:g}": probability(raw_at(scores.best, rate)) for rate in _POINTS}
    doubted = raw_at(scores.best, _UNSURE_RATE)
    recommended = {"real_below": probability(doubted), "manipulated_above": probability(raw_at(scores.best, _REGION_RATE))}
    return points | recommended | {"region_score": round(max(raw_at(scores.strongest, _REGION_RATE), doubted), 4)}


def export(
    checkpoint: Path, folder: Path, data: Path, recipe_path: str, notes: Sequence[str] = (), *, large: bool = False
) -> dict[str, Any]:
    """Fills a version folder and returns its card, figures on `val` included."""
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
    card = base_card(folder, view, training, model, large=large)
    cases, plainly = calibration_cases(_parsed(card), data)
    found = list(heads_of(folder, (case.view for case in cases)))
    level = best_level(cases, found)
    scores = scores_of(cases, found, plainly, level)
    card["calibration"] = card_calibration(fit_calibration(clipped_logits(scores.best), scores.truth))
    card["thresholds"] = thresholds(scores, _parsed(card))
    if "heat" in model.heads:
        card["thresholds"]["heat_level"] = level
    card["metrics"] = {"data": "val, groups never trained on", **evaluate(folder, _parsed(card), data)}
    card["notes"] = [f"ONNX and torch agree to {gap:.1g} on random pictures", *NOTES, *notes]
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


NOTES: Final = (
    "region_score is the raw confidence from which a region is drawn; the other thresholds are calibrated probabilities",
    "wholly generated faces are outside its task: training showed some of them without a region",
    "pixel figures are exact, without tolerance at the rim of a mask",
)


def _parsed(card: Mapping[str, Any]) -> Card:
    return Card.parse(json.dumps(card).encode(), "")


def run(args: argparse.Namespace) -> int:
    """Exports and prints thresholds and the pooled figures."""
    folder = args.repository / "localizer" / str(args.version)
    card = export(args.checkpoint, folder, args.data, f"training/configs/{args.config.name}", args.note, large=args.large)
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
    command.add_argument("--version", type=int, default=1, help="version number (default: 1)")
    command.add_argument("--note", action="append", default=[], help="a remark for the card; may be repeated")
    command.add_argument("--large", action="store_true", help="allow files over 30 MB, which are not for a git repository")
    command.set_defaults(run=run)
