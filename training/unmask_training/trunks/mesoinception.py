"""MesoInception-4 (Afchar et al., WIFS 2018): a few thousand parameters, for what lies between noise and meaning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask_training.trunks.base import Trunk


def _conv(before: int, after: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(nn.Conv2d(before, after, kernel, padding=padding, dilation=dilation), nn.ReLU())


class _Inception(nn.Module):
    """Four looks side by side: 1 x 1, 3 x 3, and 3 x 3 dilated by 2 and by 3, each behind a 1 x 1; figure 5 of the paper."""

    def __init__(self, before: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        one, two, three, four = widths
        self.looks = nn.ModuleList(
            [
                _conv(before, one, 1),
                nn.Sequential(_conv(before, two, 1), _conv(two, two, 3)),
                nn.Sequential(_conv(before, three, 1), _conv(three, three, 3, dilation=2)),
                nn.Sequential(_conv(before, four, 1), _conv(four, four, 3, dilation=3)),
            ]
        )

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([look(maps) for look in self.looks], dim=1)


class MesoInception4(nn.Sequential, Trunk):
    """Maps (N, 16, S/32, S/32).

    The paper lays a hidden layer of 16 over all positions of a view of 256 pixels; here the heads stand on the mean over the
    positions, as with every trunk, so that any size will do.
    """

    channels = 16

    def __init__(self) -> None:
        super().__init__(
            *(_Inception(3, (1, 4, 4, 2)), nn.BatchNorm2d(11), nn.MaxPool2d(2)),
            *(_Inception(11, (2, 4, 4, 2)), nn.BatchNorm2d(12), nn.MaxPool2d(2)),
            *(_conv(12, 16, 5), nn.BatchNorm2d(16), nn.MaxPool2d(2)),
            *(_conv(16, 16, 5), nn.BatchNorm2d(16), nn.MaxPool2d(4)),
        )


def mesoinception4() -> MesoInception4:
    """With the paper's widths."""
    return MesoInception4()
