"""Recipe `clip_vit_b16-seg`: draws views, keeps the tower's tokens of them, fits the head."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unmask_training.checkpoints import save
from unmask_training.localizer.fit import CHECKPOINT
from unmask_training.localizer.samples import Sampler
from unmask_training.localizer.tokens.network import TokenHead, TokenLocalizer, planar
from unmask_training.localizer.tokens.recipe import NAME, TokenRecipe
from unmask_training.localizer.tokens.samples import Material, Shards, make
from unmask_training.tower.parts import tower_bytes

_CLIP: Final = 5.0
# What a fit that is cut off goes on from.
EPOCHS: Final = "epochs.pt"


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Fits by the recipe on prepared `data`; writes and returns the checkpoint `out`/localizer.pt.

    `weights` is the tower's file; tokens that `out` holds are not computed again.
    """
    recipe = TokenRecipe.of(told)
    raw = tower_bytes(weights)
    if not resume and (out / CHECKPOINT).is_file():
        raise ValueError(f"{out / CHECKPOINT}: is there; --resume goes on with its kept tokens")
    sampler = Sampler(data, recipe.shares, "fit", recipe.delivery, recipe.engines)
    folder = out / "tokens"
    material = Material.of(recipe, sampler, raw, folder)
    make(recipe, sampler, material, folder)
    kept = out / EPOCHS
    model = fitted(recipe, material, Shards(folder, recipe.samples), kept)
    state = {"recipe": _plain(recipe), "network": model.state_dict(), "tower": hashlib.sha256(raw).hexdigest()}
    save(state, out / CHECKPOINT)
    kept.unlink()
    return out / CHECKPOINT


def learned(recipe: TokenRecipe, shards: Shards) -> NDArray[np.int64]:
    """Numbers of the samples that are learned from: all but those of the engines in `without`."""
    return np.flatnonzero(~np.isin(shards.engine, list(recipe.without)))


def fitted(recipe: TokenRecipe, material: Material, shards: Shards, kept: Path | None = None) -> TokenLocalizer:
    """The localizer with its head fitted: AdamW, warmup, then a cosine to nothing.

    `kept` is written after every epoch; a fit that was cut off goes on from it.
    """
    torch.manual_seed(recipe.seed)
    model = TokenLocalizer(recipe.width, recipe.size, recipe.dropout)
    reduction = material.reduction
    model.hold(*(torch.from_numpy(part) for part in (*material.parts.all(), reduction.mean, reduction.matrix)))
    fit, order = _Fit.begun(recipe, model.head), _order(recipe, learned(recipe, shards))
    epochs, steps, _ = order.shape
    with tqdm(total=epochs * steps, desc="head", unit="step", disable=None) as bar:
        for epoch in range(fit.resumed(kept), epochs):
            bar.update(epoch * steps - bar.n)
            fit.epoch(epoch, order[epoch], shards, bar)
            if kept is not None:
                fit.keep(kept, epoch + 1)
    model.eval()
    return model


def _order(recipe: TokenRecipe, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each step of each epoch learns from: (epochs, steps, batch)."""
    rng, steps = np.random.default_rng(recipe.seed), len(numbers) // recipe.batch
    whole = [rng.permutation(numbers)[: steps * recipe.batch] for _ in range(recipe.epochs)]
    return np.stack(whole).reshape(recipe.epochs, steps, recipe.batch)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A head that is being fitted."""

    recipe: TokenRecipe
    head: TokenHead
    optimiser: torch.optim.Optimizer

    @staticmethod
    def begun(recipe: TokenRecipe, head: TokenHead) -> _Fit:
        head.train().to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        return _Fit(recipe, head, optimiser)

    def keep(self, kept: Path, epoch: int) -> None:
        state = {"head": self.head.state_dict(), "optimiser": self.optimiser.state_dict()}
        save({"recipe": _plain(self.recipe), "epoch": epoch, **state}, kept)

    def resumed(self, kept: Path | None) -> int:
        """The epoch that comes next; raises `ValueError` for a fit that another recipe began."""
        if kept is None or not kept.is_file():
            return 0
        state = torch.load(kept, weights_only=True, map_location="cpu")
        if state["recipe"] != _plain(self.recipe):
            raise ValueError(f"{kept}: begun with other settings; go back to them, or delete it to begin anew")
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        return int(state["epoch"])

    def epoch(self, epoch: int, order: NDArray[np.int64], shards: Shards, bar: Any) -> None:
        """One pass in the order (steps, batch); a function of the seed and the epoch's number."""
        recipe, mean, total = self.recipe, dict[str, float](), self.recipe.epochs * len(order)
        rng = np.random.default_rng([recipe.seed, epoch])
        torch.manual_seed(recipe.seed + epoch)
        for step, numbers in enumerate(order, epoch * len(order)):
            _at_rate(self.optimiser, recipe.learning_rate * _share(step, total, recipe.warmup))
            loss, parts = self.head.loss(*_batch(shards, numbers, rng), recipe.dense_weight)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.head.parameters(), _CLIP)
            self.optimiser.step()
            mean = {key: 0.98 * mean.get(key, value) + 0.02 * value for key, value in parts.items()}
            bar.set_postfix({key: f"{value:.3f}" for key, value in mean.items()}, refresh=False)
            bar.update()


def _batch(shards: Shards, numbers: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, views and coverage of samples, each mirrored by chance; the tokens of a mirrored one are mirrored as they lie."""
    tokens, views, cover = shards.tokens(numbers), shards.views(numbers), shards.cover[numbers]
    side, turned = math.isqrt(tokens.shape[1]), rng.uniform(size=len(numbers)) < 0.5
    laid = tokens.reshape(len(tokens), side, side, -1)
    for part in (laid, views, cover):
        part[turned] = part[turned, :, ::-1]
    return torch.from_numpy(tokens), planar(torch.from_numpy(views)), torch.from_numpy(cover).float() / 255.0


def _share(step: int, steps: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _at_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def load(checkpoint: Path) -> tuple[TokenLocalizer, dict[str, Any]]:
    """The fitted localizer and all that its checkpoint says."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    if state.get("recipe", {}).get("recipe") != NAME:
        raise ValueError(f"{checkpoint}: not a checkpoint of {NAME}")
    model = TokenLocalizer(state["recipe"]["width"], state["recipe"]["size"])
    model.restore(state["network"])
    return model, state


def _plain(recipe: TokenRecipe) -> dict[str, Any]:
    """As `torch.load` of weights alone can read it."""
    told = {part.name: getattr(recipe, part.name) for part in fields(TokenRecipe)}
    return {"recipe": NAME, **told, **recipe.drawn, "without": list(recipe.without)}
