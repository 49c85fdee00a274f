"""Recipe `mobilenet_v2`: fits the detector on prepared chips, balanced over generators and real sources."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from unmask_training.augment import Ranges, draw
from unmask_training.chips import Chips, Row
from unmask_training.network import Detector, load_imagenet

_NO_FAMILY: Final = -1
_SAVE_EVERY: Final = 120.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """What detector.yaml says; weights of real sources and generators are shares of the draw, each kind half of it."""

    real: Mapping[str, float]
    synthetic: Mapping[str, float]
    size: int = 192
    batch: int = 48
    steps: int = 1700
    warmup: int = 80
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.08
    family_weight: float = 0.3
    dropout: float = 0.3
    ema: float = 0.995
    threads: int = 0
    seed: int = 1
    augment: Ranges = field(default_factory=Ranges)

    @staticmethod
    def of(told: Mapping[str, Any]) -> Recipe:
        """Reads the parsed YAML; raises `ValueError` naming an unknown or missing key."""
        names = {name for name in told if name != "recipe"}
        unknown = sorted(names - set(Recipe.__slots__))
        if unknown:
            raise ValueError(f"recipe: unknown {', '.join(unknown)}; there are {', '.join(Recipe.__slots__)}")
        missing = sorted({"real", "synthetic"} - names)
        if missing:
            raise ValueError(f"recipe: {', '.join(missing)} missing")
        values = {name: told[name] for name in names}
        return Recipe(**values | {"augment": Ranges.of(told.get("augment") or {})})


class Batches:
    """Endless batches: half real, half synthetic, each drawn by the recipe's shares, then augmented."""

    def __init__(self, chips: Chips, recipe: Recipe) -> None:
        self._chips, self._recipe = chips, recipe
        self.families = tuple(recipe.synthetic)
        self._rows = _by_kind(chips, recipe)
        self._shares = [_shares(recipe.real), _shares(recipe.synthetic)]
        self._kinds = [tuple(recipe.real), tuple(recipe.synthetic)]

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Batch number `step`: pixels (N, 3, S, S), truth (N,), family (N,) with -1 for reals.  The same at every call."""
        rng = np.random.default_rng([self._recipe.seed, step])
        views, truth, family = [], [], []
        for i in range(self._recipe.batch):
            fake = i % 2
            kind = self._kinds[fake][rng.choice(len(self._kinds[fake]), p=self._shares[fake])]
            rows = self._rows[kind]
            view, _ = draw(self._chips.chip(rows[rng.integers(len(rows))]), self._recipe.size, self._recipe.augment, rng)
            views.append(view)
            truth.append(float(fake))
            family.append(self.families.index(kind) if fake else _NO_FAMILY)
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
        return pixels, torch.tensor(truth), torch.tensor(family)


def _by_kind(chips: Chips, recipe: Recipe) -> dict[str, Sequence[Row]]:
    wanted = {**dict.fromkeys(recipe.real, "real"), **dict.fromkeys(recipe.synthetic, "synthetic")}
    rows: dict[str, list[Row]] = {kind: [] for kind in wanted}
    for row in chips.rows:
        if row.part == "fit" and wanted.get(row.kind) == row.label:
            rows[row.kind].append(row)
    empty = [kind for kind, found in rows.items() if not found]
    if empty:
        raise ValueError(f"no prepared training pictures of {', '.join(empty)}")
    return dict(rows)


def _shares(weights: Mapping[str, float]) -> np.ndarray[Any, Any]:
    values = np.array(list(weights.values()), dtype=np.float64)
    if values.size == 0 or (values <= 0.0).any():
        raise ValueError("recipe: every share must be positive")
    return np.asarray(values / values.sum())


class Trainer:
    """Network, optimiser and moving average; can be saved after any step and goes on from there."""

    def __init__(self, recipe: Recipe, families: Sequence[str]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step = recipe, 0
        self.network = Detector(families, recipe.dropout).to(memory_format=torch.channels_last)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def loss(self, pixels: Tensor, truth: Tensor, family: Tensor) -> Tensor:
        """Binary cross-entropy with smoothed labels, and cross-entropy over families on the synthetic half."""
        with torch.autocast("cpu", torch.bfloat16):
            synthetic, families, _ = self.network(pixels.to(memory_format=torch.channels_last))
        smooth = self.recipe.label_smoothing
        target = truth * (1.0 - smooth) + smooth / 2.0
        total = functional.binary_cross_entropy_with_logits(synthetic.float(), target)
        known = family != _NO_FAMILY
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

    def _learning_rate(self) -> float:
        done = self.step / self.recipe.steps
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
        """All that `restore` needs, and what `export` reads (average, families, size)."""
        return {
            "step": self.step,
            "average": self.average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "families": list(self.network.families),
            "size": self.recipe.size,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises `ValueError` when it is another recipe's."""
        if (tuple(state["families"]), state["size"]) != (self.network.families, self.recipe.size):
            raise ValueError("checkpoint: other families or another size than the recipe's")
        self.step, self.average = state["step"], dict(state["average"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Fits by the recipe on prepared `data`; writes and returns the checkpoint `out`/detector.pt."""
    recipe = Recipe.of(told)
    cv2.setNumThreads(1)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    batches = Batches(Chips(data), recipe)
    trainer = Trainer(recipe, batches.families)
    path = out / "detector.pt"
    if resume and path.is_file():
        trainer.restore(torch.load(path, weights_only=True))
    elif weights is not None:
        load_imagenet(trainer.network, weights)
    out.mkdir(parents=True, exist_ok=True)
    _loop(trainer, batches, path)
    return path


def _loop(trainer: Trainer, batches: Batches, path: Path) -> None:
    """Steps to the end; the next batch is drawn while the present one is learnt; saves every two minutes."""
    saved, shown = time.monotonic(), 0.0
    with ThreadPoolExecutor(1) as pool, tqdm(total=trainer.recipe.steps, initial=trainer.step, unit="step") as bar:
        coming = pool.submit(batches.draw, trainer.step)
        while trainer.step < trainer.recipe.steps:
            batch = coming.result()
            coming = pool.submit(batches.draw, trainer.step + 1)
            loss = trainer.fit_step(*batch)
            shown = loss if shown == 0.0 else 0.98 * shown + 0.02 * loss
            bar.update()
            bar.set_postfix(loss=f"{shown:.3f}")
            if time.monotonic() - saved > _SAVE_EVERY:
                _save(trainer, path)
                saved = time.monotonic()
    _save(trainer, path)


def _save(trainer: Trainer, path: Path) -> None:
    aside = path.with_suffix(".writing")
    torch.save(trainer.state(), aside)
    aside.replace(path)
