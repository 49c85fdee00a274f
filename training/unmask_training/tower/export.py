"""A tower's checkpoint becomes a version folder: its own graph, the whole graph, weights, memory, card, figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from unmask.core.cards import CARD_SCHEMA, Card
from unmask.core.golden import golden_pictures
from unmask.core.vit_trunk import FEATURES, PIXELS, joined
from unmask_training.adaptation.memory import MEMORY, Memory
from unmask_training.data.chips import Chips
from unmask_training.detector.evaluate import detection_rows, evaluate, scored
from unmask_training.detector.export import data_of, files_of, golden_section
from unmask_training.detector.network import Detector, read_state
from unmask_training.detector.outputs import outputs
from unmask_training.measuring.calibration import card_calibration, fit_calibration, operating_point, reference_shares
from unmask_training.measuring.tiers import TIERS
from unmask_training.tower.fit import learnt_rows
from unmask_training.tower.graphs import FETCHED, OWN, reading, write_gap
from unmask_training.tower.network import CHANNELS, PARTS, Answers, TowerDetector
from unmask_training.tower.recipe import TowerRecipe

_FILES: Final = ("model.onnx", OWN, "weights.safetensors")
_PARITY: Final = 1e-3
# A known generator's picture is called unknown so often, a familiar face strange so often.
_UNKNOWN_SHARE: Final = 0.05
STRANGE_SHARE: Final = 0.02
# For `unmask discover`: of 25 faces of a generator that nothing was fitted on among 100 photographs that look most generated,
# the cluster that has most of them has 22 to 65 % (five generators' families, five draws) and consists of them by 87 to 100 %;
# at .8 it has 0 to 46 %.  (Whitened embeddings of unrelated faces are at right angles.)
_CLUSTER_DISTANCE: Final = 0.9
_LICENCE: Final = (
    "research and evaluation only, where the training data are (FFHQ CC-BY-NC-SA-4.0, DFDC terms, and others); "
    "tower: CLIP ViT-B/16 (MIT) as fetched by weights.lock; memory.safetensors holds features that derive from faces"
)


class Own(nn.Module):
    """The graph around the gap that the tower fills."""

    def __init__(self, network: TowerDetector) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, tower: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N, S, S, 3) and tower features to what the tower takes, and all answers."""
        pixels = image.permute(0, 3, 1, 2).float()
        return (self.network.tower_pixels(pixels), *self.network(pixels, tower))


def load_network(checkpoint: Path) -> tuple[TowerDetector, dict[str, Any]]:
    """The fitted network and all that its checkpoint says."""
    state = read_state(checkpoint)
    if not {"network", "families", "recipe", "shares"} <= set(state):
        raise ValueError(f"{checkpoint}: not a tower detector's checkpoint")
    network = TowerDetector(state["families"], Detector(state["families"], 0.0), state["size"], state["sigma"])
    network.restore(state["network"])
    return network, state


def stored(network: TowerDetector) -> dict[str, Tensor]:
    """All weights, those in half precision that it holds exactly; heads and prototypes always in full."""
    heads = ("synthetic.", "family.", "prototypes.")
    found = {name: value.contiguous() for name, value in network.state_dict().items()}
    return {
        name: value.half() if not name.startswith(heads) and value.equal(value.half().float()) else value
        for name, value in found.items()
    }


def write_own(network: TowerDetector, path: Path) -> None:
    """Writes the detector's own graph; what the tower gives and takes is the gap in it."""
    sample = torch.from_numpy(golden_pictures(network.size, 2))
    given = {"image": sample, FEATURES: torch.zeros(2, network.project.in_features)}
    parts = [getattr(network, part).numpy() for part in PARTS]
    write_gap(Own(network).eval(), given, [PIXELS, *Answers._fields], parts, path)


def write_graphs(network: TowerDetector, raw: bytes, folder: Path) -> float:
    """Writes own.onnx and model.onnx; returns the largest difference of the answers to torch's on the tower's own features."""
    write_own(network, folder / OWN)
    whole = joined(raw, (folder / OWN).read_bytes())
    (folder / "model.onnx").write_bytes(whole)
    return parity(network, whole)


def parity(network: TowerDetector, whole: bytes) -> float:
    """Largest difference between the whole graph and torch given the same tower features; raises `ValueError` above 1e-3."""
    session = reading(whole, FEATURES)
    pictures = golden_pictures(network.size)
    names = list(Answers._fields)
    *found, tower = session.run([*names, FEATURES], {"image": pictures})
    with torch.no_grad():
        expected = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), torch.from_numpy(tower))
    gaps = {n: float(np.abs(f - e.numpy()).max()) for n, f, e in zip(names, found, expected, strict=True) if n != "distance"}
    worst = max(gaps, key=lambda name: gaps[name])
    if gaps[worst] > _PARITY:
        raise ValueError(f"model.onnx: output {worst} differs from torch by {gaps[worst]:.2g}, more than {_PARITY}")
    return gaps[worst]


