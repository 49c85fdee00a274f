"""The ways to learn a new generator that `adapt-bench` compares: head, prototype, adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import nn

from unmask_training.adaptation.heads import NEW_SHARE, Bools, Floats, Head, Replay, Scorer, fit_head

Method = Callable[[Replay, NDArray[np.float32], Head, float], Scorer]
_RANK: Final = 8
_STEPS: Final = 150
_RATE: Final = 3e-3


def head(replay: Replay, new: NDArray[np.float32], old: Head, strength: float) -> Scorer:
    """A new linear head: what `adapt` ships, since the served graph stays as it is but for its numbers."""
    return fit_head(replay, new, old, strength)


def prototype(replay: Replay, new: NDArray[np.float32], old: Head, strength: float) -> Scorer:
    """Evidence beside the old logit: cosine to the new prototype, and the highest cosine to one of a known kind.

    Prototypes are mean directions in the whitened space (Snell et al., NeurIPS 2017); the three slopes and the bias are
    fitted on replay and samples, pulled to the old head's (1, 0, 0, 0).
    """
    kinds = [_direction(replay.inside[replay.kind == name]) for name in np.unique(replay.kind)]
    known, mine = np.stack(kinds, axis=1), _direction(replay.space.into(new))

    def columns(features: NDArray[np.floating]) -> Floats:
        flat = np.asarray(features, dtype=np.float32).reshape(-1, features.shape[-1])
        unit = _unit(replay.space.into(flat))
        found = np.stack([old(flat), unit @ mine, (unit @ known).max(axis=1), np.ones(len(flat))], axis=1)
        return found.astype(np.float64)

    weight, fake = _shares(replay, len(new))
    sign = np.where(fake, 1.0, -1.0)
    table, start = np.concatenate([columns(replay.features), columns(new)]), np.array([1.0, 0.0, 0.0, 0.0])

    def loss(slopes: Floats) -> tuple[float, Floats]:
        margin = sign * (table @ slopes)
        pull = slopes - start
        value = float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * strength * float(pull @ pull)
        return value, (-weight * sign * expit(-margin)) @ table + strength * pull

    slopes = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return lambda features: np.asarray(columns(features) @ slopes).reshape(features.shape[:-1])


def _shares(replay: Replay, count: int) -> tuple[Floats, Bools]:
    """Weights and truth (R + M,) of replay and new samples, as `fit_head` takes them."""
    weight = replay.weight * np.where(replay.fake, 1.0 - NEW_SHARE, 1.0)
    return np.append(weight, np.full(count, 0.5 * NEW_SHARE / count)), np.append(replay.fake, np.ones(count, dtype=np.bool_))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-9)))


def _direction(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = _unit(rows).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


def adapter(replay: Replay, new: NDArray[np.float32], old: Head, strength: float) -> Scorer:
    """A residual low-rank layer before the old head, whose bias learns too (Houlsby et al., ICML 2019; rank 8).

    The same loss as `head`, by Adam; the pull is on how far replay logits move.
    """
    torch.manual_seed(0)
    width = replay.inside.shape[1]
    down, up = nn.Linear(width, _RANK), nn.Linear(_RANK, 1)
    nn.init.zeros_(up.weight)
    nn.init.zeros_(up.bias)
    inside = torch.from_numpy(np.concatenate([replay.inside, replay.space.into(new)]))
    start = torch.from_numpy(np.concatenate([old(replay.features), old(new)])).float()
    weight, fake = (torch.from_numpy(part).float() for part in _shares(replay, len(new)))
    known = len(replay.fake)
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=_RATE)
    for _ in range(_STEPS):
        moved = up(torch.relu(down(inside)))[:, 0]
        lost = nn.functional.binary_cross_entropy_with_logits(start + moved, fake, reduction="none")
        total = (weight * lost).sum() + 0.5 * strength * (weight[:known] * moved[:known] ** 2).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def score(features: NDArray[np.floating]) -> Floats:
        flat = np.asarray(features, dtype=np.float32).reshape(-1, width)
        with torch.no_grad():
            step = up(torch.relu(down(torch.from_numpy(replay.space.into(flat)))))[:, 0].numpy()
        return np.asarray(old(flat) + step, dtype=np.float64).reshape(features.shape[:-1])

    return score


METHODS: Final[Mapping[str, Method]] = MappingProxyType({"head": head, "prototype": prototype, "adapter": adapter})
