"""A detector's version in miniature that can be adapted, and pictures of faces to adapt it to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.training.drawn_faces import GENERATORS, REALS, drawn_face
from unmask.core import geometry
from unmask.core.cards import CARD_SCHEMA
from unmask.core.geometry import Floats
from unmask.core.images import TEMPLATE, Chip, Pixels, View, ViewContract, cut
from unmask_training import trunks
from unmask_training.adaptation.heads import Head, Readout, Replay, fit_head
from unmask_training.adaptation.memory import MEMORY, Memory
from unmask_training.adaptation.prototypes import Prototypes
from unmask_training.tower.prototypes import PrototypeHead

MODELS = Path(__file__).resolve().parents[2] / "model_repository"
SIZE = 64
CHANNELS = 256
MIXING = np.array([0.1, 0.3], dtype=np.float32)
# The tint of the new generator's faces.
NEW = (-30.0, -10.0, 45.0)


# Of the drawn face, in its 320 pixels: eyes, nose and corners of the mouth.
LANDMARKS = np.array([[130.0, 161.0], [190.0, 161.0], [160.0, 210.0], [133.0, 236.0], [187.0, 236.0]])


def placed(seed: int, tint: Sequence[float] = (0.0, 0.0, 0.0), side: int = 240) -> tuple[Pixels, Floats]:
    """A drawn face unlike those of other seeds (placed, turned, lit and coloured anew, its own background); its landmarks."""
    rng = np.random.default_rng(seed)
    behind = cv2.resize(rng.uniform(60, 190, (6, 6, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    drawn = drawn_face(side, seed).astype(np.float64) * rng.uniform(0.7, 1.15) + rng.normal(0, 9, 3)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-12, 12), rng.uniform(0.7, 0.95))
    turn[:, 2] += rng.uniform(-0.06, 0.06, 2) * side
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, round(side * 0.52)), (round(side * 0.3), round(side * 0.38)), 0, 0, 360, 255, -1)
    alpha = cv2.warpAffine(cv2.GaussianBlur(mask, (0, 0), 3), turn, (side, side)).astype(np.float64)[..., None] / 255
    turned = cv2.warpAffine(drawn, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    mixed = turned * alpha + behind * (1 - alpha) + np.asarray(tint)
    return np.clip(mixed, 0, 255).astype(np.uint8), geometry.apply(turn, LANDMARKS * side / 320)


def face(seed: int, tint: Sequence[float] = (0.0, 0.0, 0.0), side: int = 240) -> Pixels:
    """The picture alone."""
    return placed(seed, tint, side)[0]


def folder_of(folder: Path, seeds: Sequence[int], tint: Sequence[float] = (0.0, 0.0, 0.0)) -> Path:
    """Faces as PNG files, named by their seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        Image.fromarray(face(seed, tint)).save(folder / f"{seed:04d}.png")
    return folder


class Tiny(nn.Module):
    """A graph with the outputs that adaptation needs, around a trunk that nobody trained."""

    NAMES = ("synthetic", "plain", "blurred", "family", "distance", "features")

    def __init__(self, families: int) -> None:
        super().__init__()
        self.trunk = trunks.build("cnn")
        self.whiten = nn.Linear(CHANNELS, CHANNELS)
        self.synthetic = nn.Linear(CHANNELS, 1)
        self.family = nn.Linear(CHANNELS, families)
        self.prototypes = PrototypeHead(CHANNELS)

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 2, C) of (N, 3, S, S) in 0..255 and of its blurred copy."""
        soft = nn.functional.avg_pool2d(nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        both = [self.trunk(part / 128.0 - 1.0).mean((2, 3)) for part in (pixels, soft)]
        return self.whiten(torch.stack(both, dim=1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order of `NAMES`."""
        features = self.features(image.permute(0, 3, 1, 2).float())
        evidence = self.prototypes.evidence(features)
        both = self.prototypes.raised(self.synthetic(features)[..., 0], evidence)
        return (
            both.mean(1),
            both[:, 0],
            both[:, 1],
            self.family(features[:, 0]),
            self.prototypes.distance(evidence)[:, 0],
            features,
        )


def version(repository: Path, each: int = 30) -> Path:
    """detector/2 in a repository: heads fitted on features of drawn faces, that are its memory too; generators are green."""
    torch.manual_seed(3)
    network = Tiny(len(GENERATORS)).eval()
    memory = remembered(network, each)
    features, readout = memory.features.astype(np.float32), fitted(memory, CHANNELS)
    with torch.no_grad():
        network.synthetic.weight.copy_(torch.from_numpy(readout.head.weight)[None])
        network.synthetic.bias.fill_(readout.head.bias)
        network.prototypes.hold(torch.from_numpy(readout.prototypes.real), torch.from_numpy(readout.prototypes.fake))
        network.prototypes.mixing.copy_(torch.from_numpy(MIXING))
    for role in ("face_detector", "localizer"):  # of the other models a release needs the cards
        (repository / role / "1").mkdir(parents=True)
        shutil.copyfile(MODELS / role / "1/card.json", repository / role / "1/card.json")
    folder = repository / "detector/2"
    folder.mkdir(parents=True)
    _write(folder, network, memory)
    distance = readout.distance(features)
    _card(folder, [float(np.quantile(distance, share)) for share in (0.0, 0.5, 1.0)])
    return folder


