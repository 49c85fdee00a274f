"""Recipe `clip_vit_b16-seg`: draws views, keeps the tower's tokens of them, fits the head."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unmask_training.localizer.fit import CHECKPOINT
from unmask_training.localizer.samples import Sampler
from unmask_training.localizer.tokens.network import TokenLocalizer
from unmask_training.localizer.tokens.recipe import NAME, TokenRecipe
from unmask_training.localizer.tokens.samples import Material, Shards, make
from unmask_training.tower.parts import tower_bytes

_CLIP: Final = 5.0


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
    model = fitted(recipe, material, Shards(folder, recipe.samples))
    state = {"recipe": _plain(recipe), "network": model.state_dict(), "tower": hashlib.sha256(raw).hexdigest()}
    torch.save(state, out / CHECKPOINT)
    return out / CHECKPOINT


def learned(recipe: TokenRecipe, shards: Shards) -> NDArray[np.int64]:
    """Numbers of the samples that are learned from: all but those of the engines in `without`."""
    return np.flatnonzero(~np.isin(shards.engine, list(recipe.without)))


def fitted(recipe: TokenRecipe, material: Material, shards: Shards) -> TokenLocalizer:
    """The localizer with its head fitted: AdamW, warmup, then a cosine to nothing."""
    torch.manual_seed(recipe.seed)
    model = TokenLocalizer(recipe.width, recipe.size, recipe.dropout)
    reduction = material.reduction
    model.hold(*(torch.from_numpy(part) for part in (*material.parts.all(), reduction.mean, reduction.matrix)))
    head, numbers = model.head.train(), learned(recipe, shards)
    optimiser = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    rng, steps = np.random.default_rng(recipe.seed), recipe.epochs * (len(numbers) // recipe.batch)
    whole = len(numbers) // recipe.batch * recipe.batch
    order = np.concatenate([rng.permutation(numbers)[:whole] for _ in range(recipe.epochs)])
    mean: dict[str, float] = {}
    with tqdm(total=steps, desc="head", unit="step", disable=None) as bar:
        for step, batch in enumerate(order.reshape(steps, recipe.batch)):
            _at_rate(optimiser, recipe.learning_rate * _share(step, steps, recipe.warmup))
            cover = torch.from_numpy(shards.cover[batch]).float() / 255.0
            total, parts = head.loss(torch.from_numpy(shards.tokens(batch)), cover, recipe.dense_weight)
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
            optimiser.step()
            mean = {key: 0.98 * mean.get(key, value) + 0.02 * value for key, value in parts.items()}
            bar.set_postfix({key: f"{value:.3f}" for key, value in mean.items()}, refresh=False)
            bar.update()
    model.eval()
    return model


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
