"""A tower detector to attack: gradients through the float tower, answers by the served graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor

from unmask.core.cards import Card
from unmask.core.vit_trunk import PATCH
from unmask_training.detector.network import Detector
from unmask_training.tower.network import Answers, TowerDetector
from unmask_training.tower.vision import VisionTower

WEIGHTS = "weights.safetensors"


class AttackedTower:
    """As `unmask_training.measuring.adversarial.Defended`, of a version folder and the tower's file.

    The integer products of the served tower have no gradient: the attacker's runs through the same products in floats, which
    answer nearly alike, and what the attack is worth is measured on the served graph.
    """

    def __init__(self, folder: Path, card: Card, raw: bytes) -> None:
        if card.defence is None:
            raise ValueError(f"{folder}: the card states no defence")
        self.sigma, self.combine = card.defence.sigma, card.defence.combine
        self._network = load_version(folder, card)
        self._vision = VisionTower(raw, self._network.positions.numpy())
        self._vision.set_norms(self._network.norms)
        for weight in (*self._network.parameters(), *self._vision.parameters()):
            weight.requires_grad_(False)
        self._name = card.input.name
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def plain(self, pixels: Tensor) -> Tensor:
        """Logits (N,) of (N, 3, S, S) pixels 0..255 as they are."""
        return self._answers(pixels).plain

    def combined(self, pixels: Tensor) -> Tensor:
        """What is served, with the defence."""
        return self._answers(pixels).synthetic

    def _answers(self, pixels: Tensor) -> Answers:
        found: Answers = self._network(pixels, self._vision(self._network.tower_pixels(pixels)))
        return found

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Plain, blurred and combined as the served graph answers them."""
        return {"plain": self._served("plain"), "blurred": self._served("blurred"), "combined": self._served("synthetic")}

    def _served(self, output: str) -> Callable[[Tensor], Tensor]:
        def logits(pixels: Tensor) -> Tensor:
            views = pixels.permute(0, 2, 3, 1).round().clamp(0.0, 255.0).byte().numpy()
            return torch.from_numpy(np.asarray(self._session.run([output], {self._name: views})[0]))

        return logits


def is_tower(folder: Path) -> bool:
    """Whether a version's weights are a tower detector's."""
    return (folder / "own.onnx").is_file()


def load_version(folder: Path, card: Card) -> TowerDetector:
    """The network of a version folder, with the weights that it stores."""
    held = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
    families = [str(i) for i in range(len(held["beside.family.bias"]))]
    size = PATCH * round((len(held["positions"]) - 1) ** 0.5)
    network = TowerDetector(card.classes, Detector(families, 0.0), size, card.defence.sigma if card.defence else 1.0)
    network.restore(held)
    return network
