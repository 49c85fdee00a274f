"""The version that is adapted: its card, graph, heads and memory, read and held together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tqdm import tqdm

from unmask.core.cards import Card
from unmask.core.images import ViewContract
from unmask_training.adaptation.heads import Floats, Head, Readout
from unmask_training.adaptation.memory import MEMORY, Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.adaptation.prototypes import Prototypes
from unmask_training.measuring.evaluating import read_card

WEIGHTS: Final = "weights.safetensors"
HEADS: Final = ("synthetic.weight", "synthetic.bias", "family.weight", "family.bias")
# Means of kinds, and how they count, in the order of `Prototypes`.
PROTOTYPES: Final = tuple(f"prototypes.{field.name}" for field in fields(Prototypes))
FEATURES: Final = "features"
_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Parent:
    """A version folder opened for adaptation; `weights` are the tensors of heads and prototypes."""

    folder: Path
    card: Card
    view: ViewContract
    point: Operating
    weights: dict[str, NDArray[np.float32]]
    memory: Memory
    session: Any = field(repr=False)

    @staticmethod
    def open(folder: Path) -> Parent:
        """Reads a version folder; raises `ValueError` or `BadModel` naming what it lacks."""
        if not (folder / "card.json").is_file():
            raise ValueError(f"{folder}: no version of a detector there (no card.json)")
        card = read_card(folder)
        outputs = {output.name for output in card.outputs}
        if card.task != "synthetic" or card.view is None or card.defence is None or FEATURES not in outputs:
            raise ValueError(f"{folder}: cannot be adapted: its card names no task synthetic, view, defence or output features")
        if not (folder / "model.onnx").is_file():
            raise ValueError(f"{folder}/model.onnx: missing; `unmask models fetch` makes it")
        memory, weights = Memory.read(folder / MEMORY), _weights(folder)
        long, wanted = memory.features.shape[2], weights[HEADS[0]].shape[1]
        if long != wanted:
            raise ValueError(f"{folder}: the memory's features are {long} long, the head's {wanted}")
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return Parent(folder, card, card.view, Operating.of(card), weights, memory, session)

    @property
    def readout(self) -> Readout:
        """The present head and prototypes."""
        weight, bias = self.weights[HEADS[0]][0].astype(np.float64), float(self.weights[HEADS[1]][0])
        return Readout(Head(weight, bias), Prototypes(*(self.weights[name] for name in PROTOTYPES)))

    @property
    def family(self) -> tuple[Floats, Floats]:
        """The present family head: weight (F, C), bias (F,), without the room for families to come."""
        known = len(self.card.classes)
        return self.weights[HEADS[2]][:known].astype(np.float64), self.weights[HEADS[3]][:known].astype(np.float64)

    def features(self, views: Iterable[NDArray[np.generic]], what: str = "") -> NDArray[np.float32]:
        """Features (N, 2, C), plain and blurred, of views (S, S, 3) RGB 0..255, by the served graph."""
        found, batch = [], []
        for view in tqdm(views, desc=what, unit="view", disable=None if what else True, mininterval=1.0):
            batch.append(np.clip(np.rint(view), 0, 255).astype(np.uint8))
            if len(batch) == min(_BATCH, self.card.max_batch_size):
                found.append(self._run(batch))
                batch = []
        if batch:
            found.append(self._run(batch))
        if not found:
            raise ValueError("no views to take features of")
        return np.concatenate(found)

    def _run(self, batch: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        (found,) = self.session.run([FEATURES], {self.card.input.name: np.stack(batch)})
        features: NDArray[np.float32] = np.asarray(found, dtype=np.float32)
        if not np.isfinite(features).all():
            raise ValueError(f"{self.folder}: the graph's features are not finite for some pictures")
        return features


def _weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    try:
        told = load_file(folder / WEIGHTS)
        return {name: told[name] for name in (*HEADS, *PROTOTYPES)}
    except (KeyError, SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS}: no heads and prototypes of a detector in it ({error})") from error


def new_weights(parent: Parent, name: str, readout: Readout, family: Head) -> dict[str, NDArray[np.float32]]:
    """The tensors of a readout, with the family's row (its own, a free one, one more)."""
    place = classes_with(parent, name).index(name)
    weight, bias = (parent.weights[key].astype(np.float64) for key in HEADS[2:])
    if place == len(weight):
        weight, bias = np.concatenate([weight, weight[:1]]), np.append(bias, 0.0)
    weight[place], bias[place] = family.weight, family.bias
    found = {HEADS[0]: readout.head.weight[None], HEADS[1]: np.array([readout.head.bias]), HEADS[2]: weight, HEADS[3]: bias}
    found |= {key: getattr(readout.prototypes, key.partition(".")[2]) for key in PROTOTYPES}
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in found.items()}


def classes_with(parent: Parent, name: str) -> list[str]:
    """The families in the order of the new family head."""
    return list(parent.card.classes) if name in parent.card.classes else [*parent.card.classes, name]
