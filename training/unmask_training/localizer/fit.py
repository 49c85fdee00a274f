"""Fits a localizer of `networks.NETWORKS`: our samples, the network's own loss, a schedule that ends on time.

Forgery traces are faint and time is short, so three things are added to the plain recipes: the trunk starts from a trained
detector, every pixel's mask is learned (YOLO's prototypes get a dense head for it while training), and plainly visible
forgeries come first, faint ones later.

Ultralytics' own trainer reads files, augments them (mosaic, mixing, colour) in ways that would erase the traces looked for,
and keeps bfloat16 from the processor; so only its network and loss are used.  Masks stay masks: no polygon label stands
between the exact mask and the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from unmask_training.checkpoints import save
from unmask_training.localizer.networks import NETWORKS
from unmask_training.localizer.samples import Delivery, Sample, Sampler, contract_of, pieces

CHECKPOINT: Final = "localizer.pt"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a configuration may say; `early_size` is the view's side for the first `early_share` of the time."""

    recipe: str = "yolov8n-seg"
    size: int = 256
    margin: float = 1.25
    early_size: int = 256
    early_share: float = 0.0
    dense_weight: float = 8.0
    ease_until: float = 0.4
    batch: int = 16
    minutes: float = 60.0
    steps: int = 1_000_000
    warmup: int = 150
    learning_rate: float = 0.0015
    weight_decay: float = 0.0005
    ema: float = 0.998
    threads: int = 1
    seed: int = 1
    shares: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, float] = field(default_factory=dict)
    delivery: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(told: Mapping[str, Any]) -> Recipe:
        """Reads a configuration; raises `ValueError` naming the wrong key."""
        unknown = sorted(set(told) - {f.name for f in fields(Recipe)})
        if unknown:
            raise ValueError(f"localizer configuration: unknown {', '.join(unknown)}")
        recipe = Recipe(**told)
        for name in ("size", "early_size"):
            side = getattr(recipe, name)
            if not isinstance(side, int) or side < 64 or side % 32:
                raise ValueError(f"localizer configuration: {name} must be a multiple of 32 and at least 64, not {side!r}")
        for name in ("margin", "batch", "ease_until", "minutes", "steps", "learning_rate", "threads"):
            value = getattr(recipe, name)
            if not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"localizer configuration: {name} must be a positive number, not {value!r}")
        if not recipe.shares:
            raise ValueError("localizer configuration: needs `shares:` of what is drawn")
        return recipe


