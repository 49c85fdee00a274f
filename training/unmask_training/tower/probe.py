"""Linear heads on standardised features: fitted in seconds, regularised, drawn to answer all real sources alike."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask_training.tower.invariance import Shrinking
from unmask_training.tower.parts import Floats

_EDGE: Final = 1e-6


class Probe(nn.Module):
    """Linear heads on standardised features: synthetic or not, and which of `kinds` generators and real sources, if any."""

    def __init__(self, channels: int, kinds: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.head = nn.Linear(channels, 1 + kinds)

    def forward(self, features: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """Logits (N,) and (N, K)."""
        found = self.head(functional.dropout((features - self.mean) / self.std, dropout))
        return found[:, 0], found[:, 1:]

    def fit(
        self,
        features: Floats,
        fake: NDArray[np.bool_],
        kind: NDArray[np.int64],
        weight: NDArray[np.float64],
        *,
        l2: float,
        invariance: float = 0.0,
        steps: int = 60,
    ) -> None:
        """Logistic regressions on features (N, C): `steps` of L-BFGS, penalties on weights and on telling sources apart."""
        self.mean.copy_(torch.from_numpy(features.mean(axis=0)))
        self.std.copy_(torch.from_numpy(features.std(axis=0) + _EDGE))
        scaled = (features - self.mean.numpy()) / self.std.numpy()
        shrinking = Shrinking.of(scaled, fake, kind, invariance)
        self.descend(shrinking(scaled), fake, kind, weight, l2, steps)
        self.head.weight.data.copy_(torch.from_numpy(shrinking(self.head.weight.detach().numpy())))

    def descend(
        self,
        scaled: Floats,
        fake: NDArray[np.bool_],
        kind: NDArray[np.int64] | None,
        weight: NDArray[np.float64],
        l2: float,
        steps: int,
    ) -> None:
        """At most `steps` of L-BFGS from nothing on standardised features (N, C); `kind` matters to a head that has kinds."""
        self.head.weight.data.zero_()
        self.head.bias.data.zero_()
        rows, truth = torch.from_numpy(scaled), torch.from_numpy(fake.astype(np.float32))
        kinds = None if kind is None or self.head.out_features == 1 else torch.from_numpy(kind)
        share = torch.from_numpy((weight / weight.sum()).astype(np.float32))
        optimizer = torch.optim.LBFGS(self.head.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = self.head(rows)
            loss = functional.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
            if kinds is not None:
                loss = loss + functional.cross_entropy(logits[:, 1:], kinds, reduction="none")
            total: Tensor = (share * loss).sum() + l2 * self.head.weight.square().sum()
            total.backward()
            return total

        optimizer.step(closure)
