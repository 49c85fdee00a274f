"""Prototypes of kinds as a layer: what `unmask_training.adaptation.prototypes` computes in numpy, in a detector's graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from unmask_training.adaptation.prototypes import FREE


class Evidence(NamedTuple):
    """Log-odds of each real source (..., S), generator (..., G) and learned one (..., J) against the mean of all."""

    real: Tensor
    fake: Tensor
    learned: Tensor


# Buffers of which a version has as many rows as it knows kinds.
ROWS: Final = (*Evidence._fields, "rises")


class PrototypeHead(nn.Module):
    """Means of kinds in a whitened space of `width` channels, and what they say of a face."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in Evidence._fields:
            self.register_buffer(name, torch.zeros(1, width))
        # Slope and bias of what each learned generator adds: nothing, before one is learned.
        self.register_buffer("rises", torch.tensor([[1.0, FREE]]))
        # How much the known kinds count, and the temperature of their evidence.
        self.register_buffer("mixing", torch.tensor([0.0, 1.0]))

    def hold(self, real: Tensor, fake: Tensor) -> None:
        """Takes the means of real sources (S, W) and generators (G, W); the free place holds one that is known anyhow."""
        self.real, self.fake, self.learned = real.clone(), fake.clone(), fake[:1].clone()

    def make_room(self, shapes: Mapping[str, torch.Size]) -> None:
        """Takes buffers of these shapes, to be loaded into: samples may have taught any number of generators."""
        for name, shape in shapes.items():
            setattr(self, name, torch.zeros(shape))

    def evidence(self, inside: Tensor) -> Evidence:
        """Of whitened features (..., W)."""
        return Evidence(*(inside @ rows.T - 0.5 * (rows**2).sum(1) for rows in (self.real, self.fake, self.learned)))

    def told(self, found: Evidence) -> Tensor:
        """What the known kinds add to the logit, (...)."""
        return self.mixing[0] * (_any(found.fake * self.mixing[1]) - _any(found.real * self.mixing[1]))

    def raised(self, base: Tensor, found: Evidence) -> Tensor:
        """Logits (...) of a linear head with what the prototypes say: known kinds are added, learned ones only raise."""
        told = base + self.told(found)
        rise = self.rises[:, 0] * (found.learned - _any(found.real)[..., None]) + self.rises[:, 1]
        return torch.cat([told[..., None], rise], dim=-1).logsumexp(-1)

    @staticmethod
    def distance(found: Evidence) -> Tensor:
        """How strange a face is, (...): the squared distance to the nearest prototype less that to the mean of all."""
        return -2.0 * torch.cat(found, dim=-1).amax(-1)


def _any(evidence: Tensor) -> Tensor:
    """Log-odds (...) of any of the kinds (..., K) or none of them, whose evidence is 0."""
    return nn.functional.pad(evidence, (1, 0)).logsumexp(-1)