def targets(samples: list[Sample], stride: int) -> dict[str, torch.Tensor]:
    """A batch as ultralytics' segmentation loss reads it: instances as boxes and as an index map of 1/stride of the side."""
    size = samples[0].view.shape[0]
    maps = np.zeros((len(samples), size // stride, size // stride), dtype=np.float32)
    owners, boxes = [], []
    for i, sample in enumerate(samples):
        for number, piece in enumerate(pieces(sample.mask), start=1):
            rows, columns = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
            x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
            boxes.append([(x0 + x1) / 2 / size, (y0 + y1) / 2 / size, (x1 - x0) / size, (y1 - y0) / size])
            owners.append(float(i))
            side = maps.shape[1]
            covered = piece.reshape(side, stride, side, stride).mean(axis=(1, 3))
            maps[i][covered >= 0.5] = number
    views = np.stack([sample.view for sample in samples])
    return {
        "img": torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255.0,
        "batch_idx": torch.tensor(owners),
        "cls": torch.zeros(len(owners), 1),
        "bboxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "masks": torch.from_numpy(maps),
    }


class Training:
    """One run: network, its moving average, optimiser, clock; what a checkpoint holds."""

    def __init__(self, recipe: Recipe, sampler: Sampler, weights: Path | None = None) -> None:
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        self.recipe, self.sampler = recipe, sampler
        self.model = NETWORKS[recipe.recipe]().to(memory_format=torch.channels_last).train()
        self.start: dict[str, str] = {} if weights is None else self.model.start_from(weights)
        self.average = {key: value.detach().clone() for key, value in self.model.state_dict().items()}
        self.aid = self.model.aid()
        parameters = [*self.model.parameters(), *self.aid.parameters()]
        decay, other = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": other, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99))
        self.number, self.elapsed = 0, 0.0
        self._maker = ThreadPoolExecutor(1, "samples")
        self._next: Future[dict[str, torch.Tensor]] | None = None

    def progress(self, ahead: int = 0) -> float:
        """How far the run is, 0 to 1, some steps ahead: by steps or by minutes, whichever ends first."""
        return min(1.0, max((self.number + ahead) / self.recipe.steps, self.elapsed / (60.0 * self.recipe.minutes)))

    def step(self) -> dict[str, float]:
        """One batch; the parts of its loss.  Every step has a generator of its own, so a resumed run draws the same."""
        began, done = time.monotonic(), self.progress()
        rate = self.recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (self.number + 1) / self.recipe.warmup)
        batch = self._drawn(self.number, done) if self._next is None else self._next.result()
        # The next batch is made while this one is learned.
        self._next = self._maker.submit(self._drawn, self.number + 1, self.progress(1))
        total, parts = self.model.loss(batch, self.aid, self.recipe.dense_weight)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimiser.step()
        self.number += 1
        self._follow()
        self.elapsed += time.monotonic() - began
        return {key: float(value) for key, value in parts.items()} | {"total": float(total.detach())}

    def _drawn(self, number: int, done: float) -> dict[str, torch.Tensor]:
        """Batch `number` of a run that is `done`, 0 to 1."""
        rng = np.random.default_rng([self.recipe.seed, number])
        size = self.recipe.early_size if done < self.recipe.early_share else self.recipe.size
        contract, ease = contract_of(size, self.recipe.margin), max(0.0, 1.0 - done / self.recipe.ease_until)
        samples: list[Sample] = []
        while len(samples) < self.recipe.batch:
            samples += self.sampler.draw(contract, rng, ease)
        return targets(samples[: self.recipe.batch], self.model.mask_stride)

    def _follow(self) -> None:
        decay = self.recipe.ema * (1.0 - math.exp(-self.number / 200.0))
        for key, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value.detach(), 1.0 - decay)
            else:
                self.average[key].copy_(value)

    def save(self, path: Path) -> None:
        """Writes the checkpoint whole or not at all."""
        state = {
            "average": self.average, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "aid": self.aid.state_dict(), "start": self.start, "number": self.number, "elapsed": self.elapsed,
            "recipe": {f.name: getattr(self.recipe, f.name) for f in fields(Recipe)},
        }  # fmt: skip
        save(state, path)

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.start = dict(state["start"])
        self.aid.load_state_dict(state["aid"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.number, self.elapsed = state["average"], state["number"], state["elapsed"]


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Trains; returns the checkpoint.  `weights`: see `Localizer.start_from`."""
    recipe = Recipe.of(told)
    sampler = Sampler(data, recipe.shares, "fit", Delivery.of(recipe.delivery), recipe.engines)
    out.mkdir(parents=True, exist_ok=True)
    training, path = Training(recipe, sampler, weights), out / CHECKPOINT
    if resume and path.is_file():
        training.load(path)
    said = saved = time.monotonic()
    mean: dict[str, float] = {}
    while training.progress() < 1.0:
        for key, value in training.step().items():
            mean[key] = value if key not in mean else 0.98 * mean[key] + 0.02 * value
        now = time.monotonic()
        if now - said > 20.0:
            said = now
            parts = " ".join(f"{key} {value:.3f}" for key, value in mean.items())
            print(f"{training.progress():6.1%} step {training.number} {training.elapsed / 60.0:.1f} min  {parts}", flush=True)
        if now - saved > 120.0:
            saved = now
            training.save(path)
    training.save(path)
    return path
