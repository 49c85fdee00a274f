"""What every trunk is: pictures in, maps of features out, and which part of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
# What published files call the classifier over ImageNet's thousand classes.
_CLASSIFIERS: Final = ("fc.", "classifier.", "head.", "heads.", "last_linear.")


class Trunk(nn.Module):
    """Maps pictures (N, 3, S, S), float RGB normalised as ImageNet's, to features (N, channels, h, w)."""

    channels: int
    # The children that stay as they are, by name; "" is the whole trunk.
    still: tuple[str, ...] = ()
    # By which name what part is frozen; `all` learns everything.
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"all": (), "frozen": ("",)}

    def freeze(self, option: str) -> None:
        """Fixes what the option leaves out of learning, with the statistics of its batch norms."""
        self.still = self.options[option]
        for name in self.still:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Any:
        """As `nn.Module.train`, but what is frozen stays in evaluation mode: its statistics must not move either."""
        super().train(mode)
        for name in self.still:
            part = self.get_submodule(name)
            nn.Module.train(part, False) if part is self else part.eval()
        return self

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict by the names of this trunk, without its classifier."""
        return {name: value for name, value in state.items() if not name.startswith(_CLASSIFIERS)}


class Rescaled(nn.Module):
    """Takes ImageNet's normalisation back and applies another, for weights that were fitted under it."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        of, by = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        # Not persistent: they are no weights, and published files have none of the kind.
        self.register_buffer("scale", (by / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((of - mean) / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) as ImageNet's in, (x - mean) / std of x in 0..1 out."""
        return pixels * self.scale + self.shift
