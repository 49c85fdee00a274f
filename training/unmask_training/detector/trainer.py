"""Network, optimiser and moving average of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask_training.detector.batches import NO_FAMILY
from unmask_training.detector.network import Detector, start_from
from unmask_training.detector.recipe import Recipe


class Trainer:
    """Network, optimiser and moving average; can be saved after any step and goes on from there."""

    def __init__(self, recipe: Recipe, families: Sequence[str]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step, self.seconds = recipe, 0, 0.0
        self.start: dict[str, Any] = {"kind": "scratch"}
        self.network = Detector(families, recipe.dropout, recipe.trunk).to(memory_format=torch.channels_last)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def begin(self, weights: Path) -> None:
        """Starts from ImageNet weights or another fit's checkpoint."""
        self.start = start_from(self.network, weights)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def loss(self, pixels: Tensor, truth: Tensor, family: Tensor) -> Tensor:
        """Binary cross-entropy with smoothed labels, and cross-entropy over families on the synthetic half."""
        with torch.autocast("cpu", torch.bfloat16):
            synthetic, families, _ = self.network(pixels.to(memory_format=torch.channels_last))
        smooth = self.recipe.label_smoothing
        target = truth * (1.0 - smooth) + smooth / 2.0
        total = functional.binary_cross_entropy_with_logits(synthetic.float(), target)
        known = family != NO_FAMILY
        attribution = functional.cross_entropy(families[known].float(), family[known], label_smoothing=0.05)
        return total + self.recipe.family_weight * attribution

    def fit_step(self, pixels: Tensor, truth: Tensor, family: Tensor) -> float:
        """One optimiser step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        loss = self.loss(pixels, truth, family)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._track()
        return float(loss.detach())

    def done(self) -> float:
        """Share of the fit that is behind it, by steps or, where they are told, by minutes."""
        by_clock = self.seconds / (60.0 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return max(self.step / self.recipe.steps, by_clock)

    def _learning_rate(self) -> float:
        done = self.done()
        warm = min(1.0, (self.step + 1) / self.recipe.warmup)
        return self.recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))) + 1e-6

    def _track(self) -> None:
        decay = min(self.recipe.ema, self.step / (self.step + 20))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1.0 - decay)
                else:
                    self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, and what `export` reads: the average, and how it came about."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "start": self.start,
            "recipe": asdict(self.recipe),
            "average": self.average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "families": list(self.network.families),
            "size": self.recipe.size,
            "trunk": self.recipe.trunk,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises `ValueError` when it is another recipe's."""
        stated = tuple(state["families"]), state["size"], state.get("trunk", "mobilenet_v2")
        if stated != (self.network.families, self.recipe.size, self.recipe.trunk):
            raise ValueError("checkpoint: other families, another size or another trunk than the recipe's")
        self.step, self.average = state["step"], dict(state["average"])
        self.seconds, self.start = state["seconds"], dict(state["start"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
