"""Swin Transformer (Liu et al., ICCV 2021): attention within shifted windows."""

from __future__ import annotations

from torch import Tensor

from unmask_training import torchvision_shim
from unmask_training.trunks.base import Trunk


class Swin(Trunk):
    """torchvision's `swin_t` under its own names; maps (N, 768, S/32, S/32)."""

    channels = 768

    def __init__(self) -> None:
        super().__init__()
        torchvision_shim.install()
        from torchvision.models import swin_t as model

        whole = model(weights=None)
        self.features, self.norm = whole.features, whole.norm

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        found: Tensor = self.norm(self.features(pixels)).permute(0, 3, 1, 2)
        return found


def swin_t() -> Swin:
    """The tiny one: 28 million parameters."""
    return Swin()
