"""Plain baselines: a perceptron with two hidden layers, and a stack of convolutions."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from unmask_training.trunks.base import Trunk

_THUMBNAIL: Final = 32
_WIDTHS: Final = (32, 64, 128, 256)


class MLP(Trunk):
    """Two hidden layers on a thumbnail of 32 x 32 pixels: features (N, 256, 1, 1)."""

    channels = 256

    def __init__(self) -> None:
        super().__init__()
        first, second = 3 * _THUMBNAIL * _THUMBNAIL, 512
        self.layers = nn.Sequential(
            *(nn.Flatten(), nn.Linear(first, second), nn.BatchNorm1d(second), nn.ReLU()),
            *(nn.Linear(second, self.channels), nn.BatchNorm1d(self.channels), nn.ReLU()),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`; raises `ValueError` for a size that is no multiple of 32."""
        factor, rest = divmod(int(pixels.shape[3]), _THUMBNAIL)
        if rest:
            raise ValueError(f"mlp: needs a size that is a multiple of {_THUMBNAIL}, not {int(pixels.shape[3])}")
        found: Tensor = self.layers(functional.avg_pool2d(pixels, factor))
        return found[:, :, None, None]


class CNN(nn.Sequential, Trunk):
    """Four times convolution, batch norm, ReLU, maximum: maps (N, 256, S/16, S/16)."""

    channels = _WIDTHS[-1]

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        super().__init__(*layers)


def mlp() -> MLP:
    """1.7 million parameters."""
    return MLP()


def cnn() -> CNN:
    """0.4 million parameters."""
    return CNN()
