"""NPR (Tan et al., CVPR 2024): what a pixel differs by from its neighbour shows the up-sampling of a generator."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from unmask_training import torchvision_shim
from unmask_training.trunks.base import Trunk
from unmask_training.trunks.resnet import ResNet

# The paper's code scales the residual so.
_SCALE: Final = 2.0 / 3.0


class NPR(Trunk):
    """What nearest-neighbour down- and up-sampling by 2 takes away, into two stages of a ResNet-50: (N, 512, S/16, S/16)."""

    channels = 512

    def __init__(self) -> None:
        super().__init__()
        torchvision_shim.install()
        from torchvision.models import resnet50

        self.net = ResNet(resnet50(weights=None), depth=2)
        self.net.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        found: Tensor = self.net(_SCALE * residual(pixels))
        return found


def residual(pixels: Tensor) -> Tensor:
    """Each pixel less the upper left one of its 2 x 2 square; same shape (N, C, H, W)."""
    corners = functional.interpolate(pixels[:, :, ::2, ::2], scale_factor=2.0, mode="nearest")
    return pixels - corners[:, :, : pixels.shape[2], : pixels.shape[3]]


def npr() -> NPR:
    """1.4 million parameters."""
    return NPR()