def base_card(folder: Path, network: TowerDetector, training: Mapping[str, Any]) -> dict[str, Any]:
    """The card before calibration."""
    shapes: dict[str, list[int]] = {name: [-1] for name in ("synthetic", "plain", "blurred", "distance")}
    places = network.size // 32
    shapes |= {"family": [-1, network.family.out_features], "embedding": [-1, CHANNELS], "cam": [-1, places, places]}
    shapes |= {"features": [-1, 2, CHANNELS + 1]}
    return {
        "schema": CARD_SCHEMA,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": "synthetic",
        "files": files_of(folder, _FILES, fetched=FETCHED),
        "input": {
            **{"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB"},
            **{"view": "aligned", "size": network.size, "margin": 1.0, "border": "reflect"},
        },
        "outputs": [{"name": name, "dtype": "float32", "shape": shapes[name]} for name in Answers._fields],
        "max_batch_size": 32,
        "classes": list(network.families),
        "golden": golden_section(folder, network.size),
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "defence": {"sigma": network.sigma, "combine": "mean"},
        "thresholds": {},
        "training": dict(training),
        "licence": _LICENCE,
        "parent": None,
    }


def calibrated(folder: Path, card: dict[str, Any], chips: Chips) -> dict[str, Any]:
    """The card with calibration, open set, doubt and operating point: from the calibration part, as all tiers deliver it."""
    rows = detection_rows(chips, "calibrate")
    parsed = Card.parse(json.dumps(card).encode(), "")
    found = [outputs(folder, parsed, chips, rows, tier) for tier in TIERS]
    every = [*rows] * len(TIERS)
    raw = np.concatenate([part.synthetic for part in found])
    truth = np.array([row.label == "synthetic" for row in every])
    card = {**card, "calibration": card_calibration(fit_calibration(raw, truth))}
    family = np.concatenate([part.family for part in found if part.family is not None])
    distance = np.concatenate([part.distance for part in found if part.distance is not None])
    card["open_set"] = open_set(family[truth])
    card["doubt"] = doubt_map(distance)
    parsed = Card.parse(json.dumps(card).encode(), "")
    answers = scored(parsed, raw, every)
    card["thresholds"] = operating_point(answers) | {"doubt": 1.0 - STRANGE_SHARE, "cluster_distance": _CLUSTER_DISTANCE}
    card["reference"] = reference_shares(answers)
    return card


def doubt_map(distance: NDArray[np.floating]) -> dict[str, list[float]]:
    """Section `doubt`: by distance, the share of familiar faces (N,) that are less strange."""
    shares = np.linspace(0.0, 1.0, 65)
    return {
        "distances": [round(float(value), 4) for value in np.quantile(distance, shares)],
        "doubts": [round(float(share), 4) for share in shares],
    }


def open_set(family: NDArray[np.float64], temperature: float = 1.0) -> dict[str, float]:
    """The constant that `unknown` stands with: a twentieth of known generators' pictures has no larger logit."""
    largest = family.max(axis=1) / temperature
    return {"temperature": temperature, "unknown": round(float(np.quantile(largest, _UNKNOWN_SHARE)), 4)}


def remember(folder: Path, card: Card, chips: Chips) -> Memory:
    """Features of all real and wholly synthetic pictures, as the graph gives them."""
    rows = [row for row in chips.rows if row.label in {"real", "synthetic"}]
    features = outputs(folder, card, chips, rows).features
    if features is None:
        raise ValueError(f"{folder}: the graph gives no features to remember")
    return Memory.of_rows(features, rows)


def export(checkpoint: Path, folder: Path, data: Path, config: Path, raw: Path, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Fills a version folder and returns its card, figures on `val` included; `raw` is the tower's file."""
    network, state = load_network(checkpoint)
    training = training_of(state, config, raw)
    folder.mkdir(parents=True, exist_ok=True)
    gap = write_graphs(network, raw.read_bytes(), folder)
    save_file(stored(network), folder / "weights.safetensors")
    chips = Chips(data)
    learnt = [row for _, row in learnt_rows(chips, TowerRecipe.of(yaml.safe_load(config.read_text(encoding="utf-8"))))]
    card = base_card(folder, network, {**training, "data": data_of(learnt)})
    memory = remember(folder, Card.parse(json.dumps(card).encode(), ""), chips)
    memory.save(folder / MEMORY)
    card = calibrated(folder, {**card, "files": files_of(folder, (*_FILES, MEMORY), fetched=FETCHED)}, chips)
    parsed = Card.parse(json.dumps(card).encode(), "")
    card["metrics"] = {"data": "val, groups never trained on", **evaluate(folder, parsed, data)}
    card["notes"] = [f"ONNX and torch agree to {gap:.1g} on the same tower features", *notes]
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def training_of(state: Mapping[str, Any], config: Path, raw: Path) -> dict[str, Any]:
    """What the card says of the fit; raises `ValueError` for another configuration or tower than made the checkpoint."""
    told = json.loads(json.dumps(asdict(TowerRecipe.of(yaml.safe_load(config.read_text(encoding="utf-8"))))))
    stated = json.loads(json.dumps(dict(state["recipe"])))
    differ = sorted(key for key in told if told[key] != stated.get(key))
    if differ:
        raise ValueError(f"{config}: the checkpoint was fitted with another {', '.join(differ)}")
    if hashlib.sha256(raw.read_bytes()).hexdigest() != state["weights"]:
        raise ValueError(f"{raw}: not the tower's file that the checkpoint was fitted with")
    recipe = f"training/configs/{config.name}"
    return {
        "seed": stated["seed"],
        "recipe": recipe,
        "command": f"unmask-train fit --config {recipe} --data DATA --out OUT --weights FILE",
        "rows": state["step"],
        "tower": state["weights"],
        "shares": {name: round(share, 4) for name, share in state["shares"].items()},
    }