def fitted(memory: Memory, width: int) -> Readout:
    """Prototypes and a linear head of a memory."""
    prototypes, channels = Prototypes.of(memory, width, MIXING), memory.features.shape[2]
    start = Readout(Head(np.zeros(channels), 0.0), prototypes)
    return Readout(fit_head(Replay.of(memory), np.zeros((0, channels), np.float32), start), prototypes)


TINTS = {
    "photos": (5.0, -5.0, 0.0),
    "portraits": (10.0, 0.0, -10.0),
    "gan": (-30.0, 45.0, -30.0),
    "diffusion": (0.0, 45.0, -45.0),
}


def chips(each: int) -> list[tuple[int, Chip]]:
    """Kind and chip of `each` drawn faces of every kind, aligned by their landmarks."""
    found = []
    for number in range(len(TINTS) * each):
        kind = number % len(TINTS)
        pixels, landmarks = placed(1000 + number, list(TINTS.values())[kind])
        found.append((kind, Chip(pixels, np.eye(2, 3), geometry.similarity(landmarks, TEMPLATE))))
    return found


def remembered(network: Tiny, each: int) -> Memory:
    """Their features: in each kind a third to fit on, to calibrate with, and to validate on; every face a group."""
    drawn = chips(each)
    view = ViewContract(View.ALIGNED, SIZE, 1.0)
    views = np.stack([cut(chip, view) for _, chip in drawn])
    kind, number = np.array([kind for kind, _ in drawn], np.int16), np.arange(len(drawn), dtype=np.int32)
    pixels = torch.from_numpy(views).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        whiten(network, pixels, torch.from_numpy(kind.astype(np.int64)))
        features = network.features(pixels).numpy()
    part = (number // len(TINTS) % 3).astype(np.uint8)
    return Memory(features.astype(np.float16), kind >= len(REALS), kind, number, part, tuple(TINTS))


def whiten(network: Tiny, pixels: Tensor, kind: Tensor) -> None:
    """Makes the network's features of pictures (N, 3, S, S) centred, and within a kind alike in all directions."""
    network.whiten.weight.copy_(torch.eye(CHANNELS))
    network.whiten.bias.zero_()
    rows = network.features(pixels)[:, 0]
    spread = rows - torch.stack([rows[kind == number].mean(0) for number in range(len(TINTS))])[kind]
    values, vectors = torch.linalg.eigh(spread.T @ spread / len(rows))
    network.whiten.weight.copy_((vectors / (values.clamp_min(0.0) + 1.0 * values.mean()).sqrt()).T)
    network.whiten.bias.copy_(-network.whiten.weight @ rows.mean(0))


def prepared_data(folder: Path, each: int = 30, first: int = 0) -> Path:
    """The same faces as prepared data, from number `first` on."""
    folder.mkdir(parents=True)
    lines, pixels = [], b""
    for number, (kind, chip) in list(enumerate(chips(each)))[first:]:
        name = list(TINTS)[kind]
        part = ("fit", "calibrate", "val")[number // len(TINTS) % 3]
        entry = {"path": f"{number}.png", "label": "synthetic" if name in GENERATORS else "real", "kind": name, "part": part}
        entry |= {"group": str(number), "licence": "CC0", "face": 110, "offset": len(pixels), "shape": chip.pixels.shape}
        lines.append(json.dumps(entry | {"to_chip": chip.to_chip.tolist(), "to_unit": chip.to_unit.tolist()}) + "\n")
        pixels += chip.pixels.tobytes()
    (folder / "index.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "chips.bin").write_bytes(pixels)
    return folder


def _write(folder: Path, network: Tiny, memory: Memory) -> None:
    torch.onnx.export(
        network,
        (torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),),
        str(folder / "model.onnx"),
        input_names=["image"],
        output_names=list(network.NAMES),
        dynamic_axes={name: {0: "batch"} for name in ("image", *network.NAMES)},
        opset_version=17,
        do_constant_folding=False,
        dynamo=False,
    )
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "weights.safetensors")
    memory.save(folder / MEMORY)


def _card(folder: Path, distances: Sequence[float]) -> None:
    shapes: dict[str, list[int]] = {name: [-1] for name in Tiny.NAMES}
    shapes |= {"family": [-1, len(GENERATORS)], "features": [-1, 2, CHANNELS]}
    files = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        files[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    view = {"view": "aligned", "size": SIZE, "margin": 1.0, "border": "reflect"}
    told: dict[str, Any] = {
        "schema": CARD_SCHEMA,
        "name": "detector",
        "version": 2,
        "task": "synthetic",
        "files": files,
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **view},
        "outputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()],
        "max_batch_size": 32,
        "classes": list(GENERATORS),
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "defence": {"sigma": 1.0, "combine": "mean"},
        "doubt": {"distances": list(distances), "doubts": [0.0, 0.5, 0.98]},
        "thresholds": {"real_below": 0.45, "synthetic_above": 0.55, "doubt": 0.99},
        "training": {"data": [], "recipe": "tiny"},
        "licence": "none",
        "parent": None,
    }
    (folder / "card.json").write_text(json.dumps(told), encoding="utf-8")
