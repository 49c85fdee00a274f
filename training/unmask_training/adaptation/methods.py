"""The ways to learn a new generator that `adapt-bench` compares: head, prototype, adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unmask_training.adaptation.heads import NEW_SHARE, STRENGTH, Bools, Floats, Readout, Replay, Scorer, fit_head
from unmask_training.adaptation.learn import PATH

# Of replay, samples (M, C), the present readout and a knob, the logits after learning.
Method = Callable[[Replay, NDArray[np.float32], Readout, float], Scorer]
# How hard logits of known pictures are held where they are, the least first.
PULLS: Final = tuple(STRENGTH * 3.0**i for i in range(7))
_RANK: Final = 8
_STEPS: Final = 150
_RATE: Final = 3e-3


def head(replay: Replay, new: NDArray[np.float32], old: Readout, strength: float) -> Scorer:
    """A linear head beside the present logit."""
    step = fit_head(replay, new, old, strength)
    return lambda features: old(features) + step(features)


def prototype(replay: Replay, new: NDArray[np.float32], old: Readout, bias: float) -> Scorer:
    """The mean of the samples as one more prototype: what `adapt` ships."""
    return replace(old, prototypes=old.prototypes.learning(new, bias))


def _shares(replay: Replay, count: int) -> tuple[Floats, Bools]:
    """Weights and truth (R + M,) of replay and new samples, as `fit_head` takes them."""
    weight = replay.weight * np.where(replay.fake, 1.0 - NEW_SHARE, 1.0)
    return np.append(weight, np.full(count, 0.5 * NEW_SHARE / count)), np.append(replay.fake, np.ones(count, dtype=np.bool_))


def adapter(replay: Replay, new: NDArray[np.float32], old: Readout, strength: float) -> Scorer:
    """A residual low-rank layer beside the present logit (Houlsby et al., ICML 2019; rank 8).

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


# The methods with the knobs that are tried, the boldest first.
METHODS: Final[Mapping[str, tuple[Method, tuple[float, ...]]]] = MappingProxyType(
    {"head": (head, PULLS), "prototype": (prototype, PATH), "adapter": (adapter, PULLS)}
)
