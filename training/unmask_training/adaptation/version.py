"""An adapted head becomes the next version and a release of its own: written aside, and there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from unmask.core.cards import Card, Fusion, Release
from unmask_training.adaptation.graph import FAMILY, FAMILY_BIAS, changed
from unmask_training.adaptation.memory import MEMORY, Memory
from unmask_training.adaptation.parent import FEATURES, HEADS, WEIGHTS, Parent
from unmask_training.detector.export import golden_section
from unmask_training.release import compose, newest_cards

CARD: Final = "card.json"
_PARITY: Final = 1e-3


def next_version(repository: Path) -> int:
    """One more than the highest version of the detector there."""
    numbers = [int(path.name) for path in (repository / "detector").glob("*") if path.name.isdecimal()]
    return max(numbers, default=0) + 1


@dataclass(frozen=True, slots=True)
class Change:
    """What is new of a version: its heads' tensors, classes, memory, and entries of the card."""

    weights: Mapping[str, NDArray[np.float32]]
    classes: Sequence[str]
    memory: Memory
    card: Mapping[str, Any]


def publish(parent: Parent, repository: Path, change: Change, views: NDArray[np.uint8]) -> Path:
    """Writes the next version aside, checks it on `views` (N, S, S, 3) and renames it; what goes wrong leaves no version.

    Raises `ValueError` where the new graph does not answer as the new heads do on the parent's features, `OSError` where
    another run took the number meanwhile.
    """
    number = max(next_version(repository), parent.card.version + 1)
    folder = repository / "detector" / str(number)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".adapting-", dir=repository))
    try:
        made = aside / "detector" / folder.name
        write_version(parent, made, change)
        check(parent, made, views)
        made.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def write_version(parent: Parent, folder: Path, change: Change) -> None:
    """Every file of the parent, its heads changed in graphs and weights; the new memory; the card."""
    folder.mkdir(parents=True)
    for name in parent.card.files:
        source, path = parent.folder / name, folder / name
        if name == MEMORY:
            change.memory.save(path)
        elif name == WEIGHTS:
            save_file({**load_file(source), **change.weights}, path)
        elif path.suffix == ".onnx":
            path.write_bytes(changed(source.read_bytes(), parent.weights, change.weights, str(source)))
        else:
            shutil.copyfile(source, path)
    files = {name: _entry(folder / name) for name in parent.card.files}
    told = {**parent.card.raw, "version": int(folder.name), **change.card, "classes": list(change.classes), "files": files}
    if parent.card.golden is not None:
        told["golden"] = golden_section(folder, parent.view.size)
    family = [-1, len(change.weights[FAMILY_BIAS])]
    told["outputs"] = [
        {**output, "shape": family} if output["name"] == FAMILY else output for output in parent.card.raw["outputs"]
    ]
    (folder / CARD).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def check(parent: Parent, folder: Path, views: NDArray[np.uint8]) -> None:
    """Holds a written version to its heads: features as the parent's, logits and distance as computed from them."""
    new = Parent.open(folder)
    names = ["plain", "blurred", "family", "distance"]
    answers = new.session.run([FEATURES, *names], {new.card.input.name: views})
    features, readout, (weight, bias) = parent.features(views), new.readout, (new.weights[HEADS[2]], new.weights[HEADS[3]])
    logits = readout(features)
    expected: list[NDArray[Any]] = [
        features,
        logits[:, 0],
        logits[:, 1],
        features[:, 0] @ weight.T + bias,
        readout.distance(features),
    ]
    for name, found, wanted in zip([FEATURES, *names], answers, expected, strict=True):
        values = np.asarray(found)
        gap = float((np.abs(values - wanted) / np.maximum(np.abs(wanted), 1.0)).max())
        if gap > _PARITY:
            raise ValueError(f"{folder}: output {name} differs from what was learned by {gap:.2g}, more than {_PARITY}")


def write_release(base: Mapping[str, Any], repository: Path, folder: Path, name: str, report: Mapping[str, Any]) -> Path:
    """Writes `release-<name>.json`: `base` with the new version in the detector's place, and what the gate said."""
    text = (folder / "card.json").read_bytes()
    card = Card.parse(text, hashlib.sha256(text).hexdigest(), str(folder / "card.json"))
    models = {**base["models"], "detector": {"version": card.version, "sha256": card.sha256}}
    data = (json.dumps({**base, "name": name, "models": models, "report": dict(report)}, indent=2) + "\n").encode()
    path = repository / f"release-{name}.json"
    Release.parse(data, "", str(path))
    aside = path.with_suffix(".writing")
    aside.write_bytes(data)
    aside.replace(path)
    return path


def release_base(parent: Parent) -> dict[str, Any] | None:
    """What the new release goes on from: the active one if it serves the parent, else one composed from the newest cards.

    None where the parent's repository lacks a model of another role: then there is no release to make.
    """
    root = parent.folder.resolve().parent.parent
    active = root / "release.json"
    if active.is_file():
        data = active.read_bytes()
        told: dict[str, Any] = json.loads(data)
        if Release.parse(data, "", str(active)).model("detector").version == parent.card.version:
            return told
    try:
        cards = newest_cards(root)
    except FileNotFoundError:
        return None
    return compose(f"detector-{parent.card.version}", {**cards, "detector": parent.card}, Fusion(), {})
